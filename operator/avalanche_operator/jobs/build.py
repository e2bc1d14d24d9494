"""Pure builders: a pod that Pod Security *restricted* admits, in a Job or a CronJob, for one request.

The one exception is a restore that gives files to their owners: *baseline* admits it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avalanche_contract import names
from avalanche_contract.exitcodes import PERMANENT
from avalanche_contract.request import Request
from avalanche_contract.wire import dump_request, escape_environment, request_sha256
from avalanche_operator.api.common import ApiModel
from avalanche_operator.api.pod import PodTemplate
from avalanche_operator.api.scratch import Scratch
from avalanche_operator.jobs.mounts import Mounts

Object = dict[str, Any]
USER = 65532
AZURE_IDENTITY = "azure.workload.identity/use"
"""The label by which a pod asks Azure's webhook for a token of its ServiceAccount."""
RESULT_SECONDS = 30
"""The pod's deadline lies this long before the Job's, so that the result of a run that was cut off survives."""
_OWNING = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
"""What giving files away takes: also the modes of those of others, and the setgid bit of their folders."""
_RESOURCES = {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}


@dataclass(frozen=True)
class Placement:
    """Where a pod must run and as whom, for the claims that it mounts."""

    nodes: tuple[str, ...] = ()
    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class JobPlan:
    """All that a Job is built from."""

    name: str
    owner: Object
    """The resource that it works for."""
    request: Request
    mounts: Mounts
    image: str
    owned: bool = True
    """Deleted with its owner; a restore is not, or deleting the request would kill it midway."""
    template: PodTemplate = field(default_factory=PodTemplate)
    placement: Placement = field(default_factory=Placement)
    deadline_seconds: int = 900
    backoff_limit: int = 0
    suspended: bool = False
    owning: bool = False
    """It gives files to their owners: it runs as root, and needs a namespace that admits that."""
    ttl_seconds: int | None = None
    """Only of a Job that may be asked again: every other one goes after its result was recorded."""
    annotations: Mapping[str, str] = field(default_factory=dict)


class PlanImpossible(ValueError):
    """No pod can be built of this plan, before its spec changes; ``reason`` is that of a condition."""

    reason = "PlanImpossible"


class RequestTooLarge(PlanImpossible):
    """The request does not fit into one environment variable."""

    reason = "RequestTooLarge"


class IdentitiesDiffer(PlanImpossible):
    """Two storages of one pod want it to run as two ServiceAccounts."""

    reason = "IdentitiesDiffer"


def nonce_of(uid: str, cluster_uid: str) -> str:
    """Give the mark of our log lines: stable for one owner, unknown to file names and child processes."""
    return hashlib.sha256(f"nonce/{cluster_uid}/{uid}".encode()).hexdigest()[:32]


def job(plan: JobPlan) -> Object:
    """Give the Job."""
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _metadata(plan), "spec": job_spec(plan)}


def job_spec(plan: JobPlan) -> Object:
    """Give what a Job and the template of a CronJob have in common."""
    spec: Object = {
        "backoffLimit": plan.backoff_limit,
        "activeDeadlineSeconds": plan.deadline_seconds,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": names.CONTAINER,
                        "operator": "In",
                        "values": [int(code) for code in PERMANENT],
                    },
                },
            ]
        },
        "template": {"metadata": _labelled(plan), "spec": _pod(plan)},
    }
    if plan.backoff_limit == 0:
        # A pod that was evicted is not run again either: what it did is not known.
        spec["podFailurePolicy"]["rules"] = spec["podFailurePolicy"]["rules"][1:]
    spec |= {"ttlSecondsAfterFinished": plan.ttl_seconds} if plan.ttl_seconds is not None else {}
    return spec | ({"suspend": True} if plan.suspended else {})


def labels(plan: JobPlan) -> dict[str, str]:
    """Give the labels by which the operator finds what it made; nothing of Helm's or Argo's."""
    owner = plan.owner
    return {
        names.LABEL_NAME: names.APP_NAME,
        names.LABEL_COMPONENT: "data-plane",
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
        names.LABEL_OWNER_KIND: owner["kind"],
        names.LABEL_OWNER_UID: owner["metadata"]["uid"],
        names.LABEL_VERB: plan.request.verb,
    }


def owner_reference(owner: Object) -> Object:
    """Name the controller of an object that we made."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _metadata(plan: JobPlan) -> Object:
    meta = {"name": plan.name, "namespace": plan.owner["metadata"]["namespace"], **_annotated(plan)}
    return meta | ({"ownerReferences": [owner_reference(plan.owner)]} if plan.owned else {})


def _annotated(plan: JobPlan) -> Object:
    annotations = {names.ANNOTATION_OWNER: plan.owner["metadata"]["name"], **plan.annotations}
    return {"labels": labels(plan), "annotations": annotations}


def _labelled(plan: JobPlan) -> Object:
    own, template = _annotated(plan), plan.template
    asked = {AZURE_IDENTITY: "true"} if any(each.azure for each in plan.mounts.identities) else {}
    return {
        "labels": {**(template.labels or {}), **own["labels"], **asked},
        "annotations": {**(template.annotations or {}), **own["annotations"]},
    }


def _pod(plan: JobPlan) -> Object:
    template = plan.template
    optional = {
        "nodeSelector": template.node_selector,
        "tolerations": [_plain(each) for each in template.tolerations],
        "priorityClassName": template.priority_class_name,
        "affinity": _affinity(plan.placement.nodes),
        "serviceAccountName": service_account(plan.mounts),
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "activeDeadlineSeconds": max(1, plan.deadline_seconds - RESULT_SECONDS),
        "terminationGracePeriodSeconds": 60,
        "securityContext": _security(plan),
        "containers": [_container(plan)],
        "volumes": [*_volumes(plan.mounts), _scratch(plan.template.scratch), {"name": "tmp", "emptyDir": {}}],
        **{name: value for name, value in optional.items() if value},
    }


def service_account(mounts: Mounts) -> str | None:
    """Give the identity of a pod.

    :raises IdentitiesDiffer: it would need two.
    """
    accounts = sorted({each.service_account for each in mounts.identities})
    if len(accounts) > 1:
        raise IdentitiesDiffer(
            f"one pod cannot run as {' and '.join(accounts)}: give the storages that it uses the same serviceAccountName"
        )
    return accounts[0] if accounts else None


def _security(plan: JobPlan) -> Object:
    template, placement = plan.template, plan.placement
    if plan.owning:
        return {
            "runAsNonRoot": False,
            "runAsUser": 0,
            "runAsGroup": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    user = template.run_as_user or placement.run_as_user or USER
    groups = sorted({*template.supplemental_groups, *placement.supplemental_groups})
    group = template.run_as_group or placement.run_as_group or user
    # A volume of its own belongs to root until its group is set; that of a claim's files is not ours to change.
    own_scratch = template.scratch is not None and template.scratch.ephemeral is not None
    grouped = own_scratch and not plan.mounts.claims
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
        **({"fsGroup": group, "fsGroupChangePolicy": "OnRootMismatch"} if grouped else {}),
        **({"supplementalGroups": groups} if groups else {}),
    }


def _container(plan: JobPlan) -> Object:
    return {
        "name": names.CONTAINER,
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["job"],
        "env": _environment(plan.request),
        "resources": _plain(plan.template.resources) if plan.template.resources else _RESOURCES,
        "terminationMessagePath": str(names.TERMINATION_LOG),
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], **({"add": list(_OWNING)} if plan.owning else {})},
        },
        "volumeMounts": _volume_mounts(plan.mounts),
    }


def _plain(model: ApiModel) -> Object:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _environment(request: Request) -> list[Object]:
    text = dump_request(request)
    if len(text.encode()) > names.REQUEST_MAX_BYTES:
        raise RequestTooLarge(
            f"the request for the data plane has {len(text.encode())} bytes, at most {names.REQUEST_MAX_BYTES} fit into "
            "a pod's environment: shorten paths, exclude and excludeTables"
        )
    return [
        {"name": names.ENV_REQUEST, "value": escape_environment(text)},
        {"name": names.ENV_REQUEST_SHA256, "value": request_sha256(text)},
        _from_label(names.ENV_JOB_NAME, "batch.kubernetes.io/job-name"),
        _from_label(names.ENV_JOB_UID, "batch.kubernetes.io/controller-uid"),
    ]


def _from_label(name: str, label: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{label}']"}}}


def _volumes(mounts: Mounts) -> list[Object]:
    claims: dict[str, bool] = {}
    for mount in mounts.claims:  # a claim that anybody writes to is attached for writing
        claims[mount.claim] = claims.get(mount.claim, True) and mount.read_only
    found: list[Object] = [
        {
            "name": _volume("claim", claim),
            "persistentVolumeClaim": {"claimName": claim, **({"readOnly": True} if read_only else {})},
        }
        for claim, read_only in claims.items()
    ]
    for secret, keys in _keys(mounts).items():
        items = [{"key": key, "path": key} for key in keys]
        source = {"name": secret, "optional": True, "items": items}
        found.append({"name": _volume("secret", secret), "projected": {"sources": [{"secret": source}]}})
    return found


def _scratch(wanted: Scratch | None) -> Object:
    if wanted is None or wanted.ephemeral is None:
        limit = {"sizeLimit": wanted.size_limit} if wanted and wanted.size_limit else {}
        return {"name": "scratch", "emptyDir": limit}
    claim: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": wanted.ephemeral.size}},
    }
    if wanted.ephemeral.storage_class_name:
        claim["storageClassName"] = wanted.ephemeral.storage_class_name
    return {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _volume_mounts(mounts: Mounts) -> list[Object]:
    found: list[Object] = []
    for mount in mounts.claims:
        each: Object = {"name": _volume("claim", mount.claim), "mountPath": mount.path}
        each |= {"readOnly": True} if mount.read_only else {}
        found.append(each | ({"subPath": mount.sub_path} if mount.sub_path else {}))
    for secret in _keys(mounts):
        path = str(names.MOUNT_ROOT / "secrets" / secret)
        found.append({"name": _volume("secret", secret), "mountPath": path, "readOnly": True})
    scratch = {"name": "scratch", "mountPath": str(names.SCRATCH)}
    return [*found, scratch, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the pod's own


def _keys(mounts: Mounts) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for mount in mounts.secrets:
        known = found.setdefault(mount.secret, [])
        known.extend(key for key in mount.keys if key not in known)
    return found


def _volume(kind: str, name: str) -> str:
    """Name a volume: at most 63 characters, and two names never the same."""
    return f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _affinity(nodes: tuple[str, ...]) -> Object | None:
    """Keep a pod beside those that use its claims: ReadWriteOnce means one node."""
    if not nodes:
        return None
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": list(nodes)}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"nodeAffinity": required}


def pinned_nodes(pod_spec: Object) -> set[str]:
    """Give the nodes that a pod of ours may run on, where it is bound to some: :func:`_affinity` read back."""
    node = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    fields = (
        each for term in required.get("nodeSelectorTerms") or () for each in term.get("matchFields") or ()
    )
    return {name for each in fields for name in each["values"]}


def fingerprint(request: Request) -> str:
    """Name what a request asks, so that a changed one is seen."""
    return hashlib.sha256(dump_request(request).encode()).hexdigest()[:16]
