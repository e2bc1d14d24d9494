"""One PostgreSQL database as a source, and as the target of a restore."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from avalanche_backup.errors import RestoreFailed, RestoreRefused, SourceInvalid
from avalanche_backup.sources.base import Dump, Inspection, ProgressHook, Sink, TargetState
from avalanche_backup.sources.postgresql.clients import Clients, choose_clients, installed_clients
from avalanche_backup.sources.postgresql.connection import connection_environment, query
from avalanche_backup.sources.postgresql.dump import run_pg_dump
from avalanche_backup.sources.postgresql.restore import clearing, plain_sql, run_psql
from avalanche_contract.request import PostgresqlSource

FACTS_MAX = 500
# Settings with a dot are the application's own, and may hold anything: they are left out.
_USER_SCHEMAS = "nspname !~ '^pg_' AND nspname <> 'information_schema'"
_SERVER = "SELECT json_build_object('number', current_setting('server_version_num')::int)"
_ABOUT = r"""SELECT json_build_object('size', pg_database_size(current_database()),
 'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
 'owner', pg_get_userbyid(datdba), 'extensions', (SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension),
 'settings', (SELECT coalesce(json_agg(s), '[]') FROM pg_db_role_setting, unnest(setconfig) AS s WHERE s !~ '^[^=]*\.' AND setdatabase = d.oid AND setrole = 0))
 FROM pg_database AS d WHERE datname = current_database()"""
_RELATIONS = f"""SELECT json_build_object('relations', (SELECT coalesce(json_agg(format('%s.%s', nspname, relname) ORDER BY nspname, relname), '[]')
 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {_USER_SCHEMAS}
 AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')),
 'tables', (SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'm') AND {_USER_SCHEMAS}),
 'large_objects', (SELECT count(*) FROM pg_largeobject_metadata),
 'sessions', (SELECT coalesce(json_agg(format('%s sessions of %s', count, usename)), '[]') FROM (SELECT usename, count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' GROUP BY usename ORDER BY usename) AS s))"""  # noqa: S608 - nothing but our own text is put in


class PostgresqlDatabase:
    """One database, reached with the newest installed clients."""

    kind = "postgresql"

    def __init__(self, request: PostgresqlSource, scratch: Path) -> None:
        self._request, self._scratch = request, scratch
        self.name = request.name
        self.extension = ".dump" if request.format == "Custom" else ".sql"
        self.target = f"postgresql://{request.host}:{request.port}/{request.database}"

    def inspect(self, *, estimate: bool = True) -> Inspection:
        """Reach the server, and check that a client fits and that there is something to dump."""
        del estimate
        major = self._server // 10000
        choose_clients(self._installed, major)
        found = self._ask(_RELATIONS)
        if not found["relations"] and not found["large_objects"]:
            raise SourceInvalid(
                f"{self.target} holds no table and no large object: an empty database is not backed up; "
                "is this the right one?",
                reason="SourceEmpty",
            )
        return Inspection(f"PostgreSQL {major}.{self._server % 10000}", self._ask(_ABOUT)["size"])

    def dump(self, sink: Sink, *, index: Sink | None, scratch: Path, progress: ProgressHook) -> Dump:
        """Run pg_dump into ``sink``; a database has no index."""
        del index
        clients = choose_clients(self._installed, self._server // 10000)
        about, found = self._ask(_ABOUT), self._ask(_RELATIONS)
        moment = datetime.now(UTC)
        run_pg_dump(clients, self._environment, self._request, sink, scratch=scratch, progress=progress)
        version = f"{self._server // 10000}.{self._server % 10000}"
        return Dump(
            snapshot_time=moment,
            statistics={"tables": found["tables"], "large_objects": found["large_objects"], "database_bytes": about["size"]},
            tools={"pg_dump": clients.version, "postgresql": version},
            recreate={**about, "server_version": version, "schemas": list(self._request.schemas)},
            files_included=tuple(found["relations"][:100]),
        )  # fmt: skip

    def inspect_target(self) -> TargetState:
        """See what the database holds, and who is in it."""
        found = self._ask(_RELATIONS)
        relations = [str(each) for each in found["relations"]]
        if not relations and not found["large_objects"]:
            return TargetState("Empty", "an empty database", used_by=tuple(found["sessions"]))
        large = f" and {found['large_objects']} large objects" if found["large_objects"] else ""
        return TargetState(
            "HoldsData",
            f"{len(relations)} tables, views and sequences{large}",
            facts=tuple(relations[:FACTS_MAX]),
            used_by=tuple(found["sessions"]),
        )

    def restore(
        self,
        chunks: Iterator[bytes],
        *,
        artifact: Mapping[str, Any],
        paths: tuple[str, ...],
        scratch: Path,
        progress: ProgressHook,
    ) -> str:
        """Replace what the database holds by what the dump holds, in one transaction."""
        if paths:
            raise RestoreRefused(
                "paths choose a part of files; a database comes back whole", reason="PathsNotFound"
            )
        clients = self._restoring_clients()
        recreate, statistics = artifact.get("recreate") or {}, artifact.get("statistics") or {}
        custom = artifact.get("format") == "Custom"
        sql = plain_sql(clients, self._environment, _counted(chunks, progress), custom)
        preamble = clearing(tuple(recreate.get("schemas") or ()))
        run_psql(clients, self._environment, sql, preamble=preamble, scratch=scratch)
        return self._check(statistics)

    def _check(self, statistics: Mapping[str, Any]) -> str:
        found, wanted = self._ask(_RELATIONS)["tables"], statistics.get("tables")
        if wanted is not None and found < wanted:
            raise RestoreFailed(f"{self.target} holds {found} tables after the restore, the backup {wanted}")
        return f"{found} tables are back in {self.target}"

    def _restoring_clients(self) -> Clients:
        clients = choose_clients(self._installed, self._server // 10000)
        if not clients.restricts:
            raise RestoreRefused(
                f"psql {clients.version} would run commands hidden in a dump (CVE-2025-8714): update PostgreSQL's clients",
                reason="ClientTooOld",
            )
        return clients

    def _ask(self, sql: str) -> Any:
        return query(max(self._installed), self._environment, sql)

    @cached_property
    def _installed(self) -> tuple[Clients, ...]:
        return installed_clients()

    @cached_property
    def _environment(self) -> dict[str, str]:
        return connection_environment(self._request, self._scratch)

    @cached_property
    def _server(self) -> int:
        return int(self._ask(_SERVER)["number"])


def _counted(chunks: Iterator[bytes], progress: ProgressHook) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress(done)
