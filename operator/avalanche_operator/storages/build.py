"""The Job that probes a storage. Pure."""

from __future__ import annotations

from typing import Any

from avalanche_contract import names
from avalanche_contract.request import ProbeRequest
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.jobs.build import JobPlan, Placement, fingerprint, nonce_of
from avalanche_operator.jobs.mounts import storage_part
from avalanche_operator.jobs.probing import DEADLINE_SECONDS
from avalanche_operator.settings import Settings

Object = dict[str, Any]


def probe_request(found: Object, spec: BackupStorageSpec, settings: Settings) -> ProbeRequest:
    """Ask whether the storage is usable."""
    storage, _ = storage_part(found["metadata"]["name"], spec)
    nonce = nonce_of(found["metadata"]["uid"], settings.cluster_uid)
    return ProbeRequest(nonce=nonce, storage=storage, read_only=spec.access_mode == "ReadOnly")


def probe_job(
    found: Object, spec: BackupStorageSpec, settings: Settings, number: int, placement: Placement
) -> JobPlan:
    """Give the Job of one probe."""
    request = probe_request(found, spec, settings)
    _, mounts = storage_part(found["metadata"]["name"], spec)
    return JobPlan(
        name=probe_name(found, request, number),
        owner=found,
        request=request,
        mounts=mounts,
        image=settings.backup_image,
        placement=placement,
        deadline_seconds=DEADLINE_SECONDS,
    )


def probe_name(found: Object, request: ProbeRequest, number: int) -> str:
    """Name the Job of one probe."""
    meta = found["metadata"]
    return names.child_name(
        meta["name"], found["kind"], meta["uid"], "probe", fingerprint(request), str(number)
    )
