"""How much memory an upload takes: parts that memory could not hold wait in files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from avalanche_contract.request import CatalogRequest
from avalanche_contract.storage import Storage
from avalanche_contract.wire import dump_request
from tests.integration.conftest import STORAGES

SCRIPT = """
import sys
from avalanche_backup.storage import parts
from avalanche_backup.storage.opening import open_store
from avalanche_contract.wire import parse_request
parts.STEPS = ((2, 8 * parts.MIB), (4, 64 * parts.MIB))
writer, data = open_store(parse_request(sys.argv[1], None).storage).create("object"), bytes(range(256)) * 4096
for _ in range(200):
    writer.write(data)
writer.commit()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.parametrize("kind", ["s3", "azure", "gcs"])
def test_parts_of_64_mib_go_up_in_bounded_memory(kind: str, request: pytest.FixtureRequest) -> None:
    """Three of them in memory would be 192 MiB by themselves."""
    storage: Storage = request.getfixturevalue(STORAGES[kind])
    text = dump_request(CatalogRequest(nonce="0" * 16, storage=storage))
    ended = subprocess.run([sys.executable, "-c", SCRIPT, text], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 160 * 1024
