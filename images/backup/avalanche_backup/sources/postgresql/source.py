"""One PostgreSQL database as a source, and as the target of a restore."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, SourceInvalid, SourceUnavailable
from avalanche_backup.sources.base import (
    Beside,
    Dump,
    Incoming,
    Inspection,
    ProgressHook,
    Proof,
    Sink,
    TargetState,
)
from avalanche_backup.sources.postgresql import limits
from avalanche_backup.sources.postgresql.clearing import clearing
from avalanche_backup.sources.postgresql.clients import (
    Clients,
    dumping_clients,
    installed_clients,
    restoring_clients,
)
from avalanche_backup.sources.postgresql.connection import connection_environment, query_all
from avalanche_backup.sources.postgresql.directory import dump_directory, unpack
from avalanche_backup.sources.postgresql.dump import run_pg_dump
from avalanche_backup.sources.postgresql.fitting import fitted
from avalanche_backup.sources.postgresql.globals import run_pg_dumpall
from avalanche_backup.sources.postgresql.marking import incomplete, unmark
from avalanche_backup.sources.postgresql.parallel import restore_in_parallel
from avalanche_backup.sources.postgresql.patterns import parse_pattern
from avalanche_backup.sources.postgresql.questions import (
    ABILITIES,
    ABOUT,
    LOCKS,
    SERVER,
    contents,
    matching,
    roles,
)
from avalanche_backup.sources.postgresql.restore import run_psql, sql_of_archive, sql_of_directory
from avalanche_backup.sources.postgresql.scope import MARKER, Scope
from avalanche_backup.sources.postgresql.target import (
    KNOWS_TRANSACTION_TIMEOUT,
    check_jobs,
    check_target,
    warnings,
)
from avalanche_contract.source import PostgresqlSource

_EXTENSIONS = {"Plain": ".sql", "Custom": ".dump", "Directory": ".tar"}


class PostgresqlDatabase:
    """One database, reached by the installed clients that fit."""

    kind = "postgresql"

    def __init__(self, request: PostgresqlSource, scratch: Path) -> None:
        self._request, self._scratch = request, scratch
        self.name = request.name
        self.format: str = request.format
        self.extension = _EXTENSIONS[request.format]
        self.beside: Beside | None = Beside("globals", "_globals.sql") if request.include_globals else None
        self.target = f"postgresql://{request.host}:{request.port}/{request.database}"
        self.selection: Mapping[str, Any] = {
            "schemas": sorted(request.schemas),
            "excludeTables": sorted(request.exclude_tables),
        }

    def inspect(self, *, estimate: bool = True) -> Inspection:
        """Reach the server, check that a client fits, and see whether there is something to dump."""
        del estimate
        dumping_clients(self._installed, self._major)
        scope = self._resolve()[0]
        found, about = self._look(scope, ABOUT)
        return Inspection(f"PostgreSQL {self._version}", about["size"], empty=self._nothing(scope, found))

    def dump(self, sink: Sink, *, beside: Sink | None, scratch: Path, progress: ProgressHook) -> Dump:
        """Run pg_dump into ``sink``; the server's globals go into ``beside`` first, where they are asked for."""
        clients = dumping_clients(self._installed, self._major)
        if beside is not None:
            run_pg_dumpall(clients, self._environment, beside, scratch)
        scope, unmatched = self._resolve()
        found, about, named, locks = self._look(scope, ABOUT, roles(scope), LOCKS)
        resolved = self._request.model_copy(update={"exclude_tables": scope.excluded})
        moment = datetime.now(UTC)
        dump = dump_directory if self.format == "Directory" else run_pg_dump
        dump(clients, self._environment, resolved, sink, scratch=scratch, progress=progress)
        return Dump(
            snapshot_time=moment,
            statistics={"tables": found["tables"], "large_objects": found["large_objects"], "database_bytes": about["size"],
                        "locks": found["created_locks"]},
            tools={"pg_dump": clients.version, "postgresql": self._version},
            recreate={**about, **named, "server_version": self._version, "pg_dump": clients.version,
                      "schemas": list(scope.schemas), "excluded_tables": list(scope.excluded)},
            warnings=(*unmatched, *_needed(found), *limits.warnings(found, locks)),
            files_included=tuple(found["relations"][:100]), empty=self._nothing(scope, found),
        )  # fmt: skip

    def inspect_target(self, artifact: Mapping[str, Any]) -> TargetState:
        """See what the database holds of what the artifact would replace, who is in it, and whether it can be done."""
        clients, jobs, scope = self._restoring_clients(artifact), self._request.jobs, Scope.of(artifact)
        check_target(artifact, self._abilities)
        check_jobs(artifact, jobs, clients, self._major)
        found, locks = self._ask_all(contents(scope), LOCKS)
        if found["lost"]:
            raise RestoreRefused(
                f"{self.target}: what is not in the backup would be lost: {'; '.join(found['lost'])}. Take that apart "
                "first, or restore into another database",
                reason="OthersDepend",
            )
        limits.check(artifact, found, locks, jobs)
        names, used_by = tuple(found["names"]), tuple(found["sessions"])
        told = warnings(self._abilities, clients)
        more = f"; {len(found['kept'])} tables and sequences that stay" if found["kept"] else ""
        more += "; a restore into it did not end" if found["incomplete"] else ""
        if not names and not found["large_objects"]:
            empty = f"nothing in {', '.join(scope.schemas)}" if scope.schemas else "an empty database"
            return TargetState("Empty", f"{empty}{more}", used_by=used_by, warnings=told)
        return TargetState(
            "HoldsData", f"{_described(found)}{more}", facts=names, used_by=used_by, warnings=told
        )

    def proof(self, artifact: Mapping[str, Any]) -> Proof:
        """A Directory archive is unpacked before. Of the others the server carries out the beginning before the end is known; that is rolled back."""
        return "None" if artifact.get("format") == "Directory" else "Stored"

    def restore(self, incoming: Incoming) -> str:
        """Replace what the database holds by what the dump holds: in one transaction, unless jobs were asked for."""
        incoming.refuse_part()
        artifact = incoming.artifact
        clients = self._restoring_clients(artifact)
        counted, folder = incoming.counted(), incoming.scratch / "directory"
        try:
            if artifact.get("format") == "Directory":
                # Every byte is read and found right before the target is touched.
                unpack(counted, folder, int(artifact.get("source_bytes") or 0))
            tables = self._fill(clients, counted, folder, artifact)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return f"{tables} tables are back in {self.target}{_warning(clients)}"

    def count(self) -> Mapping[str, Any]:
        """Count what the whole database holds: ``tables``, ``large_objects``."""
        found: Mapping[str, Any] = self._ask(contents(Scope()))
        return found

    def _fill(
        self, clients: Clients, chunks: Iterator[bytes], folder: Path, artifact: Mapping[str, Any]
    ) -> int:
        scope, jobs = Scope.of(artifact), self._request.jobs
        if artifact.get("format") == "Directory" and jobs > 1:
            restore_in_parallel(
                clients, self._environment, folder, jobs=jobs, scope=scope, scratch=folder.parent
            )
            return self._finish(clients, artifact)
        sql = chunks
        if artifact.get("format") == "Directory":
            sql = sql_of_directory(clients, self._environment, folder)
        elif artifact.get("format") == "Custom":
            sql = sql_of_archive(clients, self._environment, chunks)
        sql = fitted(sql, self._major, superuser=self._abilities["superuser"])
        run_psql(clients, self._environment, sql, preamble=clearing(scope), scratch=folder.parent)
        try:
            return self._check(artifact)
        except (SourceUnavailable, SourceInvalid) as failure:
            raise RestoreFailed(
                f"the backup was restored into {self.target} and committed; its tables could not be counted afterwards: "
                f"{failure.message}",
                reason="RestoredUnchecked",
            ) from None

    def _finish(self, clients: Clients, artifact: Mapping[str, Any]) -> int:
        try:
            tables = self._check(artifact)
            unmark(clients, self._environment)
        except Failure as failure:
            raise incomplete(failure.message) from None
        return tables

    def _check(self, artifact: Mapping[str, Any]) -> int:
        found = int(self._ask(contents(Scope.of(artifact)))["tables"])
        wanted = (artifact.get("statistics") or {}).get("tables")
        # Counted a moment before the dump's snapshot: tables that came and went meanwhile may be more or fewer.
        if wanted and not found:
            raise RestoreFailed(f"{self.target} holds no table after the restore, the backup {wanted}")
        return found

    def _resolve(self) -> tuple[Scope, tuple[str, ...]]:
        """Give what is to be dumped, by name, and warnings of patterns that match nothing."""
        patterns = tuple(parse_pattern(each) for each in self._request.exclude_tables)
        if not patterns:
            return Scope(self._request.schemas), ()
        found = self._ask(matching(patterns))
        unmatched = tuple(f"excludeTables: {each} matches no table" for each in found["unmatched"])
        return Scope(self._request.schemas, tuple(found["tables"])), unmatched

    def _look(self, scope: Scope, *more: str) -> list[Any]:
        """See what there is to dump, and ask more by the same connection.

        :raises SourceInvalid: a schema that is not there, or a part of something.
        """
        found, *others = self._ask_all(contents(scope), *more)
        if found["incomplete"]:
            raise SourceInvalid(
                f"{self.target} has the schema {MARKER}: a restore into it did not end; restore again",
                reason="RestoreIncomplete",
            )
        if found["missing"]:
            raise SourceInvalid(
                f"{self.target} has no schema {', '.join(map(repr, found['missing']))}: "
                "schemas are named exactly, upper and lower case count, and patterns are not known",
                reason="SchemaMissing",
            )
        return [found, *others]

    def _nothing(self, scope: Scope, found: Mapping[str, Any]) -> str:
        """Say that there is nothing to dump; an empty text where there is something."""
        if found["relations"] or found["large_objects"]:
            return ""
        where = f" in {', '.join(scope.schemas)}" if scope.schemas else ""
        less = " but those that excludeTables leaves out" if scope.excluded else ""
        return (
            f"{self.target} holds no table and no large object{where}{less}: an empty database is not backed up; is "
            "this the right one?"
        )

    def _restoring_clients(self, artifact: Mapping[str, Any]) -> Clients:
        """Give the clients for a restore; by several jobs, pg_restore itself talks to the server, and must fit it."""
        written_by = _written_by(artifact)
        old = self._request.jobs > 1 and self._major < KNOWS_TRANSACTION_TIMEOUT
        fitting = [each for each in self._installed if written_by <= each.major < KNOWS_TRANSACTION_TIMEOUT]
        return restoring_clients(fitting if old and fitting else self._installed, written_by)

    def _ask(self, sql: str) -> Any:
        return self._ask_all(sql)[0]

    def _ask_all(self, *sql: str) -> list[Any]:
        return query_all(max(self._installed), self._environment, *sql)

    @cached_property
    def _installed(self) -> tuple[Clients, ...]:
        return installed_clients()

    @cached_property
    def _environment(self) -> dict[str, str]:
        return connection_environment(self._request, self._scratch)

    @cached_property
    def _abilities(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._ask(ABILITIES)
        return found

    @cached_property
    def _server(self) -> int:
        return int(self._ask(SERVER)["number"])

    @property
    def _major(self) -> int:
        return self._server // 10000

    @property
    def _version(self) -> str:
        return f"{self._major}.{self._server % 10000}"


def _described(found: Mapping[str, Any]) -> str:
    relations, others = len(found["relations"]), len(found["names"]) - len(found["relations"])
    more = f", {others} functions, types and the like" if others else ""
    large = f" and {found['large_objects']} large objects" if found["large_objects"] else ""
    return f"{relations} tables, views and sequences{more}{large}"


def _needed(found: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"a restore needs what the backup leaves out: {each}" for each in found["needs"])


def _written_by(artifact: Mapping[str, Any]) -> int:
    """Give the major of the pg_dump that wrote an artifact; 0 where the metadata does not say."""
    major = str((artifact.get("recreate") or {}).get("pg_dump") or "").partition(".")[0]
    return int(major) if major.isdecimal() else 0


def _warning(clients: Clients) -> str:
    if clients.patched:
        return ""
    return f"; PostgreSQL's clients {clients.version} lack fixes against crafted dumps (CVE-2026-116314): update them"
