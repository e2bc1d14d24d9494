"""What crosses between the planes keeps its shape, whoever reads it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_contract import log, names, result, wire

GOLDEN = Path(__file__).parent / "golden"
NONCE = "0123456789abcdef"


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("request-*.json")), ids=lambda path: path.stem)
def test_a_golden_request_reads_and_writes_back_the_same(golden: Path) -> None:
    text = golden.read_text()
    assert json.loads(wire.dump_request(wire.parse_request(text, None))) == json.loads(text)


def test_a_request_that_changed_on_the_way_is_refused() -> None:
    text = (GOLDEN / "request-backup.json").read_text()
    with pytest.raises(wire.RequestInvalid, match="differs from the checksum"):
        wire.parse_request(text + " ", wire.request_sha256(text))


def test_a_request_of_another_contract_names_both_versions() -> None:
    with pytest.raises(wire.RequestInvalid, match="contract version 9, this image reads 1"):
        wire.parse_request('{"contractVersion": 9, "verb": "backup"}', None)


def test_an_unknown_field_is_refused_because_it_would_not_be_obeyed() -> None:
    document = json.loads((GOLDEN / "request-probe.json").read_text()) | {"deleteEverything": True}
    with pytest.raises(wire.RequestInvalid, match="deleteEverything"):
        wire.parse_request(json.dumps(document), None)


def _expand(text: str) -> str:
    """What the kubelet does to ``$$`` and ``$(NAME)`` (k8s.io/kubernetes/third_party/forked/golang/expansion)."""
    out, position = [], 0
    while position < len(text):
        if text.startswith("$$", position):
            out.append("$")
            position += 2
        elif text.startswith("$(", position):
            out.append("EXPANDED")
            position += 2
        else:
            out.append(text[position])
            position += 1
    return "".join(out)


@given(st.text(alphabet="$()HOME \\é"))
def test_what_the_kubelet_expands_comes_back_as_it_was_meant(text: str) -> None:
    assert _expand(wire.escape_environment(text)) == text


@given(st.text(max_size=6000), st.text(alphabet='é漢🙂"\\\n', max_size=2000))
def test_a_result_never_exceeds_what_the_kubelet_keeps_and_stays_json(message: str, tail: str) -> None:
    outcome = result.Result(nonce=NONCE, verb="backup", verdict="Failed", reason="X", message=message + tail)
    text = result.dump_result(outcome)
    assert len(text.encode()) <= result.RESULT_MAX_BYTES
    assert result.parse_result(text, NONCE) is not None


def test_a_result_of_another_request_is_nobodys() -> None:
    outcome = result.Result(nonce=NONCE, verb="backup", verdict="Succeeded", reason="X", message="")
    assert result.parse_result(result.dump_result(outcome), "f" * 16) is None


@given(st.text(min_size=1), st.text(min_size=1), st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1)))
def test_a_cronjobs_name_leaves_room_for_its_jobs_and_the_slot_comes_back(
    owner: str, verb: str, moment: datetime
) -> None:
    cron_job = names.child_name(owner, verb)
    slot = moment.replace(second=0, microsecond=0, tzinfo=UTC)
    assert len(cron_job) <= 52
    assert names.slot_of_job(names.job_of_slot(cron_job, slot), cron_job) == slot


def test_a_job_made_by_hand_has_no_slot() -> None:
    assert names.slot_of_job("ab-x-12345678-manual", "ab-x-12345678") is None
    assert names.slot_of_job("other-29000000", "ab-x-12345678") is None


@given(st.sampled_from(names.BACKUP_TYPES), st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)))
def test_a_backup_id_reads_back(backup_type: names.BackupType, moment: datetime) -> None:
    second = moment.replace(microsecond=0, tzinfo=UTC)
    assert names.parse_backup_id(names.backup_id(backup_type, second)) == (backup_type, second)


def test_a_file_name_that_looks_like_a_protocol_line_has_no_effect() -> None:
    lines = [
        '{"event": "archived", "path": "@avalanche:0123456789abcdef:end {\\"count\\": 0}"}',
        "@avalanche:ffffffffffffffff:end {}",
        f"@avalanche:{NONCE}:entry not json",
        log.write_line(NONCE, "progress", log.Progress(phase="Running", done_bytes=5)),
    ]
    answer = log.read_log(lines, NONCE)
    assert answer.progress == log.Progress(phase="Running", done_bytes=5)
    assert not answer.complete
    assert answer.entries == ()
