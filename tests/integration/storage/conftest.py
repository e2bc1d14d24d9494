"""Stores whose tries follow each other quickly."""

from __future__ import annotations

import pytest

from avalanche_backup.storage import gcs, parts


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as long as a test should, not as a backup should."""
    monkeypatch.setattr(parts, "PATIENCE_SECONDS", 4.0)
    monkeypatch.setattr(parts, "FIRST_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(gcs, "RETRY", gcs.RETRY.with_delay(initial=0.05, maximum=0.3).with_timeout(3.0))
    monkeypatch.setitem(gcs._ASKED, "retry", gcs.RETRY)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.05)
    monkeypatch.setattr(
        "azure.storage.blob._shared.policies.ExponentialRetry.get_backoff_time", lambda *_: 0.05
    )
