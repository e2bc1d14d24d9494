"""The cluster's certificates, by openssl, with the extensions that strict clients want.

Python 3.13 verifies strictly: an authority without ``basicConstraints`` and ``keyUsage`` is refused.
"""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from tests.cluster.layout import NODE_NAME, Layout
from tests.cluster.processes import run

DAYS = "3650"
CLIENTS = {
    "admin": "/O=system:masters/CN=avalanche-admin",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE_NAME}",
    "coredns": "/O=system:masters/CN=avalanche-dns",
    "provisioner": "/O=system:masters/CN=avalanche-provisioner",
}


def write_certificates(layout: Layout) -> None:
    """Write authority, server certificate, service account keys and one kubeconfig a client, where absent."""
    if layout.kubeconfig.exists():
        return
    _authority(layout)
    addresses = ["127.0.0.1", layout.network.node_address, layout.network.first_service]
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    alternatives = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
    _certificate(layout, "apiserver", "/CN=kube-apiserver", f"serverAuth\nsubjectAltName={alternatives}")
    _certificate(
        layout, "apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client", "clientAuth"
    )
    run("openssl", "genrsa", "-out", layout.file("pki", "sa.key"), "2048")
    run(
        "openssl", "rsa", "-in", layout.file("pki", "sa.key"), "-pubout", "-out", layout.file("pki", "sa.pub")
    )
    for client, subject in CLIENTS.items():
        _certificate(layout, client, subject, "clientAuth")
        _kubeconfig(layout, client, layout.file("config", f"{client}.kubeconfig"))
    _kubeconfig(layout, "admin", layout.kubeconfig)


def _authority(layout: Layout) -> None:
    key, certificate = layout.file("pki", "ca.key"), layout.file("pki", "ca.crt")
    extensions: list[str | Path] = [
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
    ]
    subject = ["-subj", "/CN=avalanche-test-authority"]
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", DAYS,
        *subject, *extensions)  # fmt: skip


def _certificate(layout: Layout, name: str, subject: str, usage: str) -> None:
    key, request = layout.file("pki", f"{name}.key"), layout.file("pki", f"{name}.csr")
    extensions = layout.file("pki", f"{name}.ext")
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
        f"extendedKeyUsage={usage}\n"
    )
    run(
        "openssl",
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        request,
        "-subj",
        subject,
    )
    authority: list[str | Path] = [
        "-CA",
        layout.file("pki", "ca.crt"),
        "-CAkey",
        layout.file("pki", "ca.key"),
        "-CAcreateserial",
    ]
    target = layout.file("pki", f"{name}.crt")
    run(
        "openssl",
        "x509",
        "-req",
        "-in",
        request,
        "-out",
        target,
        "-days",
        DAYS,
        *authority,
        "-extfile",
        extensions,
    )


def _kubeconfig(layout: Layout, client: str, target: Path) -> None:
    def embedded(name: str) -> str:
        return base64.b64encode(layout.file("pki", name).read_bytes()).decode()

    server = f"https://{layout.network.node_address}:6443"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": layout.name,
        "clusters": [
            {
                "name": layout.name,
                "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")},
            }
        ],
        "users": [
            {
                "name": client,
                "user": {
                    "client-certificate-data": embedded(f"{client}.crt"),
                    "client-key-data": embedded(f"{client}.key"),
                },
            }
        ],
        "contexts": [{"name": layout.name, "context": {"cluster": layout.name, "user": client}}],
    }
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_text(yaml.safe_dump(document))
    unfinished.chmod(0o600)
    unfinished.rename(target)
