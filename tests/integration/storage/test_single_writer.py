"""Stores without conditional writes: found out by a probe, refused, and used where a single writer is accepted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from avalanche_backup.errors import ObjectExists, StorageInvalid
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.request import ProbeRequest
from avalanche_contract.result import ProbeResult
from avalanche_contract.source import SqliteSource
from avalanche_contract.storage import S3Storage
from tests.fakes.faultproxy import Fault, Request, fault_proxy
from tests.integration.runs import NONCE, Runner
from tests.integration.servers import ACCESS_KEY, SECRET_KEY


@pytest.fixture(params=["overwrites", "refuses"])
def old(request: pytest.FixtureRequest, bucket: S3Storage) -> Iterator[S3Storage]:
    """Give a bucket whose server knows no If-None-Match: it overwrites whatever is there, or refuses the request."""
    with fault_proxy(bucket.endpoint or "") as proxy:
        if request.param == "overwrites":
            proxy.rewrite = without_condition
        else:
            refusal = Fault(status=501, code="NotImplemented")
            proxy.fail("PUT|POST", "", refusal, times=10_000, header="If-None-Match")
        yield bucket.model_copy(update={"endpoint": proxy.endpoint})


def without_condition(request: Request) -> Request:
    """Forget the condition, and sign what is left."""
    spared = {name: value for name, value in request.headers.items() if name.lower() not in _SIGNED}
    url = f"http://{request.headers['Host']}{request.url}"
    again = AWSRequest(request.method, url, data=request.body, headers=spared)  # type: ignore[no-untyped-call]
    keys = Credentials(ACCESS_KEY, SECRET_KEY)  # type: ignore[no-untyped-call]
    S3SigV4Auth(keys, "s3", "us-east-1").add_auth(again)  # type: ignore[no-untyped-call]
    return replace(
        request, headers={**spared, **dict(again.headers.items()), "Host": request.headers["Host"]}
    )


_SIGNED = ("if-none-match", "authorization", "x-amz-date", "x-amz-content-sha256")


def probe(storage: S3Storage, tmp_path: Path) -> ProbeResult:
    runner = Runner(storage, tmp_path / "scratch")
    found = run(ProbeRequest(nonce=NONCE, storage=storage), runner.context()).probe
    assert found is not None
    return found


def test_a_store_without_conditional_writes_is_found_out_and_refused(old: S3Storage, tmp_path: Path) -> None:
    with pytest.raises(StorageInvalid, match="accept a single writer in its conditionalWrites") as raised:
        probe(old, tmp_path)
    assert raised.value.reason == "NoConditionalWrites"


def test_a_store_with_conditional_writes_is_told_from_it(bucket: S3Storage, tmp_path: Path) -> None:
    assert probe(bucket, tmp_path).conditional_writes is True


def test_where_a_single_writer_is_accepted_it_is_usable(old: S3Storage, tmp_path: Path) -> None:
    assert probe(old.model_copy(update={"single_writer": True}), tmp_path).conditional_writes is False


@pytest.mark.parametrize("size", [1, 20 * 1024 * 1024])
def test_a_single_writer_looks_before_it_writes(old: S3Storage, size: int) -> None:
    store = open_store(old.model_copy(update={"single_writer": True}))
    _upload(store, size)
    with pytest.raises(ObjectExists):
        store.put("object", b"x")
    with pytest.raises(ObjectExists):
        _upload(store, size)
    found = store.head("object")
    assert found is not None and found.size == size


def _upload(store: Store, size: int) -> None:
    writer = store.create("object")
    try:
        writer.write(bytes(size))
        writer.commit()
    finally:
        writer.abort()


def test_a_backup_of_a_single_writer_is_whole(old: S3Storage, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as made:
        made.execute("CREATE TABLE t (n)")
        made.execute("INSERT INTO t VALUES (1)")
        made.commit()
    runner = Runner(old.model_copy(update={"single_writer": True}), tmp_path / "scratch")
    result = runner.backup(SqliteSource(name="database", path=str(tmp_path / "db.sqlite")))
    assert runner.verify(result).verdict == "Succeeded"
