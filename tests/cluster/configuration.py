"""The configuration of every component: pure functions from a cluster's layout to text and argument lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster.layout import NODE_NAME, Layout

PAUSE_IMAGE = "localhost/avalanche-pause:1"
DOMAIN = "cluster.local"


def etcd(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give etcd's command; without fsync, since nothing here outlives a power loss."""
    listen, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        program,
        f"--data-dir={layout.root / 'etcd'}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={listen}",
        f"--advertise-client-urls={listen}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    ]


def apiserver(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give the API server's command; Pod Security admission is among its defaults."""
    pki, network = layout.root / "pki", layout.network
    return [
        program,
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={network.node_address}",
        f"--bind-address={network.node_address}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={network.services}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
    ]


def controller_manager(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give the controller manager's command."""
    pki = layout.root / "pki"
    return [
        program,
        f"--kubeconfig={layout.root / 'config' / 'kube-controller-manager.kubeconfig'}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--service-account-private-key-file={pki / 'sa.key'}",
    ]


def scheduler(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give the scheduler's command."""
    kubeconfig = layout.root / "config" / "kube-scheduler.kubeconfig"
    return [program, f"--kubeconfig={kubeconfig}", "--bind-address=127.0.0.1", "--leader-elect=false"]


def kubelet(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give the kubelet's command; the rest is in its file."""
    return [
        program,
        f"--config={layout.root / 'config' / 'kubelet.yaml'}",
        f"--kubeconfig={layout.root / 'config' / 'kubelet.kubeconfig'}",
        f"--root-dir={layout.root / 'kubelet'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={layout.network.node_address}",
    ]


def kubelet_file(layout: Layout) -> str:
    """Give the kubelet's configuration: evictions and image collection off, since the disk is the machine's own."""
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": layout.network.node_address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(layout.root / "pki" / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": layout.control_group,
            "failCgroupV1": False,
            "clusterDNS": [layout.network.dns],
            "clusterDomain": DOMAIN,
            "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
            "evictionHard": {"memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "failSwapOn": False,
            "maxPods": 200,
            "healthzBindAddress": "127.0.0.1",
            "podLogsDir": str(layout.root / "pod-logs"),
            "resolvConf": str(layout.root / "config" / "resolv.conf"),
            "serializeImagePulls": False,
            "syncFrequency": "10s",
        }
    )


def proxy(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give kube-proxy's command."""
    return [
        program,
        f"--kubeconfig={layout.root / 'config' / 'kube-proxy.kubeconfig'}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={layout.network.pods}",
        f"--hostname-override={NODE_NAME}",
        "--healthz-bind-address=127.0.0.1:10256",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]


def containerd(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give the container runtime's command."""
    return [program, f"--config={layout.root / 'config' / 'containerd.toml'}"]


def containerd_file(layout: Layout) -> str:
    """Give containerd's configuration: everything of it beneath the cluster's folder."""
    return f"""version = 2
root = "{layout.root}/containerd"
state = "{layout.root}/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{layout.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.root}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def network_file(layout: Layout) -> str:
    """Give the pod network: one bridge, addresses by host-local, hairpin so that a pod reaches its own Service."""
    ranges = {
        "type": "host-local",
        "ranges": [[{"subnet": layout.network.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(layout.root / "cni-addresses"),
    }
    bridge = {
        "type": "bridge",
        "bridge": "pods0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": ranges,
    }
    port_mapping = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, port_mapping]}, indent=2)


def coredns(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give CoreDNS's command: a process of the node, behind the Service ``kube-dns``."""
    return [program, f"-conf={layout.root / 'config' / 'Corefile'}"]


def coredns_file(layout: Layout) -> str:
    """Give CoreDNS's configuration; names outside the cluster do not exist.

    Two blocks: within one, ``template`` would answer before ``kubernetes`` is asked, wherever it is written.
    """
    kubeconfig = layout.root / "config" / "coredns.kubeconfig"
    return f"""{DOMAIN}:53 in-addr.arpa:53 {{
    bind {layout.network.node_address}
    errors
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    ready {layout.network.node_address}:8181
}}
.:53 {{
    bind {layout.network.node_address}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def provisioner(layout: Layout, program: Path) -> Sequence[str | Path]:
    """Give the volume provisioner's command."""
    kubeconfig = layout.root / "config" / "provisioner.kubeconfig"
    return [program, f"--kubeconfig={kubeconfig}", f"--root={layout.root / 'volumes'}", f"--node={NODE_NAME}"]


def manifests(layout: Layout) -> str:
    """Give what the cluster starts with: the storage class, and the Service of the name server."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "local-path",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "avalanche.io/local-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": layout.network.dns, "ports": ports},
    }
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [layout.network.node_address], "conditions": {"ready": True}}],
        "ports": ports,
    }
    return yaml.safe_dump_all(
        [storage_class, service, {**slices, "ports": [{**each} for each in ports]}], default_flow_style=False
    )
