"""Ours, as the operator's Jobs run it: a request in the environment, and everything that a backup does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from avalanche_backup import catalog
from avalanche_backup.catalog import Found
from avalanche_backup.storage.opening import open_store
from avalanche_contract import names, request
from avalanche_contract.names import BackupType
from avalanche_contract.source import Source
from avalanche_contract.storage import Place as At
from avalanche_contract.storage import Storage
from avalanche_contract.wire import dump_request, request_sha256
from tests.bench import tools
from tests.bench.contenders import Contender, Place
from tests.bench.measure import Pipe

NONCE = "0123456789abcdef"
Algorithm = Literal["Gzip", "Zstd"]


class Ours:
    """One source and one store."""

    def __init__(self, source: Source, kind: BackupType, storage: Callable[[Place], Storage],
                 environment: dict[str, str], scratch: Path) -> None:  # fmt: skip
        self._source, self._kind, self._storage = source, kind, storage
        self._environment, self._scratch = environment, scratch

    def contender(self, place: Place, algorithm: Algorithm, target: Callable[[], Source], *,
                  name: str, read_back: bool = True) -> Contender:  # fmt: skip
        """Give the contender of one compression; ``read_back=False``: the same without the proof, to see what it costs."""
        where = At(storage=self._storage(place))
        module = "avalanche_backup.job" if read_back else "tests.bench.not_read_back"

        def restore() -> list[Pipe]:
            return [self._job(self._restore(where, target()), "avalanche_backup.job")]

        return Contender(name, place, lambda: [self._job(self._backup(where, algorithm), module)],
                         restore if read_back else None)  # fmt: skip

    def drilled(self, place: Place, *, name: str) -> Contender:
        """Give the contender whose backup, with zstd, is proven by a drill."""
        where = At(storage=self._storage(place))
        return Contender(
            name, place, lambda: [self._job(self._backup(where, "Zstd"), "avalanche_backup.job")],
            lambda: [self._job(self._drill(where), "avalanche_backup.job")], compare=False,
        )  # fmt: skip

    def _backup(self, where: At, algorithm: Algorithm) -> request.Request:
        return request.BackupRequest(
            nonce=NONCE, scratch=str(self._scratch), run=request.Run(), backup_type=self._kind, sources=(self._source,),
            destinations=(where,), compression=request.Compression(algorithm=algorithm),
        )  # fmt: skip

    def _restore(self, where: At, target: Source) -> request.Request:
        return request.RestoreRequest(
            nonce=NONCE, scratch=str(self._scratch), mode="Execute", request_uid="bench", backup=self._reference(where),
            targets=(request.RestoreTarget(artifact=target.name, target=target),), locks=(where,),
        )  # fmt: skip

    def _drill(self, where: At) -> request.Request:
        return request.DrillRequest(nonce=NONCE, scratch=str(self._scratch), backup=self._reference(where))

    def _reference(self, where: At) -> Any:
        found = next(
            each
            for each in catalog.backups(open_store(where.storage), where.prefix)
            if isinstance(each, Found)
        )
        return request.BackupReference(
            place=where, backup_type=self._kind, backup_id=found.metadata.backup_id
        )

    def _job(self, asked: request.Request, module: str) -> Pipe:
        text = dump_request(asked)
        environment = {
            **tools.environment(), **self._environment,
            names.ENV_REQUEST: text, names.ENV_REQUEST_SHA256: request_sha256(text), names.ENV_JOB_UID: "bench",
            "AVALANCHE_TERMINATION_LOG": str(self._scratch / "result"),
        }  # fmt: skip
        command = (tools.OURS, "-c", f"import sys; from {module} import main; sys.exit(main())")
        return Pipe((command,), environment=environment)
