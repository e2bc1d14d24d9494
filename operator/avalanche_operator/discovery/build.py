"""The Job that reads one page of a storage, and the Backup that shows what no object shows. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from avalanche_contract import names
from avalanche_contract.request import CatalogRequest
from avalanche_contract.result import Entry
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.jobs.build import JobPlan, Placement, nonce_of
from avalanche_operator.jobs.mounts import storage_part
from avalanche_operator.settings import Settings

Object = dict[str, Any]
PAGE_SECONDS = 1800
KEPT_SECONDS = 3600
"""A page may be asked for again, so its Job needs nobody to let it go."""


def page_request(
    found: Object,
    spec: BackupStorageSpec,
    settings: Settings,
    after: str = "",
    *,
    policies: Iterable[Object] = (),
) -> CatalogRequest:
    """Ask for the page behind a cursor; some of the namespace's ``policies`` believe only what is signed."""
    meta = found["metadata"]
    namespace = spec.discovery.namespace or meta["namespace"]
    return CatalogRequest(
        nonce=nonce_of(meta["uid"], settings.cluster_uid),
        storage=storage_part(meta["name"], spec)[0],
        prefixes=tuple(names.policy_prefix(namespace, each) for each in sorted(set(spec.discovery.policies))),
        within=f"{namespace}/",
        after=after,
        trusted_keys=_trusted(policies) or None,
    )


def _trusted(policies: Iterable[Object]) -> dict[str, tuple[str, ...]]:
    """Give whom each policy trusts, by its folder."""
    found: dict[str, tuple[str, ...]] = {}
    for each in sorted(policies, key=lambda one: str(one["metadata"]["name"])):
        keys = (each["spec"].get("signing") or {}).get("trustedKeys")
        if keys:
            meta = each["metadata"]
            found[names.policy_prefix(meta["namespace"], meta["name"])] = tuple(map(str, keys))
    return found


def page_job(
    found: Object,
    spec: BackupStorageSpec,
    request: CatalogRequest,
    number: int,
    placed: tuple[Placement, Settings],
) -> JobPlan:
    """Plan the Job that reads one page."""
    meta, (placement, settings) = found["metadata"], placed
    return JobPlan(
        name=names.child_name(meta["name"], found["kind"], meta["uid"], "catalog", str(number)),
        owner=found,
        request=request,
        mounts=storage_part(meta["name"], spec)[1],
        image=settings.backup_image,
        placement=placement,
        deadline_seconds=PAGE_SECONDS,
        ttl_seconds=KEPT_SECONDS,
    )


def discovered(entry: Entry, namespace: str, policy: str, *, distinct: bool = False) -> Object:
    """Give the Backup that shows a backup in storage: nobody owns it; ``distinct`` where another has the plain name."""
    name = names.backup_object_name(policy, names.parse_backup_id(entry.backup_id)[1])
    mark = hashlib.sha256(f"{entry.run_identity}/{entry.backup_id}".encode()).hexdigest()[:6]
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Backup",
        "metadata": {
            "name": f"{name}-{mark}" if distinct else name,
            "namespace": namespace,
            "labels": {names.LABEL_POLICY: policy},
        },
        "spec": {
            "policyRef": {"name": policy},
            "origin": "Discovered",
            "runIdentity": entry.run_identity,
        },
    }
