"""What people are told, read back from real servers; and that telling never changes what a run came to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import layout
from avalanche_backup.catalog import read_json
from avalanche_backup.credentials import give
from avalanche_backup.errors import Failure, NotificationFailed, VerificationFailed
from avalanche_backup.notifications import email
from avalanche_backup.verbs.dispatch import run
from avalanche_contract import names
from avalanche_contract.base import Credential
from avalanche_contract.notification import Channel, Notifications, UrlsChannel
from avalanche_contract.request import BackupRequest, NotifyRequest, Request
from avalanche_contract.result import Result, parse_result
from avalanche_contract.source import FilesSource
from avalanche_contract.storage import DirectoryStorage
from avalanche_contract.wire import dump_request
from tests.integration import mail
from tests.integration.mail import ENV_PASSWORD, PASSWORD, Mail
from tests.integration.runs import NONCE, PREFIX, WRITER, Runner

MOMENT = datetime(2026, 3, 1, 2, tzinfo=UTC)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mail]:
    monkeypatch.setenv(ENV_PASSWORD, PASSWORD)
    with mail.server(tmp_path) as running:
        yield running


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "storage").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    return Runner(DirectoryStorage(name="volume", root=str(tmp_path / "storage")), tmp_path / "scratch")


@pytest.fixture
def source(tmp_path: Path, runner: Runner) -> FilesSource:
    return FilesSource(name="data", root=str(tmp_path / "data"))


def told_to(*channels: Channel, retried: bool = False) -> Notifications:
    return Notifications(channels=channels, retried=retried)


def back_up(
    runner: Runner, source: FilesSource, notifications: Notifications, hour: int, uid: str = ""
) -> Result:
    moment = MOMENT + timedelta(hours=hour)
    asked, context = runner.manual(moment, uid or f"run-{hour}"), runner.context(now=lambda: moment)
    return runner.backup(source, kind="files", run_of=asked, context=context, notifications=notifications)


def broken(source: FilesSource) -> FilesSource:
    return source.model_copy(update={"paths": ("absent",)})


def notify(*channels: Channel, **more: Any) -> NotifyRequest:
    values: dict[str, Any] = {
        "nonce": NONCE, "notifications": told_to(*channels), "writer": WRITER, "event": "Failed",
        "backup_type": "database", "reason": "ResultLost", "message": "the pod went away", "time": MOMENT,
    }  # fmt: skip
    return NotifyRequest(**{**values, **more})


def test_a_failed_backup_is_told_by_mail_with_what_happened(
    server: Mail, runner: Runner, source: FilesSource
) -> None:
    with pytest.raises(Failure):
        back_up(runner, broken(source), told_to(server.channel()), 0)
    sender, recipients, message = server.received[0]
    assert (sender, recipients) == ("backup@edna.example", ["a@edna.example", "b@edna.example"])
    assert message["Subject"] == "[avalanche] files backup failed: SourceMissing (edna/policy)"
    assert message["From"] == "backup@edna.example" and message["Auto-Submitted"] == "auto-generated"
    body = message.get_content()
    assert "absent" in body and "manual/run-0" in body and "This run left no backup" in body
    assert message.get_content_type() == "text/plain" and server.logins == ["backup"]


def test_a_failure_is_told_once_in_twelve_hours_and_once_when_it_works_again(
    server: Mail, runner: Runner, source: FilesSource
) -> None:
    notifications = told_to(server.channel())
    back_up(runner, source, notifications, 0)
    for hour in (1, 2, 15):
        with pytest.raises(Failure):
            back_up(runner, broken(source), notifications, hour)
    assert len(runner.attempts()) == 3
    for hour in (16, 17):
        back_up(runner, source, notifications, hour)
    subjects = [message["Subject"] for _, _, message in server.received]
    assert [each.split(":")[0].split("(")[0].strip() for each in subjects] == [
        "[avalanche] files backup failed",
        "[avalanche] files backup failed",
        "[avalanche] files backup works again",
    ]
    assert runner.attempts() == []


def test_another_failure_is_told_at_once(server: Mail, runner: Runner, source: FilesSource) -> None:
    with pytest.raises(Failure):
        back_up(runner, broken(source), told_to(server.channel()), 0)
    Path(source.root, "file").unlink()
    with pytest.raises(Failure):
        back_up(runner, source, told_to(server.channel()), 1)
    assert [
        "SourceMissing" in server.received[0][2]["Subject"],
        "SourceEmpty" in server.received[1][2]["Subject"],
    ] == [True, True]


def test_a_try_that_is_followed_by_another_tells_nobody_and_counts(
    server: Mail, runner: Runner, source: FilesSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifications = told_to(server.channel(), retried=True)
    monkeypatch.setattr("avalanche_backup.verbs.backup.run", _raises(OSError("canary")))
    for _ in range(2):
        with pytest.raises(OSError, match="canary"):
            back_up(runner, source, notifications, 0)
    document = read_json(runner.store, runner.attempts()[0]) or {}
    assert (document["attempts"], document["told_time"], document["reason"]) == (2, None, "Unexpected")
    assert document["run_identity"] == "manual/run-0" and "canary" not in document["message"]
    monkeypatch.undo()
    back_up(runner, source, notifications, 0)
    assert server.received == [] and runner.attempts() == []


def _raises(error: Exception) -> Any:
    def fail(*_: Any) -> None:
        raise error

    return fail


def test_damage_is_told_once_and_not_every_morning(server: Mail, runner: Runner, source: FilesSource) -> None:
    notifications = told_to(server.channel())
    made = back_up(runner, source, notifications, 0)
    artifact = next(Path(runner.storage.root).rglob("*.tar.gz"))  # type: ignore[union-attr]
    os.truncate(artifact, 20)
    for _ in range(2):
        with pytest.raises(VerificationFailed):
            runner.verify(made, notifications)
    ((_, _, message),) = server.received
    assert message["Subject"].startswith(f"[avalanche] files backup {made.backup_id} failed verification: ")
    assert message["Subject"].endswith("(edna/policy)")


def test_a_name_with_line_ends_adds_no_header_and_no_recipient(server: Mail, runner: Runner) -> None:
    evil = "x\r\nBcc: victim@example.org\n\n<b>html</b>\u2028\x00"
    run(notify(server.channel(), message=evil, reason=evil, backup=evil), runner.context())
    _, recipients, message = server.received[0]
    assert recipients == ["a@edna.example", "b@edna.example"] and message["Bcc"] is None
    assert "victim@example.org" in message["Subject"] and "\n" not in message["Subject"]
    assert message.get_content_type() == "text/plain"


def test_events_that_nobody_asked_for_are_not_told(server: Mail, runner: Runner) -> None:
    result = run(notify(server.channel(events=("Recovered",))), runner.context())
    assert result.reason == "NobodyAsked" and server.received == []


def test_mail_goes_by_tls_from_the_start_where_that_is_said(
    tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_PASSWORD, PASSWORD)
    with mail.server(tmp_path, offers="TLS") as running:
        run(notify(running.channel(tls="TLS")), runner.context())
        assert len(running.received) == 1 and running.logins == ["backup"]


def test_a_server_without_login_and_tls_is_used_only_where_that_is_said(
    tmp_path: Path, runner: Runner
) -> None:
    with mail.server(tmp_path, offers="None", login=False) as running:
        run(notify(running.channel(tls="None", username=None, password=None)), runner.context())
        assert len(running.received) == 1


def _why(runner: Runner, channel: Channel, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("avalanche_backup.verbs.notify.TRIES", 1)
    with pytest.raises(NotificationFailed) as raised:
        run(notify(channel), runner.context())
    assert "canary" not in raised.value.message
    return raised.value.message


def test_a_server_without_starttls_gets_neither_mail_nor_password(
    tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 3207, section 6: an offer that is missing may be an attacker's doing."""
    monkeypatch.setenv(ENV_PASSWORD, PASSWORD)
    with mail.server(tmp_path, offers="None") as running:
        assert "offers no STARTTLS" in _why(runner, running.channel(), monkeypatch)
        assert "never sent without TLS" in _why(runner, running.channel(tls="None"), monkeypatch)
        assert running.logins == [] and running.received == []


def test_a_certificate_that_nobody_vouches_for_gets_no_password(
    server: Mail, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not trusted" in _why(runner, server.channel(ca_file=None), monkeypatch)
    assert server.logins == []


def test_what_a_server_refuses_is_said_without_its_words(
    server: Mail, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refuse_recipients = True
    assert "refuses the recipients (SMTP 550)" in _why(runner, server.channel(), monkeypatch)
    monkeypatch.setenv(ENV_PASSWORD, "wrong canary")
    assert "refuses the user or the password (SMTP 535)" in _why(runner, server.channel(), monkeypatch)
    monkeypatch.delenv(ENV_PASSWORD)
    assert f"{ENV_PASSWORD} is missing" in _why(runner, server.channel(), monkeypatch)


def test_a_server_that_hangs_or_is_gone_is_given_up(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setenv(ENV_PASSWORD, PASSWORD)
    with mail.silent() as hanging:
        assert "did not answer" in _why(runner, hanging.channel(), monkeypatch)
    assert "cannot be reached" in _why(runner, hanging.channel(), monkeypatch)


def test_a_mail_server_that_fails_never_fails_a_backup(
    runner: Runner, source: FilesSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_PASSWORD, PASSWORD)
    notifications = told_to(Mail(1).channel())
    with pytest.raises(Failure) as raised:
        back_up(runner, broken(source), notifications, 0)
    assert raised.value.reason == "SourceMissing"
    assert back_up(runner, source, notifications, 1).verdict == "Succeeded"
    (told,) = runner.reported.notifications
    assert told.event == "Failed" and told.sent == () and "cannot be reached" in told.failed["mail"]


def test_a_document_that_cannot_be_written_or_read_changes_no_outcome(
    server: Mail, runner: Runner, source: FilesSource
) -> None:
    notifications = told_to(server.channel())
    (Path(runner.storage.root) / "edna").write_text("in the way")  # type: ignore[union-attr]
    with pytest.raises(Failure) as raised:
        back_up(runner, broken(source), notifications, 0)
    assert raised.value.reason != "Unexpected" and len(server.received) == 1
    (Path(runner.storage.root) / "edna").unlink()  # type: ignore[union-attr]
    key = layout.attempt_key(PREFIX, "files_20260301_000000")
    runner.store.put(key, b"\xff no JSON")
    assert back_up(runner, source, notifications, 1).verdict == "Succeeded"


def test_the_folder_of_another_cluster_gets_no_document(
    server: Mail, runner: Runner, source: FilesSource
) -> None:
    runner.store.put(f"{PREFIX}{layout.OWNER_FILE}", b'{"cluster_uid": "another"}')
    with pytest.raises(Failure):
        back_up(runner, source, told_to(server.channel()), 0)
    assert runner.attempts() == [] and "OwnedByAnother" in server.received[0][2]["Subject"]


def test_a_url_of_apprise_gets_the_same_text(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = UrlsChannel(name="hook", urls=Credential(described="URLS", environment="TEST_URLS"))
    with mail.webhook() as (port, arrived):
        give("TEST_URLS", f"# the hook\n\njson://127.0.0.1:{port}/token-canary\n")
        run(notify(urls), runner.context())
    assert arrived[0]["title"] == "[avalanche] database backup failed: ResultLost (edna/policy)"
    assert "the pod went away" in arrived[0]["message"]


def test_urls_that_fail_are_named_by_place_and_scheme_and_stop_no_other(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    urls = UrlsChannel(name="hook", urls=Credential(described="URLS", environment="TEST_URLS"))
    with mail.webhook() as (port, arrived), mail.webhook(500) as (bad, _):
        give("TEST_URLS", f"nonsense canary\njson://127.0.0.1:{bad}/canary\njson://127.0.0.1:{port}/")
        why = _why(runner, urls, monkeypatch)
    assert why == "hook: not delivered: URL 1 (no URL), URL 2 (json://)" and len(arrived) == 1
    assert "canary" not in "".join(capfd.readouterr())


def test_one_that_was_told_is_not_told_again_by_the_next_try(
    server: Mail, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr("avalanche_backup.notifications.send.time.sleep", waits.append)
    with pytest.raises(NotificationFailed):
        run(notify(server.channel(), Mail(1).channel(name="gone")), runner.context())
    assert len(server.received) == 1 and len(waits) == 2


def start(request: Request, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("avalanche-backup")
    told = {"AVALANCHE_TERMINATION_LOG": str(tmp_path / "result"), names.ENV_REQUEST: dump_request(request)}
    return subprocess.run(
        [program, "job"],
        env={**os.environ, **told, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_tells_and_its_result_says_so_without_the_password(
    server: Mail, runner: Runner, source: FilesSource, tmp_path: Path
) -> None:
    def request(channel: Channel) -> BackupRequest:
        return BackupRequest(
            nonce=NONCE, scratch=str(tmp_path / "scratch"), backup_type="files", sources=(broken(source),),
            destinations=(runner.place,), writer=WRITER, notifications=told_to(channel),
        )  # fmt: skip

    ended = start(request(server.channel()), tmp_path)
    result = parse_result((tmp_path / "result").read_text(), NONCE)
    assert ended.returncode == 11 and result is not None and result.notified is True
    assert result.notification is not None and result.notification.sent == ("mail",)
    runner.store.delete(runner.attempts()[0])  # or the same failure would not be told again so soon
    ended = start(request(server.channel()), tmp_path, **{ENV_PASSWORD: "wrong canary"})
    result = parse_result((tmp_path / "result").read_text(), NONCE)
    assert ended.returncode == 11 and result is not None and result.notified is False
    assert result.notification is not None and "535" in result.notification.failed["mail"]
    everything = ended.stdout + ended.stderr + (tmp_path / "result").read_text()
    assert "535" in ended.stderr and "canary" not in everything and PASSWORD not in everything
    assert not [path for path in tmp_path.rglob("*.json") if "canary" in path.read_text()]


def test_a_job_that_could_not_tell_has_an_exit_code_of_its_own(runner: Runner, tmp_path: Path) -> None:
    urls = UrlsChannel(name="hook", urls=Credential(described="key urls", file=str(tmp_path / "absent")))
    request = notify(urls, scratch=str(tmp_path / "scratch"))
    assert request.notifications.channels
    ended = start(request, tmp_path, PYTHONPATH=str(_impatient(tmp_path)))
    assert ended.returncode == 22 and "key urls is missing" in (tmp_path / "result").read_text()


def _impatient(folder: Path) -> Path:
    """Make the pauses between tries short in a process of its own."""
    made = folder / "impatient"
    made.mkdir()
    (made / "sitecustomize.py").write_text("import time; time.sleep = lambda seconds: None\n")
    return made
