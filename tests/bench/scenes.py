"""What is measured side by side: contenders of one source and one store, in turn, three times."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avalanche_contract.base import Credential
from avalanche_contract.source import FilesSource, PostgresqlSource, SqliteSource
from avalanche_contract.storage import DirectoryStorage, S3Storage, Storage
from tests.bench import peers
from tests.bench.contenders import GZIP, PIGZ, ZSTD, Contender, Place
from tests.bench.measure import Pipe, Taken, first_read
from tests.bench.ours import Ours
from tests.bench.tools import Tools
from tests.integration.servers import PASSWORD, Postgres, Seaweed

OURS_ZSTD, OURS_GZIP = "ours, zstd", "ours, gzip"
UNPROVEN = ", not read back"
DRILL = "ours, zstd, drill"
DATABASE, TARGET = "edna", "restored"
BUCKET = "bench"
WHOLE = r"""
SELECT format('SELECT %1$L, count(*), sum(hashtextextended(t::text, 0)) FROM %1$s AS t', oid::regclass)
  FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname \gexec
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname;
"""
"""Says of every table how many rows it has and a hash of them, whatever their order, and of every index what it is."""


@dataclass(frozen=True)
class Ground:
    """Where all of it happens."""

    work: Path
    tools: Tools
    files: Path
    sqlite: Path
    postgres: Postgres
    seaweed: Seaweed

    def place(self, name: str, *, bucket: bool = False) -> Place:
        """Give a place of one contender's own."""
        folder = self.work / "stores" / name
        return Place(folder, self.seaweed.client(), BUCKET) if bucket else Place(folder)

    @property
    def target(self) -> Path:
        """Give the folder that restores go into."""
        return self.work / "target"

    @property
    def database_environment(self) -> dict[str, str]:
        """Give what clients of the server need."""
        return {"PGPASSWORD": PASSWORD, "DB_PASSWORD": PASSWORD}


@dataclass(frozen=True)
class Scene:
    """Contenders of one source and one store. ``clear`` empties the target of restores, ``compare`` raises if it differs."""

    name: str
    contenders: Sequence[Contender]
    clear: Callable[[], None]
    compare: Callable[[], None]


@dataclass
class Figures:
    """What one contender took, a value for each round."""

    backup: list[Taken] = field(default_factory=list)
    restore: list[Taken] = field(default_factory=list)
    stored_bytes: list[int] = field(default_factory=list)


def measured(
    scene: Scene, rounds: int, before: Mapping[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Run every contender in turn, again and again, and give what each took, after what it took ``before``."""
    figures = {each.name: Figures() for each in scene.contenders}
    for number in range(1, rounds + 1):
        for each in scene.contenders:
            _one(scene, each, figures[each.name], compare=number == 1)
            taken = figures[each.name].backup[-1]
            say(
                f"{scene.name} {number}/{rounds} {each.name}: {taken.wall_seconds:.2f} s, "
                f"{taken.cpu_seconds:.2f} s of processor"
            )
    return {name: _joined(before.get(name, {}), asdict(each)) for name, each in figures.items()}


def _joined(before: Mapping[str, list[Any]], more: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {key: [*before.get(key, []), *values] for key, values in more.items()}


def _one(scene: Scene, each: Contender, figures: Figures, *, compare: bool) -> None:
    each.place.clear()
    each.prepare()
    figures.backup.append(_added(each.backup()))
    figures.stored_bytes.append(each.place.stored_bytes())
    if each.restore is not None:
        scene.clear()
        figures.restore.append(_added(each.restore()))
        if compare and each.compare:
            scene.compare()
        scene.clear()
    each.place.clear()


def _added(pipes: Sequence[Pipe]) -> Taken:
    os.sync()  # what came before is not waited for by what is measured
    taken = [each.run() for each in pipes]
    return Taken(
        sum(each.wall_seconds for each in taken), sum(each.cpu_seconds for each in taken), max(each.peak_bytes for each in taken)
    )  # fmt: skip


def files(ground: Ground, *, bucket: bool = False) -> Scene:
    """Give the folder, to a folder or to a bucket."""
    target = ground.target

    def clear() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)

    def compare() -> None:
        Pipe((("diff", "--recursive", "--brief", ground.files, target),)).run()

    source = FilesSource(name="files", root=str(ground.files))
    ours = Ours(
        source, "files", _bucket(ground) if bucket else _folder, peers.S3_ENVIRONMENT, ground.work / "scratch"
    )
    back = lambda: source.model_copy(update={"root": str(target)})  # noqa: E731

    def place(name: str) -> Place:
        return ground.place(name, bucket=bucket)

    mine = [
        ours.contender(place("ours-zstd"), "Zstd", back, name=OURS_ZSTD),
        ours.contender(place("ours-zstd-unread"), "Zstd", back, name=OURS_ZSTD + UNPROVEN, read_back=False),
    ]
    if bucket:
        others = [
            peers.tar_to_s3(place("aws"), ground.files, target, ground.tools, ground.seaweed.endpoint),
            peers.restic(place("restic"), ground.files, target, ground.work, ground.seaweed.endpoint),
        ]
        return Scene("files to S3", [*mine, *others], clear, compare)
    mine += [
        ours.contender(place("ours-gzip"), "Gzip", back, name=OURS_GZIP),
        ours.contender(place("ours-gzip-unread"), "Gzip", back, name=OURS_GZIP + UNPROVEN, read_back=False),
    ]
    others = [
        peers.tar(place("tar-zstd"), ground.files, target, ZSTD),
        peers.tar(place("tar-pigz"), ground.files, target, PIGZ),
        peers.restic(place("restic"), ground.files, target, ground.work),
        peers.borg(place("borg"), ground.files, target, ground.work),
    ]
    if ground.tools.kopia is not None:
        others.append(peers.kopia(place("kopia"), ground.files, target, ground.work, ground.tools.kopia))
    return Scene("files to a folder", _mixed(mine, others), clear, compare)


def database(ground: Ground) -> Scene:
    """Give the PostgreSQL database, to a folder."""
    server, environment = ground.postgres, ground.database_environment
    wanted = server.psql(DATABASE, WHOLE)

    def clear() -> None:
        server.psql("postgres", f"DROP DATABASE IF EXISTS {TARGET}")
        server.psql("postgres", f"CREATE DATABASE {TARGET}")

    def compare() -> None:
        if server.psql(TARGET, WHOLE) != wanted:
            raise AssertionError("the restored database differs")

    source = PostgresqlSource(
        name="database", host="127.0.0.1", port=server.port, database=DATABASE, username="avalanche",
        password=Credential(described="DB_PASSWORD", environment="DB_PASSWORD"),
    )  # fmt: skip
    back = lambda: source.model_copy(update={"database": TARGET})  # noqa: E731
    parallel = source.model_copy(update={"format": "Directory", "jobs": 2})
    parallel_back = lambda: parallel.model_copy(update={"database": TARGET})  # noqa: E731
    scratch = ground.work / "scratch"
    ours = Ours(source, "database", _folder, environment, scratch)
    theirs = peers.Database(server, DATABASE, TARGET, environment)
    place = ground.place
    mine = [
        ours.contender(place("ours-zstd"), "Zstd", back, name=OURS_ZSTD),
        ours.contender(place("ours-zstd-unread"), "Zstd", back, name=OURS_ZSTD + UNPROVEN, read_back=False),
        ours.contender(place("ours-gzip"), "Gzip", back, name=OURS_GZIP),
        ours.contender(place("ours-gzip-unread"), "Gzip", back, name=OURS_GZIP + UNPROVEN, read_back=False),
        Ours(parallel, "database", _folder, environment, scratch).contender(
            place("ours-directory"), "Zstd", parallel_back, name="ours, Directory, 2 jobs, zstd"
        ),
        ours.drilled(place("ours-drill"), name=DRILL),
    ]
    others = [
        theirs.plain(place("zstd"), ZSTD), theirs.plain(place("gzip"), GZIP), theirs.custom(place("custom")),
        theirs.directory(place("directory")), theirs.restic(place("restic"), ground.work),
        theirs.pgbackrest(place("pgbackrest"), ground.work),
    ]  # fmt: skip
    return Scene("database to a folder", _mixed(mine, others), clear, compare)


def sqlite(ground: Ground) -> Scene:
    """Give the SQLite database, to a folder."""
    target = ground.target / "restored.sqlite"

    def clear() -> None:
        shutil.rmtree(ground.target, ignore_errors=True)
        ground.target.mkdir(parents=True)

    wanted = _dumped(ground.sqlite)

    def compare() -> None:
        if _dumped(target) != wanted:
            raise AssertionError("the restored database differs")

    source = SqliteSource(name="database", path=str(ground.sqlite))
    ours = Ours(source, "database", _folder, {}, ground.work / "scratch")
    back = lambda: source.model_copy(update={"path": str(target)})  # noqa: E731
    return Scene(
        "SQLite to a folder",
        [
            ours.contender(ground.place("ours-zstd"), "Zstd", back, name=OURS_ZSTD),
            ours.contender(
                ground.place("ours-unread"), "Zstd", back, name=OURS_ZSTD + UNPROVEN, read_back=False
            ),
            peers.sqlite(ground.place("vacuum"), ground.sqlite, lambda: target),
        ],
        clear,
        compare,
    )


def _dumped(database: Path) -> str:
    """Give the SHA-256 of all that a database says of itself in SQL."""
    with subprocess.Popen(("sqlite3", "-readonly", database, ".dump"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = hashlib.file_digest(process.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
    if process.returncode:
        raise AssertionError(f"{database} cannot be dumped")
    return found


def start_seconds(ground: Ground, rounds: int) -> list[float]:
    """Give the seconds from the start of the process to the first file of the source that it opens to read, each time."""
    source = FilesSource(name="files", root=str(ground.files))
    place = ground.place("start")
    contender = Ours(source, "files", _folder, {}, ground.work / "scratch").contender(
        place, "Zstd", lambda: source, name="start"
    )
    found = []
    for _ in range(rounds):
        place.clear()
        found.append(first_read(contender.backup()[0], ground.files))
    place.clear()
    return found


SCENES: dict[str, Callable[[Ground], Scene]] = {
    "files": files,
    "s3": lambda ground: files(ground, bucket=True),
    "database": database,
    "sqlite": sqlite,
}


def _mixed(mine: Sequence[Contender], others: Sequence[Contender]) -> list[Contender]:
    """Let ours and theirs take turns: a machine that gets slower meanwhile is slower for both."""
    longest = max(len(mine), len(others))
    return [each[number] for number in range(longest) for each in (mine, others) if number < len(each)]


def _folder(place: Place) -> Storage:
    return DirectoryStorage(name="folder", root=str(place.folder))


def _bucket(ground: Ground) -> Callable[[Place], Storage]:
    return lambda place: S3Storage(
        name="bucket", bucket=BUCKET, prefix=place.prefix, endpoint=ground.seaweed.endpoint, force_path_style=True,
        access_key_id=Credential(described="AWS_ACCESS_KEY_ID", environment="AWS_ACCESS_KEY_ID"),
        secret_access_key=Credential(described="AWS_SECRET_ACCESS_KEY", environment="AWS_SECRET_ACCESS_KEY"),
    )  # fmt: skip
