"""Hosts for tests: real Ray nodes, each a process tree of its own, ended by its pids.

Where the test may (root), each host is a network namespace with its own address on a bridge and a mount namespace in
which `local_cluster.private` is its own empty disk: then the hosts share what they are given to share and nothing
else. Elsewhere they are processes on loopback, each with its own working and Ray folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil
import requests

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent


@cache
def can_make_hosts() -> bool:
    """Whether this process may make network and mount namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    tried = subprocess.run(["unshare", "-m", "-n", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process we started and to all that it started."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid)
        for each in [family, *family.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                os.kill(each.pid, signal.SIGKILL)
    process.wait(timeout=30)


@dataclass
class Host:
    """One machine; `name` is also its network namespace, where it has one."""

    name: str
    address: str
    folder: Path  # its own: its Ray, its working folder, its home
    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """As if its power went."""
        if self.process is not None:
            end_tree(self.process)


@dataclass
class LocalCluster:
    """A head and workers. `gateway` is this process's own address as the hosts see it."""

    scratch: Path
    apart: bool
    hosts: list[Host] = field(default_factory=list)
    gateway: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tag = f"g{secrets.token_hex(3)}"
        self.net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self.private = self.scratch / "private"
        self.private.mkdir(exist_ok=True)
        self.token = self.scratch / "token"
        self.token.write_text(secrets.token_hex(32))
        if self.apart:
            self.gateway = f"{self.net}.1"
            _ip("link", "add", self.tag, "type", "bridge")
            _ip("addr", "add", f"{self.gateway}/24", "dev", self.tag)
            _ip("link", "set", self.tag, "up")

    @property
    def address(self) -> str:
        """The dashboard's."""
        return f"http://{self.hosts[0].address}:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of our own commands against the cluster: the code under test, the token, nothing of this machine's stores."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "RAY_", "GEMMA_NLI_"))}
        ours = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), "COLUMNS": "200"}
        ours |= {"GEMMA_NLI_HOME": str(self.scratch / "client_home"), "RAY_USAGE_STATS_ENABLED": "0"}
        return {**kept, **ours, **self.extra}

    def head(self, cpus: int = 0, prepare: str = "true") -> Host:
        words = ["--head", f"--port={self.port}", f"--dashboard-port={self.dashboard_port}", "--include-dashboard=true"]
        host = self._start(words, cpus, prepare, head=True)
        self._await(lambda: self.nodes() == 1)
        return host

    def worker(self, cpus: int = 1, gpus: int = 0, prepare: str = "true") -> Host:
        words = [f"--address={self.hosts[0].address}:{self.port}", f"--num-gpus={gpus}"]
        host = self._start(words, cpus, prepare)
        self._await(lambda: self.nodes() >= sum(each.process.poll() is None for each in self.hosts if each.process))
        return host

    def nodes(self) -> int:
        """Nodes that are up, as the dashboard tells."""
        headers = {"Authorization": f"Bearer {self.token.read_text()}"}
        found = requests.get(f"{self.address}/nodes?view=summary", headers=headers, timeout=10).json()
        return sum(node["raylet"].get("state") == "ALIVE" for node in found["data"]["summary"])

    def run(self, *words: str, cwd: Path | None = None, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """One of our commands, from outside the cluster."""
        return subprocess.run(
            words,
            env=self.environment,
            cwd=cwd or self.scratch,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def close(self) -> None:
        for host in self.hosts:
            host.kill()
            if self.apart:
                _ip("netns", "del", host.name)
        if self.apart:
            _ip("link", "del", self.tag)

    def _start(self, words: list[str], cpus: int, prepare: str, head: bool = False) -> Host:
        number = len(self.hosts) + 2
        name = f"{self.tag}n{number}"
        folder = self.private if self.apart else self.private / str(number)
        host = Host(name, f"{self.net}.{number}" if self.apart else "127.0.0.1", folder)
        command = [str(BIN / "ray"), "start", *words, f"--num-cpus={cpus}", "--block", "--disable-usage-stats"]
        command += [f"--temp-dir={folder / 'ray'}", f"--node-ip-address={host.address}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"]
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        command += [f"--dashboard-host={host.address}", f"--ray-client-server-port={free_port()}"] if head else []
        mount = f"mount -t tmpfs -o size=2g tmpfs {self.private} && " if self.apart else ""
        script = (
            f"{mount}mkdir -p {folder}/work {folder}/home && cd {folder}/work && {prepare} && exec {' '.join(command)}"
        )
        shell = ["bash", "-c", script]
        if self.apart:
            _join(self.tag, name, f"{host.address}/24")
            shell = ["ip", "netns", "exec", name, "unshare", "-m", "--propagation", "private", *shell]
        environment = {**self.environment, "HOME": f"{folder}/home", "GEMMA_NLI_HOME": f"{folder}/home/gemma_nli"}
        with (self.scratch / f"host{number}.log").open("wb") as log:
            host.process = subprocess.Popen(shell, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.hosts.append(host)
        return host

    def _await(self, ready: Callable[[], bool], seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while True:
            with suppress(requests.RequestException, ValueError, KeyError):
                if ready():
                    return
            process = self.hosts[-1].process
            if time.monotonic() > until or (process is not None and process.poll() is not None):
                log = (self.scratch / f"host{len(self.hosts) + 1}.log").read_text(errors="replace")
                raise RuntimeError(f"{self.hosts[-1].name} did not come up:\n{log[-3000:]}")
            time.sleep(0.3)


@contextmanager
def local_cluster(apart: bool | None = None) -> Iterator[LocalCluster]:
    """A cluster under a short path of its own (Ray's sockets allow no long one), gone afterwards with its processes."""
    scratch = Path(tempfile.mkdtemp(prefix="rig"))
    made = LocalCluster(scratch, can_make_hosts() if apart is None else apart)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _join(bridge: str, name: str, address: str) -> None:
    """A namespace with an address of its own on the bridge."""
    _ip("netns", "add", name)
    _ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", f"{name}v", "master", bridge, "up")
    _ip("-n", name, "addr", "add", address, "dev", "eth0")
    for device in ("eth0", "lo"):
        _ip("-n", name, "link", "set", device, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
