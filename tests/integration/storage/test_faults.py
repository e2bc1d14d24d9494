"""What networks and services do to each store over HTTP, and what comes of it: right, or a named failure and nothing there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials

from avalanche_backup.errors import Failure, ObjectExists, StorageInvalid, StorageUnavailable
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.pipeline.upload import Encoding, Upload
from avalanche_backup.storage import answers, gcs
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_contract.storage import AzureStorage, S3Storage, Storage
from tests.fakes.certificates import certificate
from tests.fakes.faultproxy import Answer, Fault, FaultProxy, fault_proxy
from tests.integration.conftest import STORAGES

NETWORKED = {name: fixture for name, fixture in STORAGES.items() if name != "directory"}
LARGE = 21 * 1024 * 1024 + 7
UPLOADS: dict[str, dict[str, dict[str, Any]]] = {
    "put": {
        "s3": {"method": "PUT", "contains": "object", "lacks": "partNumber"},
        "azure": {"method": "PUT", "contains": "object", "lacks": "comp="},
        "gcs": {"method": "POST", "contains": "uploadType=multipart"},
    },
    "part": {
        "s3": {"method": "PUT", "contains": "partNumber"},
        "azure": {"method": "PUT", "contains": "comp=block&"},
        "gcs": {"method": "PUT", "contains": "upload_id", "header": "/*"},
    },
    "commit": {
        "s3": {"method": "POST", "contains": "uploadId"},
        "azure": {"method": "PUT", "contains": "comp=blocklist"},
        "gcs": {"method": "PUT", "contains": "upload_id", "skip": 2},
    },
    "read": {
        "s3": {"method": "GET", "contains": "root/object"},
        "azure": {"method": "GET", "contains": "root/object"},
        "gcs": {"method": "GET", "contains": "alt=media"},
    },
    "list": {
        "s3": {"method": "GET", "contains": "list-type=2"},
        "azure": {"method": "GET", "contains": "comp=list"},
        "gcs": {"method": "GET", "contains": "maxResults"},
    },
}
"""Which requests of each service do one thing."""


@dataclass(frozen=True)
class Faulty:
    """A store behind a proxy, and the way around it."""

    kind: str
    storage: Storage
    store: Store
    direct: Store
    proxy: FaultProxy

    def fail(self, what: str, fault: Fault, **more: Any) -> Any:
        """Let a fault happen to what the store does."""
        return self.proxy.fail(fault=fault, **{**UPLOADS[what][self.kind], **more})

    def upload(self, data: bytes, key: str = "object") -> None:
        """Upload as the pipeline does."""
        writer = self.store.create(key)
        try:
            for start in range(0, len(data), 1_000_003):
                writer.write(data[start : start + 1_000_003])
            writer.commit()
        finally:
            writer.abort()

    def stored(self) -> dict[str, int]:
        """Say what is really there."""
        return {each.key: each.size for each in self.direct.list("")}


@pytest.fixture(params=NETWORKED)
def faulty(request: pytest.FixtureRequest) -> Iterator[Faulty]:
    storage: Any = request.getfixturevalue(NETWORKED[request.param])
    with fault_proxy(storage.endpoint) as proxy:
        behind = storage.model_copy(update={"endpoint": proxy.endpoint})
        yield Faulty(request.param, behind, open_store(behind), open_store(storage), proxy)


def read(store: Store, key: str) -> bytes:
    with store.read(key) as chunks:
        return b"".join(chunks)


MENDED = {
    "503": Fault(status=503, code="ServerBusy"),
    "500": Fault(status=500, code="InternalError"),
    "429": Fault(status=429, code="TooManyRequests"),
    "reset": Fault(reset=True),
    "delay": Fault(delay=1.0),
}


@pytest.mark.parametrize("what", ["part", "commit"])
@pytest.mark.parametrize("fault", MENDED)
def test_an_upload_outlasts_what_passes(faulty: Faulty, what: str, fault: str) -> None:
    data = os.urandom(LARGE)
    rule = faulty.fail(what, MENDED[fault])
    faulty.upload(data)
    assert rule.hits == 1 and read(faulty.direct, "object") == data


@pytest.mark.parametrize("fault", MENDED)
def test_a_small_write_outlasts_what_passes(faulty: Faulty, fault: str) -> None:
    rule = faulty.fail("put", MENDED[fault])
    faulty.store.put("object", b"small")
    assert rule.hits == 1 and read(faulty.direct, "object") == b"small"


@pytest.mark.parametrize("fault", MENDED)
def test_a_list_outlasts_what_passes(faulty: Faulty, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3", "azure", "gcs"):
        monkeypatch.setattr(f"avalanche_backup.storage.{module}.PAGE", 4)
    for number in range(9):
        faulty.direct.put(f"many/{number}", b"x")
    rule = faulty.fail("list", MENDED[fault], skip=1)
    assert len(list(faulty.store.list("many/"))) == 9 and rule.hits == 1


def test_a_storm_of_half_the_requests_is_outlasted(faulty: Faulty) -> None:
    data = os.urandom(LARGE)
    for number in range(4):
        faulty.fail("part", Fault(status=503, code="SlowDown"), skip=number)
    faulty.fail("commit", Fault(status=503, code="SlowDown"), times=2)
    faulty.upload(data)
    assert read(faulty.direct, "object") == data


@pytest.mark.parametrize("what", ["put", "commit"])
def test_a_reply_lost_after_the_commit_is_a_commit(faulty: Faulty, what: str) -> None:
    data = os.urandom(LARGE if what == "commit" else 100)
    rule = faulty.fail(what, Fault(lost=True))
    faulty.upload(data)
    assert rule.hits == 1 and read(faulty.direct, "object") == data
    assert faulty.stored() == {"object": len(data)}


def test_a_reply_lost_over_the_object_of_another_is_no_commit(faulty: Faulty) -> None:
    faulty.direct.put("object", b"of another")
    faulty.fail("put", Fault(lost=True))
    with pytest.raises(ObjectExists):
        faulty.store.put("object", b"ours, we say")
    assert read(faulty.direct, "object") == b"of another"


def test_a_lost_reply_to_a_part_makes_no_damaged_object(faulty: Faulty) -> None:
    """Two services take the part again. The emulator of the third appends it, unlike Google: the checksum finds out."""
    data = os.urandom(LARGE)
    faulty.fail("part", Fault(lost=True))
    if faulty.kind == "gcs":
        with pytest.raises(StorageUnavailable):
            faulty.upload(data)
        assert faulty.stored() == {}
    else:
        faulty.upload(data)
        assert read(faulty.direct, "object") == data


@pytest.mark.parametrize("what", ["put", "part"])
def test_a_bit_flipped_on_the_way_up_is_found_by_the_service(faulty: Faulty, what: str) -> None:
    """S3 and Azure refuse a part, which is sent again; Google finds out at the end, and the whole is gone."""
    data = os.urandom(LARGE if what == "part" else 100)
    rule = faulty.fail(what, Fault(flip_up=True))
    if faulty.kind == "gcs" and what == "part":
        with pytest.raises(StorageUnavailable) as raised:
            faulty.upload(data)
        assert raised.value.reason == "ChecksumMismatch" and faulty.stored() == {}
    else:
        faulty.upload(data)
        assert read(faulty.direct, "object") == data
    assert rule.hits == 1


@pytest.mark.parametrize("cut", [0, 1_500_000])
def test_a_download_that_breaks_is_taken_up_where_it_broke(faulty: Faulty, cut: int) -> None:
    data = os.urandom(9 * 1024 * 1024)
    faulty.direct.put("object", data)
    rule = faulty.fail("read", Fault(cut=cut), times=2)
    assert read(faulty.store, "object") == data and rule.hits == 2


def test_a_download_that_always_breaks_is_a_failure_and_never_an_end(faulty: Faulty) -> None:
    faulty.direct.put("object", os.urandom(3_000_000))
    faulty.fail("read", Fault(cut=0), times=1000)
    with pytest.raises(StorageUnavailable):
        read(faulty.store, "object")


def test_a_bit_flipped_on_the_way_down_is_found_at_read_back(faulty: Faulty) -> None:
    faulty.fail("read", Fault(flip_down=True), times=1000)
    with Upload([Destination(faulty.store)], lambda _: "object", Encoding("None")) as upload:
        upload.write(os.urandom(1000))
        with pytest.raises(Failure) as raised:
            upload.commit()
    assert raised.value.reason == "ArtifactDamaged" and faulty.stored() == {}


def test_a_writer_that_may_not_delete_still_says_what_went_wrong(faulty: Faulty) -> None:
    faulty.fail("read", Fault(flip_down=True), times=1000)
    denied = faulty.proxy.fail("DELETE", "", Fault(status=403, code="AccessDenied"), times=1000)
    with Upload([Destination(faulty.store)], lambda _: "object", Encoding("None")) as upload:
        upload.write(os.urandom(1000))
        with pytest.raises(Failure) as raised:
            upload.commit()
    assert raised.value.reason == "ArtifactDamaged" and denied.hits == 1


@pytest.mark.parametrize("what", ["part", "commit"])
def test_a_store_that_stays_away_is_named_and_nothing_is_there(faulty: Faulty, what: str) -> None:
    faulty.fail(what, Fault(status=503, code="ServerBusy"), times=10_000)
    with pytest.raises(StorageUnavailable):
        faulty.upload(os.urandom(LARGE))
    assert faulty.stored() == {}


def test_a_permanent_403_is_not_asked_again(faulty: Faulty) -> None:
    rule = faulty.fail("put", Fault(status=403, code="AccessDenied"), times=1000)
    with pytest.raises(StorageInvalid) as raised:
        faulty.store.put("object", b"x")
    assert raised.value.reason == "AccessDenied" and rule.hits == 1
    assert "told by the fault proxy" not in raised.value.message


EXPIRED_SIGNATURE = b"""<Error><Code>AuthenticationFailed</Code><Message>refused</Message>
<AuthenticationErrorDetail>Signed expiry time [x] must be after signed start time</AuthenticationErrorDetail></Error>"""
EXPIRED = {
    "s3": Fault(status=400, code="ExpiredToken"),
    "azure": Fault(status=403, code="AuthenticationFailed", body=EXPIRED_SIGNATURE),
    "gcs": Fault(status=401, code="Unauthorized"),
}


class Renewed(AnonymousCredentials):  # type: ignore[misc] # an SDK without types
    """Credentials that get a new token when they are told, and are refused all the same."""

    def refresh(self, request: object) -> None:
        """Get one."""


def test_credentials_that_expire_mid_upload_are_named(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "_credentials", lambda _: Renewed())
    again = replace(faulty, store=open_store(faulty.storage))
    again.fail("part", EXPIRED[faulty.kind], times=1000, skip=1)
    with pytest.raises(StorageUnavailable) as raised:
        again.upload(os.urandom(LARGE))
    assert raised.value.reason == "CredentialsExpired" and faulty.stored() == {}


def test_a_stale_list_hides_nothing_from_those_who_ask_by_name(faulty: Faulty) -> None:
    list(faulty.store.list(""))
    before = faulty.proxy.answers[-1]
    faulty.store.put("object", b"new")
    faulty.fail("list", Fault(stale=before), times=1000)
    assert list(faulty.store.list("")) == [] and faulty.store.head("object") is not None
    with pytest.raises(ObjectExists):
        faulty.store.put("object", b"newer")


def test_a_list_that_is_cut_short_is_no_shorter_list(faulty: Faulty) -> None:
    for number in range(9):
        faulty.direct.put(f"many/{number}", b"x")
    faulty.fail("list", Fault(cut=200), times=1)
    assert len(list(faulty.store.list("many/"))) == 9


def test_a_session_of_google_is_create_only_from_its_beginning(gcs_bucket: Any) -> None:
    with fault_proxy(gcs_bucket.endpoint) as proxy:
        writer = open_store(gcs_bucket.model_copy(update={"endpoint": proxy.endpoint})).create("object")
        writer.write(bytes(LARGE))
        writer.commit()
    begun = [each.url for each in proxy.seen if "uploadType=resumable" in each.url and each.method == "POST"]
    assert len(begun) == 1 and "ifGenerationMatch=0" in begun[0]


@pytest.mark.parametrize("body", [
    b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>later</Message></Error>", b"", b"<Complete",
], ids=["error", "empty", "truncated"])  # fmt: skip
def test_a_completion_of_s3_that_answers_200_with_something_else_is_no_verdict(
    bucket: S3Storage, body: bytes
) -> None:
    """aws/aws-sdk-java-v2#7068: an error behind status 200. What lies there decides."""
    data = os.urandom(LARGE)
    with fault_proxy(bucket.endpoint or "") as proxy:
        proxy.fail("POST", "uploadId", Fault(body=body))
        writer = open_store(bucket.model_copy(update={"endpoint": proxy.endpoint})).create("object")
        writer.write(data)
        writer.commit()
    assert read(open_store(bucket), "object") == data


def test_a_completion_that_answers_200_and_made_nothing_fails(bucket: S3Storage) -> None:
    body = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>never</Message></Error>"
    with fault_proxy(bucket.endpoint or "") as proxy:
        behind = bucket.model_copy(update={"endpoint": proxy.endpoint})
        proxy.fail("POST", "uploadId", Fault(stale=Answer(200, [], body)), times=1000)
        writer = open_store(behind).create("object")
        writer.write(bytes(LARGE))
        with pytest.raises(StorageUnavailable):
            writer.commit()
        writer.abort()
    assert list(open_store(bucket).list("")) == [] and not _open_uploads(bucket)


def _open_uploads(bucket: S3Storage) -> list[Any]:
    client: Any = open_store(bucket)
    found: list[Any] = client.client.list_multipart_uploads(Bucket=bucket.bucket).get("Uploads", [])
    return found


@pytest.mark.parametrize("kind", NETWORKED)
def test_an_authority_of_ones_own_is_named_or_the_connection_is_refused(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage: Any = request.getfixturevalue(NETWORKED[kind])
    monkeypatch.setattr(gcs, "_credentials", lambda _: AnonymousCredentials())
    served = certificate(tmp_path)
    with fault_proxy(storage.endpoint, served) as proxy:
        secure = storage.model_copy(update={"endpoint": proxy.endpoint})
        open_store(secure.model_copy(update={"ca_file": str(served[0])})).put("object", b"x")
        is_refused(secure)
    assert [each.key for each in open_store(storage).list("")] == ["object"]


@pytest.mark.parametrize("kind", NETWORKED)
@pytest.mark.parametrize(
    "wrong", [{"ended": True}, {"address": "127.0.0.2"}], ids=["expired", "another host"]
)
def test_a_certificate_that_is_expired_or_of_another_host_is_refused_though_its_authority_is_known(
    kind: str,
    wrong: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage: Any = request.getfixturevalue(NETWORKED[kind])
    monkeypatch.setattr(gcs, "_credentials", lambda _: AnonymousCredentials())
    served = certificate(tmp_path, **wrong)
    with fault_proxy(storage.endpoint, served) as proxy:
        is_refused(storage.model_copy(update={"endpoint": proxy.endpoint, "ca_file": str(served[0])}))
    assert list(open_store(storage).list("")) == []


def is_refused(storage: Storage) -> None:
    with pytest.raises(StorageInvalid) as raised:
        open_store(storage).put("other", b"x")
    assert raised.value.reason == "CertificateInvalid"


def test_an_authority_that_is_missing_is_named(container: AzureStorage) -> None:
    with pytest.raises(Failure, match=r"certificate authority /gone/ca\.crt is missing"):
        open_store(container.model_copy(update={"ca_file": "/gone/ca.crt"}))


def test_the_tries_of_the_sdks_end_before_a_probe_does() -> None:
    assert answers.TRIES * answers.CONNECT_SECONDS < 90
