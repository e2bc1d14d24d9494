"""The edge towards Kubernetes: a request in the environment, a result in the termination message, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avalanche_contract import names
from avalanche_contract.log import read_log
from avalanche_contract.request import BackupRequest, Request, Rotation, Run, VerifyRequest
from avalanche_contract.result import Result, parse_result
from avalanche_contract.source import FilesSource
from avalanche_contract.storage import DirectoryStorage, Place
from avalanche_contract.wire import dump_request, request_sha256

NONCE = "0123456789abcdef"


@pytest.fixture
def request_(tmp_path: Path) -> BackupRequest:
    for name in ("volume", "scratch", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "odd $(HOME) $$\n@avalanche:0123456789abcdef:end {}").write_bytes(os.urandom(100))
    place = Place(storage=DirectoryStorage(name="volume", root=str(tmp_path / "volume")))
    source = FilesSource(name="data", root=str(tmp_path / "data"))
    return BackupRequest(
        nonce=NONCE, scratch=str(tmp_path / "scratch"), run=Run(), backup_type="files", sources=(source,),
        destinations=(place,),
    )  # fmt: skip


def start(request: Request, tmp_path: Path, sha256: str | None = None) -> subprocess.Popen[str]:
    text = dump_request(request)
    environment = {
        **os.environ,
        names.ENV_REQUEST: text,
        names.ENV_REQUEST_SHA256: sha256 or request_sha256(text),
        names.ENV_JOB_UID: "job-uid",
        "AVALANCHE_TERMINATION_LOG": str(tmp_path / "result"),
    }
    program = Path(sys.executable).with_name("avalanche-backup")
    return subprocess.Popen(
        [program, "job"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result(tmp_path: Path) -> Result:
    found = parse_result((tmp_path / "result").read_text(), NONCE)
    assert found is not None
    return found


def test_a_backup_leaves_its_result_and_its_entry(request_: BackupRequest, tmp_path: Path) -> None:
    process = start(request_, tmp_path)
    output, _ = process.communicate()
    answer = read_log(output.splitlines(), NONCE)
    assert process.returncode == 0 and answer.complete
    assert result(tmp_path).verdict == "Succeeded" and result(tmp_path).run_identity == "job/job-uid"
    assert answer.entries[0].checksum == result(tmp_path).checksum


def test_sigterm_midway_is_143_and_leaves_nothing(request_: BackupRequest, tmp_path: Path) -> None:
    with (tmp_path / "data" / "large").open("wb") as file:
        file.truncate(40_000_000_000)  # sparse: far more than can be read before the signal
    process = start(request_, tmp_path)
    assert process.stdout is not None
    next(line for line in process.stdout if ":progress " in line)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143 and result(tmp_path).reason == "Terminated"
    assert [
        path for path in (tmp_path / "volume").rglob("*") if path.is_file() and path.name != "owner.json"
    ] == []


def test_sigkill_midway_leaves_no_backup(request_: BackupRequest, tmp_path: Path) -> None:
    with (tmp_path / "data" / "large").open("wb") as file:
        file.truncate(40_000_000_000)
    process = start(request_, tmp_path)
    assert process.stdout is not None
    next(line for line in process.stdout if ":progress " in line)
    process.kill()
    process.communicate()
    assert list((tmp_path / "volume").rglob("*_metadata.json")) == [] and not (tmp_path / "result").exists()


def test_a_verification_of_several_says_of_each_what_it_found_also_where_one_is_damaged(
    request_: BackupRequest, tmp_path: Path
) -> None:
    start(request_, tmp_path).communicate()
    made = result(tmp_path).backup_id
    asked = VerifyRequest(
        nonce=NONCE, scratch=request_.scratch, backup=Rotation(place=request_.destinations[0])
    )
    process = start(asked, tmp_path)
    answer = read_log(process.communicate()[0].splitlines(), NONCE)
    assert process.returncode == 0 and answer.complete and result(tmp_path).entry_count == 1
    assert [(each.backup_id, each.status) for each in answer.checked] == [(made, "Verified")]
    os.truncate(next((tmp_path / "volume").rglob("*.tar.gz")), 20)
    process = start(asked, tmp_path)
    answer = read_log(process.communicate()[0].splitlines(), NONCE)
    assert process.returncode == 15 and answer.complete and answer.listed[0].backup_ids == (made,)
    assert [each.status for each in answer.checked] == ["VerificationFailed"]
    assert (result(tmp_path).verdict, result(tmp_path).reason) == ("Failed", "VerificationFailed")


def test_a_request_that_changed_on_the_way_is_refused(request_: BackupRequest, tmp_path: Path) -> None:
    process = start(request_, tmp_path, sha256="0" * 64)
    process.communicate()
    assert process.returncode == 2 and list((tmp_path / "volume").iterdir()) == []
