"""One node, started and stopped in order. Every step finds out what is there and does only what is missing."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from tests.cluster import configuration
from tests.cluster.certificates import write_certificates
from tests.cluster.layout import NODE_NAME, ClusterFailed, Layout
from tests.cluster.processes import Daemon, program, run, unmount_beneath, wait_until

Say = Callable[[str], None]
DAEMONS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
    "coredns",
    "provisioner",
)


class Node:
    """The processes, links and control groups of one cluster."""

    def __init__(self, layout: Layout, binaries: Path) -> None:
        self.layout = layout
        self._binaries = binaries
        self._daemons = {name: Daemon(layout.root, name) for name in DAEMONS}

    def start(self, say: Say) -> None:
        """Bring everything up that is not.

        :raises ClusterFailed: a component did not come up; the text ends with the end of its log.
        """
        self._connect()
        write_certificates(self.layout)
        self._write_configuration()
        self._make_control_groups()
        self._run("etcd", configuration.etcd(self.layout, self._binaries / "etcd"))
        self._run("containerd", configuration.containerd(self.layout, _containerd()))
        self._run("kube-apiserver", configuration.apiserver(self.layout, self._binaries / "kube-apiserver"))
        self._until("kube-apiserver", lambda: self._kubectl_succeeds("get", "--raw=/readyz"), 60)
        self._run(
            "kube-controller-manager",
            configuration.controller_manager(self.layout, self._binaries / "kube-controller-manager"),
        )
        self._run("kube-scheduler", configuration.scheduler(self.layout, self._binaries / "kube-scheduler"))
        self.kubectl("apply", "--server-side", "--filename=-", stdin=configuration.manifests(self.layout))
        self._until("containerd", lambda: self._ctr_succeeds("version"), 30)
        self._import_pause_image()
        self._run("kubelet", configuration.kubelet(self.layout, self._binaries / "kubelet"))
        self._run("kube-proxy", configuration.proxy(self.layout, self._binaries / "kube-proxy"))
        self._run("coredns", configuration.coredns(self.layout, self._binaries / "coredns"))
        self._run("provisioner", configuration.provisioner(self.layout, self._binaries / "provisioner"))
        self._until("kubelet", self._node_is_ready, 60)
        self._until("coredns", self._name_server_is_ready, 30)
        say(f"node {NODE_NAME} is ready")

    def healthy(self) -> bool:
        """Say whether every process runs and the node says that it is ready."""
        running = all(daemon.pid() is not None for daemon in self._daemons.values())
        return running and self._connected() and self._node_is_ready() and self._name_server_is_ready()

    def running(self) -> dict[str, int | None]:
        """Give the pid of every component."""
        return {name: daemon.pid() for name, daemon in self._daemons.items()}

    def stop(self) -> None:
        """End everything, the pods first, and remove what is left of it."""
        for name in (
            "kubelet",
            "provisioner",
            "coredns",
            "kube-proxy",
            "kube-scheduler",
            "kube-controller-manager",
        ):
            self._daemons[name].stop()
        self._end_containers()
        for name in ("kube-apiserver", "etcd", "containerd"):
            self._daemons[name].stop()
        unmount_beneath(self.layout.root)
        self._remove_control_groups()
        run("ip", "netns", "delete", self.layout.namespace, check=False)
        run("ip", "link", "delete", self.layout.network.cable, check=False)
        _remove_dangling_logs(self.layout.root)
        shutil.rmtree(self.layout.root, ignore_errors=True)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator."""
        return run(
            self._binaries / "kubectl", f"--kubeconfig={self.layout.kubeconfig}", *arguments, stdin=stdin
        )

    def import_image(self, archive: Path) -> None:
        """Put an image archive into the node's container runtime."""
        run(*self._ctr(), "--namespace=k8s.io", "images", "import", archive)

    def images(self) -> dict[str, str]:
        """Give the digest of every image of the node, by its name."""
        lines = run(*self._ctr(), "--namespace=k8s.io", "images", "list").splitlines()[1:]
        return {fields[0]: fields[2] for fields in (line.split() for line in lines) if len(fields) > 2}

    # --- one step each ---------------------------------------------------------------------------------
    def _connect(self) -> None:
        if self._connected():
            return
        layout, network = self.layout, self.layout.network
        self._daemons_of_another_life_end()
        run("ip", "netns", "delete", layout.namespace, check=False)
        run("ip", "link", "delete", network.cable, check=False)
        run("ip", "netns", "add", layout.namespace)
        run(
            "ip",
            "link",
            "add",
            network.cable,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            layout.namespace,
        )
        run("ip", "address", "add", f"{network.host_address}/30", "dev", network.cable)
        run("ip", "link", "set", network.cable, "up")
        for words in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "address", "add", f"{network.node_address}/30", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "up"),
            ("ip", "route", "add", "default", "via", network.host_address),
            ("sysctl", "-qw", "net.ipv4.ip_forward=1"),
        ):
            run("nsenter", f"--net=/run/netns/{layout.namespace}", "--", *words)
        for destination in (network.pods, network.services):
            run("ip", "route", "replace", destination, "via", network.node_address)

    def _connected(self) -> bool:
        link = Path(f"/sys/class/net/{self.layout.network.cable}/operstate")
        return link.exists() and Path(f"/run/netns/{self.layout.namespace}").exists()

    def _daemons_of_another_life_end(self) -> None:
        for daemon in self._daemons.values():
            daemon.stop()

    def _write_configuration(self) -> None:
        layout = self.layout
        layout.file("config", "kubelet.yaml").write_text(configuration.kubelet_file(layout))
        layout.file("config", "containerd.toml").write_text(configuration.containerd_file(layout))
        layout.file("config", "Corefile").write_text(configuration.coredns_file(layout))
        layout.file("config", "resolv.conf").write_text(f"nameserver {layout.network.node_address}\n")
        layout.file("cni", "10-pods.conflist").write_text(configuration.network_file(layout))
        layout.folder("volumes").chmod(0o755)

    def _make_control_groups(self) -> None:
        for folder in _control_groups(self.layout.control_group):
            folder.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (folder / setting).exists() and not (folder / setting).read_text().strip():
                    (folder / setting).write_text((folder.parent / setting).read_text())

    def _remove_control_groups(self) -> None:
        for folder in _control_groups(self.layout.control_group):
            for path, _, _ in os.walk(folder, topdown=False):
                deadline = time.monotonic() + 5
                while Path(path).exists() and time.monotonic() < deadline:
                    try:
                        Path(path).rmdir()
                    except OSError:
                        time.sleep(0.05)  # the kernel is still taking the group's last process away

    def _run(self, name: str, command: Sequence[str | Path]) -> None:
        self._daemons[name].start(self.layout.namespace, command)

    def _until(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        daemon = self._daemons[name]

        def alive_and_ready() -> bool:
            if daemon.pid() is None:
                raise ClusterFailed(f"{name} ended. {daemon.last_lines()}")
            return ready()

        wait_until(
            alive_and_ready,
            seconds,
            lambda: f"{name} was not ready in {seconds:.0f} s. {daemon.last_lines()}",
        )

    def _kubectl_succeeds(self, *arguments: str) -> bool:
        try:
            self.kubectl("--request-timeout=5s", *arguments)
        except ClusterFailed:
            return False
        return True

    def _node_is_ready(self) -> bool:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        try:
            return (
                self.kubectl("--request-timeout=5s", "get", "node", NODE_NAME, f"--output=jsonpath={path}")
                == "True"
            )
        except ClusterFailed:
            return False

    def _name_server_is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://{self.layout.network.node_address}:8181/ready", timeout=2
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _ctr(self) -> tuple[str | Path, ...]:
        return ("ctr", f"--address={self.layout.containerd_socket}")

    def _ctr_succeeds(self, *arguments: str) -> bool:
        try:
            run(*self._ctr(), *arguments)
        except ClusterFailed:
            return False
        return True

    def _import_pause_image(self) -> None:
        if configuration.PAUSE_IMAGE in self.images():
            return
        archive = self.layout.file("pause.tar")
        archive.write_bytes(pause_archive(self._binaries / "pause", configuration.PAUSE_IMAGE))
        self.import_image(archive)
        archive.unlink()

    def _end_containers(self) -> None:
        if self._daemons["containerd"].pid() is None:
            self._end_shims()
            return
        words = (*self._ctr(), "--namespace=k8s.io")
        for task in run(*words, "tasks", "list", "--quiet", check=False).split():
            run(*words, "tasks", "kill", "--all", "--signal=SIGKILL", task, check=False)
            run(*words, "tasks", "delete", "--force", task, check=False)
        for container in run(*words, "containers", "list", "--quiet", check=False).split():
            run(*words, "containers", "delete", container, check=False)
        self._end_shims()

    def _end_shims(self) -> None:
        """End what containerd left: its shims name its socket, and containers sit in our control group."""
        for folder in _control_groups(self.layout.control_group):
            for group in folder.rglob("cgroup.procs"):
                _kill_all(group)
        for pid in _processes_that_name(str(self.layout.containerd_socket)):
            _kill(pid)


def pause_archive(binary: Path, name: str) -> bytes:
    """Give a Docker archive of one layer with one program: no image builder is needed for it."""
    layer = BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = binary.stat().st_size, 0o755
        with binary.open("rb") as content:
            archive.addfile(entry, content)
    layer_digest = sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }
    ).encode()
    config_name = f"{sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        config_name: config,
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    whole = BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for file_name, data in files.items():
            entry = tarfile.TarInfo(file_name)
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))
    return whole.getvalue()


def _containerd() -> Path:
    found = program("containerd")
    if found is None:
        raise ClusterFailed("containerd is not on the path: apt-get install containerd")
    return found


def _control_groups(name: str) -> Iterator[Path]:
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    roots = [root] if unified else sorted({each.resolve() for each in root.iterdir() if each.is_dir()})
    return (each / name.strip("/") for each in roots)


def _kill_all(group: Path) -> None:
    try:
        pids = group.read_text().split()
    except OSError:
        return
    for pid in pids:
        _kill(int(pid))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def _processes_that_name(text: str) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "shim" in words[0] and text in words:
            yield int(folder.name)


def _remove_dangling_logs(root: Path) -> None:
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(str(root)):
            link.unlink()
