"""Restoring into a new database beside the target, which then takes its name: the target is the old one or the new one.

Both renames are one transaction (PostgreSQL allows that since ever), and with them go who may connect and the comments:
so there is no moment at which a killed restore leaves neither. A rename wants the database for itself; while it waits, it
already holds the lock that keeps new sessions out, and what is connected is ended by a second session.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from avalanche_backup.errors import Failure, RestoreFailed, SourceInvalid, SourceUnavailable
from avalanche_backup.sources.base import Incoming, Kept, Proof
from avalanche_backup.sources.postgresql import beside
from avalanche_backup.sources.postgresql.clients import Clients, installed_clients
from avalanche_backup.sources.postgresql.connection import (
    command_of_psql,
    connection_environment,
    execute,
    explain,
    query,
)
from avalanche_backup.sources.postgresql.questions import contents
from avalanche_backup.sources.postgresql.scope import Scope, identifier
from avalanche_backup.sources.postgresql.source import PostgresqlDatabase
from avalanche_contract.source import PostgresqlSource

MAINTENANCE = ("postgres", "template1")
"""Databases to connect to while the target is renamed: those that every server has, the first that lets us in."""
SWITCH_TRIES, POLL_SECONDS = 3, 0.2
_NAMED_MAX = 5
_ABOUT_A_TARGET = ("OutcomeUnknown", "RestoredUnchecked", "RestoreIncomplete")
"""What a restore into the new database says of that one, and not of the target."""


class PostgresqlSwap:
    """One database, and the names beside it."""

    kept_bars = False
    suits = True
    suits_empty = False

    def __init__(self, request: PostgresqlSource, scratch: Path, switch: str) -> None:
        self._request, self._scratch, self._switch_id = request, scratch, switch
        self._name = request.database
        self._new = beside.name_beside(self._name, "restoring", switch)
        self._aside = beside.name_beside(self._name, "before", switch)
        self.target = f"postgresql://{request.host}:{request.port}/{request.database}"

    def obstacle(self, artifact: Mapping[str, Any], paths: tuple[str, ...]) -> str:
        """Say why the database cannot change places: what would be lost, and what the role may not."""
        del paths
        scope = Scope.of(artifact)
        if scope.schemas or scope.excluded:
            return "the backup holds a part of the database, and the rest has to stay where it is"
        return self._hanging() or self._forbidden() or self._passes_a_pooler() or self._uncarried()

    def action(self, artifact: Mapping[str, Any], *, keep: bool) -> str:
        """Say what will be done, and how much room it takes."""
        del artifact
        what = f"stays as {self._aside}, closed to connections, for one undo" if keep else "is dropped"
        return (
            f"the backup is restored into a new database beside it ({self._new}), checked and analyzed there, and takes its name in one "
            f"transaction, which ends every session; the old one ({self._properties['size']:,} bytes, for whose like the server "
            f"needs room until then) {what}"
        )

    def kept(self) -> tuple[Kept, ...]:
        """Give the databases that earlier restores of this one kept, by their comments."""
        found = [(each, beside.switch_of_kept(self._name, each["comment"])) for each in self._neighbours()]
        return tuple(Kept(each["name"], switch) for each, switch in found if switch)

    def proof(self, artifact: Mapping[str, Any]) -> Proof:
        """A Directory archive is unpacked before. Of the others the server carries out the beginning before the end is known; that goes with the new database."""
        return "None" if artifact.get("format") == "Directory" else "Stored"

    def restore(self, incoming: Incoming, *, keep: bool, index: Iterator[bytes] | None = None) -> str:
        """Restore beside, check, analyze, and switch."""
        del index
        self._settle()
        try:
            tables, new = self._made(incoming)
            leaving = (
                beside.comment_of_kept(self._name, self._switch_id, self._properties["comment"])
                if keep
                else beside.comment_of_beside(self._name)
            )
            self._switch(self._new, self._aside, (self._properties["comment"], leaving), new)
        except BaseException:
            with suppress(Failure):
                self._drop(self._new)
            raise
        told = f"; what was there is kept as {self._aside}" if keep else self._dropped(self._aside)
        return f"{tables} tables are back in {self.target}, which a new database took the name of{told}"

    def _made(self, incoming: Incoming) -> tuple[int, int | None]:
        """Make the new database, whole; give its number of tables, and its number.

        :raises RestoreFailed: whatever it was that failed, the target is as it was.
        """
        try:
            self._make()
            tables = self._fill(incoming)
            self._run(beside.carried(self._new, self._properties))
            return tables, self._oid_of(self._new)
        except Failure as failure:
            reason = "RestoreRolledBack" if failure.reason in _ABOUT_A_TARGET else failure.reason
            raise RestoreFailed(
                f"{failure.message}. That was beside {self.target}, which is as it was", reason=reason
            ) from None

    def undo_obstacle(self, kept: Kept) -> str:
        """Say why the kept database cannot take its name again: that makes nothing, and brings no extension along."""
        del kept
        return self._undroppable() or self._unnamed() or self._passes_a_pooler()

    def standing(self) -> str:
        """Say what an undo would take away: which database it is, and what is in it."""
        found = query(self._psql, self._environment, contents(Scope()))
        return f"database {self._properties['oid']}: {found['names']}, {found['large_objects']} large objects"

    def sizes(self, kept: Kept) -> tuple[int, int]:
        """Ask the server for the sizes of both databases; that of the kept one is told to who may connect to it."""
        with suppress(Failure):
            return int(self._properties["size"]), int(
                query(self._psql, self._environment, beside.size_of(kept.name))
            )
        return 0, 0

    def undo(self, kept: Kept) -> str:
        """Give the name back, and drop what was restored."""
        self._settle()
        found = next((each for each in self._neighbours() if each["name"] == kept.name), None)
        if found is None:
            raise RestoreFailed(f"the database {kept.name} is gone: there is nothing to undo with")
        going = beside.name_beside(self._name, "undone", kept.switch)
        comments = beside.comment_before(found["comment"]), beside.comment_of_beside(self._name)
        self._switch(kept.name, going, comments, found["oid"])
        return f"{self.target} is what it was before the restore{self._dropped(going)}"

    def _undroppable(self) -> str:
        """Say what hangs on the very database, and keeps it from giving its name away and going."""
        found = self._properties
        for what, names in {
            "replication slots": found["slots"],
            "subscriptions": found["subscriptions"],
        }.items():
            if names:
                return f"the database has {what}, which would not go along: {', '.join(names[:_NAMED_MAX])}"
        if found["prepared"]:
            return f"the database has {found['prepared']} prepared transactions: commit or roll them back"
        return "the database is a template, which would not go along" if found["is_template"] else ""

    def _hanging(self) -> str:
        """Say what hangs on the very database, and would not go along."""
        found = self._properties
        if problem := self._undroppable():
            return problem
        if names := found["extension_rows"]:
            return (
                "the database has tables of extensions whose rows no dump holds, which would not go along: "
                f"{', '.join(names[:_NAMED_MAX])}"
            )
        if found["labels"]:
            return "the database has a security label, which would not go along"
        for each in found["extensions"]:
            name = f"extension {each['name']} {each['version']}"
            if not each["known"]:
                return f"{name} is in the database, and that release is no longer installed on the server"
            if not each["creatable"]:
                return f"{name} is not trusted, and only a superuser may create it"
        return ""

    def _forbidden(self) -> str:
        """Say what the role may not."""
        found, role = self._properties, self._properties["role"]
        if problem := self._unnamed():
            return problem
        if not (found["superuser"] or found["gives"]):
            return f"role {role} may not make {found['owner']} the owner of a database"
        if found["tablespace"] != "pg_default" and not found["into_tablespace"]:
            return (
                f"role {role} may not create in tablespace {found['tablespace']}: GRANT CREATE ON TABLESPACE"
            )
        return ""

    def _unnamed(self) -> str:
        """Say what the role may not do of giving a database another name: PostgreSQL asks for CREATEDB of its owner."""
        found, role = self._properties, self._properties["role"]
        if not found["createdb"]:
            return f"role {role} may not create databases, nor give one another name: ALTER ROLE … CREATEDB"
        if not (found["superuser"] or found["owns"]):
            return f"role {role} is not the owner of the database, nor a member of {found['owner']}"
        if found["unending"]:
            return f"role {role} may not end the sessions of {', '.join(found['unending'][:_NAMED_MAX])}: GRANT pg_signal_backend"
        if self._maintenance is None:
            return f"there is no other database to work from: role {role} may connect to neither {' nor '.join(MAINTENANCE)}"
        return ""

    def _passes_a_pooler(self) -> str:
        """Find a pooler by a setting in the connection's options: PostgreSQL takes it, poolers refuse or forget it."""
        asked = self._environment | {"PGOPTIONS": f"-c avalanche.switch={self._switch_id}"}
        with suppress(Failure):
            if (
                query(self._psql, asked, "SELECT to_json(current_setting('avalanche.switch', true))")
                == self._switch_id
            ):
                return ""
        return "a pooler stands between here and the server, and would keep sessions of the old database: give the server's own address"

    def _uncarried(self) -> str:
        """Try what has to be carried over on the database itself, in a transaction that is rolled back."""
        rehearsal = f"BEGIN;\n{beside.carried(self._name, self._properties)}ROLLBACK;"
        try:
            execute(self._psql, self._environment, rehearsal)
        except Failure as failure:
            return f"grants and settings of the database cannot be carried over: {failure.message}"
        return ""

    def _settle(self) -> None:
        """Drop what killed restores and undos left; one that somebody works in stays."""
        own = beside.comment_of_beside(self._name)
        fresh = {beside.name_beside(self._name, "restoring", self._switch_id)}
        for each in self._neighbours():
            if each["comment"] == own or (each["fresh"] and self._is_fresh_of_ours(each["name"], fresh)):
                with suppress(SourceUnavailable):
                    self._drop(each["name"])

    def _is_fresh_of_ours(self, name: str, own: set[str]) -> bool:
        """Say whether a database that was just made, closed and without a comment, has a name of this target's."""
        stem, _, digits = name.rpartition("_")
        return name in own or (len(digits) == 8 and stem == next(iter(own)).rpartition("_")[0])

    def _make(self) -> None:
        self._run(beside.creation(self._new, self._properties))
        self._run(beside.opening(self._new, self._name))
        if self._properties["extensions"]:
            execute(self._psql, self._inside, beside.extensions(self._properties))

    def _fill(self, incoming: Incoming) -> int:
        """Restore into the new database as into any empty one, compare it with the metadata, and analyze it."""
        inner = self._scratch / "beside"
        inner.mkdir(exist_ok=True)
        database = PostgresqlDatabase(self._request.model_copy(update={"database": self._new}), inner)
        database.restore(incoming)
        found = database.count()
        wanted = incoming.artifact.get("statistics") or {}
        for what in ("tables", "large_objects"):
            if wanted.get(what) and not found[what]:
                raise RestoreFailed(f"none of {wanted[what]} {what.replace('_', ' ')} came back")
        execute(
            self._psql, self._inside, "SET statement_timeout = 0; SET client_min_messages = error; ANALYZE;"
        )
        return int(found["tables"])

    def _switch(self, new: str, aside: str, comments: tuple[str | None, str], oid: int | None) -> None:
        """Switch, and believe the server's catalog alone about whether it did."""
        said: Failure | None = None
        for _ in range(SWITCH_TRIES):
            said = self._try_to_switch(beside.switching(self._name, new, aside, comments))
            try:
                if oid is not None and self._oid_of(self._name) == oid:
                    return
            except Failure as failure:
                raise RestoreFailed(
                    f"{failure.message}. The server did not say whether the databases changed places: {self.target} is wholly "
                    "what it was, or wholly what was to be; look at it, or restore again",
                    reason="OutcomeUnknown",
                ) from None
        raise said or RestoreFailed("the databases did not change places", reason="RestoreRolledBack")

    def _try_to_switch(self, sql: str) -> Failure | None:
        errors = self._scratch / "switch.errors"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                command_of_psql(self._psql), env=self._outside, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr
            )  # fmt: skip
            try:
                if process.stdin is not None:
                    with suppress(BrokenPipeError):
                        process.stdin.write(sql.encode())
                        process.stdin.close()
                while process.poll() is None:
                    with suppress(Failure):
                        query(self._psql, self._outside, beside.ending(self._name))
                    time.sleep(POLL_SECONDS)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if not process.returncode:
            return None
        return explain(errors.read_text(errors="replace"), "the databases did not change places")

    def _dropped(self, name: str) -> str:
        """Drop what nobody needs any more, and say what stands in the way of that."""
        try:
            self._drop(name)
        except Failure as failure:
            return f" (the old one could not be dropped and stays as {name}: {failure.message})"
        return ""

    def _drop(self, name: str) -> None:
        self._run(f"DROP DATABASE IF EXISTS {identifier(name)}")

    def _run(self, sql: str) -> None:
        execute(self._psql, self._outside, sql)

    def _oid_of(self, name: str) -> int | None:
        return next((int(each["oid"]) for each in self._neighbours() if each["name"] == name), None)

    def _neighbours(self) -> list[Mapping[str, Any]]:
        where = self._outside if self._maintenance is not None else self._environment
        found: list[Mapping[str, Any]] = query(self._psql, where, beside.NEIGHBOURS)
        return found

    @cached_property
    def _psql(self) -> Clients:
        return max(installed_clients())

    @cached_property
    def _environment(self) -> dict[str, str]:
        return connection_environment(self._request, self._scratch)

    @property
    def _inside(self) -> dict[str, str]:
        return self._environment | {"PGDATABASE": self._new}

    @property
    def _outside(self) -> dict[str, str]:
        return self._environment | {"PGDATABASE": self._maintenance or MAINTENANCE[0]}

    @cached_property
    def _maintenance(self) -> str | None:
        for each in MAINTENANCE:
            with suppress(SourceInvalid, SourceUnavailable):
                if each != self._name and query(
                    self._psql, self._environment | {"PGDATABASE": each}, "SELECT 'true'"
                ):
                    return each
        return None

    @cached_property
    def _properties(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = query(self._psql, self._environment, beside.PROPERTIES)
        return found
