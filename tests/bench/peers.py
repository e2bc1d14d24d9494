"""The tools that people would use instead, each as its documentation has it, with two threads where it can be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.contenders import ZSTD, Contender, Place, stream
from tests.bench.measure import Command, Pipe
from tests.bench.tools import Tools
from tests.integration.servers import ACCESS_KEY, SECRET_KEY, Postgres

PASSWORD = "bench"
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip


def tar(place: Place, source: Path, target: Path, packs: tuple[str, ...]) -> Contender:
    """Give tar, packed by a program."""
    return stream(place, _tar(source), packs, lambda: _untar(target))


def _tar(source: Path) -> Pipe:
    return Pipe((("tar", "-cf", "-", "-C", source, "."),))


def _untar(target: Path) -> Pipe:
    return Pipe((("tar", "-xf", "-", "-C", target),))


def tar_to_s3(place: Place, source: Path, target: Path, tools: Tools, endpoint: str) -> Contender:
    """Give tar, packed by zstd, sent by the command line of AWS."""
    address = f"s3://{place.bucket}/{place.prefix}stream"
    copy = (tools.aws, "--endpoint-url", endpoint, "s3", "cp")

    def backup() -> list[Pipe]:
        commands = (*_tar(source).commands, ZSTD, (*copy, "-", address))
        return [Pipe(commands, environment=S3_ENVIRONMENT)]

    def restore() -> list[Pipe]:
        commands = ((*copy, address, "-"), ("zstd", "-q", "-dc"), *_untar(target).commands)
        return [Pipe(commands, environment=S3_ENVIRONMENT)]

    return Contender("tar | zstd -3 -T2 | aws s3 cp", place, backup, restore)


def restic(place: Place, source: Path, target: Path, work: Path, endpoint: str = "") -> Contender:
    """Give restic, which always encrypts; into a folder, or a bucket."""
    where = f"s3:{endpoint}/{place.bucket}/{place.prefix}" if endpoint else str(place.folder / "repository")
    environment = {**S3_ENVIRONMENT, "RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": where,
                   "RESTIC_CACHE_DIR": str(work / "restic")}  # fmt: skip

    def run(*words: str | Path, folder: Path | None = None) -> Pipe:
        return Pipe((("restic", "--quiet", *words),), environment=environment, folder=folder)

    return Contender(
        "restic", place, lambda: [run("backup", ".", folder=source)],
        lambda: [run("restore", "latest", "--target", target)], prepare=run("init").run,
    )  # fmt: skip


def borg(place: Place, source: Path, target: Path, work: Path) -> Contender:
    """Give borg, with its own encryption and zstd."""
    archive = f"{place.folder}/repository"
    environment = {
        "BORG_PASSPHRASE": PASSWORD,
        "BORG_BASE_DIR": str(work / "borg"),
        "BORG_DELETE_I_KNOW_WHAT_I_AM_DOING": "YES",
    }

    def run(*words: str | Path, folder: Path | None = None) -> Pipe:
        return Pipe((("borg", *words),), environment=environment, folder=folder)

    return Contender(
        "borg", place, lambda: [run("create", "--compression", "zstd,3", f"{archive}::one", ".", folder=source)],
        lambda: [run("extract", f"{archive}::one", folder=target)],
        prepare=run("init", "--encryption=repokey-blake2", archive).run,
    )  # fmt: skip


def kopia(place: Place, source: Path, target: Path, work: Path, program: Path) -> Contender:
    """Give kopia, which always encrypts, with zstd."""
    environment = {"KOPIA_PASSWORD": PASSWORD, "KOPIA_CONFIG_PATH": str(work / "kopia.config"),
                   "KOPIA_CACHE_DIRECTORY": str(work / "kopia"), "KOPIA_CHECK_FOR_UPDATES": "false"}  # fmt: skip

    def run(*words: str | Path) -> Pipe:
        return Pipe(((program, *words),), environment=environment)

    def prepare() -> None:
        run("repository", "create", "filesystem", f"--path={place.folder}").run()
        run("policy", "set", "--global", "--compression=zstd").run()

    return Contender(
        "kopia", place, lambda: [run("snapshot", "create", source)],
        lambda: [run("snapshot", "restore", source, target)], prepare=prepare,
    )  # fmt: skip


class Database:
    """The tools for one database: what dumps it, and what brings it back into another one."""

    def __init__(self, server: Postgres, name: str, target: str, environment: dict[str, str]) -> None:
        self._server, self._name, self._target, self._environment = server, name, target, environment

    def _tool(self, name: str, database: str, *words: str | Path) -> Command:
        return (self._server.binaries / name, "-h", "127.0.0.1", "-p", str(self._server.port), "-U", "avalanche", "-d", database,
                *words)  # fmt: skip

    def _run(self, *commands: Command, **more: str) -> Pipe:
        return Pipe(commands, environment={**self._environment, **more})

    def plain(self, place: Place, packs: tuple[str, ...]) -> Contender:
        """Give SQL, packed by a program, and psql."""
        psql = self._tool("psql", self._target, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", "-")
        return stream(place, self._run(self._tool("pg_dump", self._name)), packs, lambda: self._run(psql))

    def custom(self, place: Place) -> Contender:
        """Give pg_dump's own compressed format."""
        file = place.folder / "dump"
        return Contender(
            "pg_dump -Fc", place, lambda: [self._run(self._tool("pg_dump", self._name, "-Fc", "-f", file))],
            lambda: [self._run(self._tool("pg_restore", self._target, "-1", file))],
        )  # fmt: skip

    def directory(self, place: Place) -> Contender:
        """Give pg_dump's own format of several jobs."""
        folder = place.folder / "dump"
        return Contender(
            "pg_dump -Fd -j2", place, lambda: [self._run(self._tool("pg_dump", self._name, "-Fd", "-j2", "-f", folder))],
            lambda: [self._run(self._tool("pg_restore", self._target, "-j2", folder))],
        )  # fmt: skip

    def restic(self, place: Place, work: Path) -> Contender:
        """Give restic, which takes a stream."""
        more = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": str(place.folder / "repository"),
                "RESTIC_CACHE_DIR": str(work / "restic")}  # fmt: skip
        keeps = ("restic", "--quiet", "backup", "--stdin", "--stdin-filename", "dump.sql")
        psql = self._tool("psql", self._target, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", "-")
        return Contender(
            "pg_dump | restic", place, lambda: [self._run(self._tool("pg_dump", self._name), keeps, **more)],
            lambda: [self._run(("restic", "--quiet", "dump", "latest", "dump.sql"), psql, **more)],
            prepare=self._run(("restic", "--quiet", "init"), **more).run,
        )  # fmt: skip

    def pgbackrest(self, place: Place, work: Path) -> Contender:
        """Give pgBackRest, which copies the server's files: all databases, and what indexes take as well."""
        options = (
            "--stanza=bench", f"--pg1-path={self._server.data}", f"--pg1-port={self._server.port}", "--pg1-user=avalanche",
            f"--pg1-socket-path={self._server.data.parent}", f"--repo1-path={place.folder / 'repository'}",
            f"--lock-path={work / 'pgbackrest'}", f"--log-path={work / 'pgbackrest'}", "--log-level-file=off",
            "--log-level-console=error",
        )  # fmt: skip
        takes = (
            "--no-archive-check",
            "--start-fast",
            "--compress-type=zst",
            "--compress-level=3",
            "--process-max=2",
        )
        return Contender(
            "pgBackRest", place, lambda: [self._run(("pgbackrest", *options, *takes, "backup"))],
            prepare=self._run(("pgbackrest", *options, "stanza-create")).run,
        )  # fmt: skip


def sqlite(place: Place, source: Path, target: Callable[[], Path]) -> Contender:
    """Give a copy by SQLite's own statement, then zstd."""
    copy = place.folder / "copy.sqlite"

    def backup() -> Sequence[Pipe]:
        return [
            Pipe((("sqlite3", source, f"VACUUM INTO '{copy}'"),)),
            Pipe(((*ZSTD, "--rm", copy, "-o", f"{copy}.zst"),)),
        ]

    def restore() -> Sequence[Pipe]:
        return [Pipe((("zstd", "-q", "-d", f"{copy}.zst", "-o", target()),))]

    return Contender("VACUUM INTO, zstd -3 -T2", place, backup, restore)
