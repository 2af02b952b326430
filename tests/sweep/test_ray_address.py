"""An address that no sweep can join ends in a sentence, in seconds, and before anything is recorded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
import yaml

from gemma_nli.base.errors import SweepError
from gemma_nli.sweep.ray import address as place
from gemma_nli.sweep.ray.address import ray_address


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """A server that says this to whoever connects; None: nothing, and keeps the line."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                if answer is not None:
                    line.sendall(answer)
                    line.close()
                else:
                    kept.append(line)

        kept: list[socket.socket] = []
        Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def dashboard() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def refused(monkeypatch: pytest.MonkeyPatch, address: str) -> str:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SweepError) as caught:
        ray_address()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://head:8265", "RAY_ADDRESS=head:6379"),
        ("https://head.example.org/ray/", "RAY_ADDRESS=head.example.org:6379"),
        ("ray://head:10001", "Ray Client"),
        ("tcp://head:6379", "unknown scheme"),
        ("head", "has no port"),
        ("10.0.0.1", "has no port"),
        ("fe80::1", "has no port"),
        ("head:", "host:port"),
        (":6379", "has no port"),
        ("head:abc", "port from 1024"),
        ("head:70000", "port from 1024"),
        ("head:80", "port from 1024"),
        ("head:6379/path", "port from 1024"),
        ("he ad:6379", "host:port"),
        ("no.such.host.invalid:6379", "nothing answers"),
        ("Local", "has no port"),
    ],
)
def test_an_address_that_is_no_heads_is_refused_with_what_to_write(monkeypatch, address, said):
    reported = refused(monkeypatch, address)
    assert said in reported
    assert address.strip() in reported
    assert "RAY_ADDRESS" in reported


def test_a_password_in_the_address_is_not_repeated(monkeypatch):
    for address in ("http://ann:hunter22@head:8265", "ray://ann:hunter22@head:10001", "ann:hunter22@head:6379"):
        assert "hunter22" not in refused(monkeypatch, address)


def test_where_nothing_answers_that_is_said(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nothing answers" in refused(monkeypatch, f"127.0.0.1:{port}")


def test_a_dashboard_without_its_scheme_is_known_by_its_answer(monkeypatch):
    with dashboard() as port:
        assert "that is a dashboard" in refused(monkeypatch, f"127.0.0.1:{port}")


@pytest.mark.parametrize("answer", [b"-ERR unknown command\r\n", b"", None])
def test_what_is_no_head_is_known_by_its_answer(monkeypatch, answer):
    monkeypatch.setattr(place, "CONNECT_SECONDS", 0.5)
    with listening(answer) as port:
        assert "not a Ray head" in refused(monkeypatch, f"127.0.0.1:{port}") or answer == b""


def test_a_server_of_another_grpc_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(place, "ANSWER_SECONDS", 2.0)
    with listening(b"\0\0\0\4\0\0\0\0\0") as port:
        assert "not the GCS of a head" in refused(monkeypatch, f"127.0.0.1:{port}")


def test_auto_without_a_session_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(place, "find_gcs_addresses", set)
    assert "Ray is not running on this machine" in refused(monkeypatch, "auto")
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert ray_address() == "auto"
    assert "Ray is not running on this machine" in refused(monkeypatch, "auto")


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_too_long_for_rays_sockets_is_refused(monkeypatch, tmp_path, name):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("d" * 60)
    monkeypatch.setenv(name, str(long))
    reported = refused(monkeypatch, "local")
    assert f"{name}={long}" in reported
    assert "RAY_TMPDIR=/tmp" in reported


def test_a_folder_that_ray_cannot_use_is_refused(monkeypatch, tmp_path):
    file = Path(os.path.commonpath([tmp_path])) / "f"
    file.write_text("no folder")
    monkeypatch.setattr(place, "SOCKET_BYTES", 4096)
    monkeypatch.setenv("RAY_TMPDIR", str(file))
    assert "cannot keep its files there" in refused(monkeypatch, "local")
    monkeypatch.setenv("RAY_TMPDIR", "relative")
    assert "absolute" in refused(monkeypatch, "local")


def command(words: list[str], folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gemma_nli", *words],
        env={**os.environ, **env}, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_ends_with_a_sentence_and_status_2_before_anything_is_recorded(sweep_tree, tmp_path):
    file = tmp_path / "little.yaml"
    file.write_text(yaml.safe_dump(sweep_tree))
    ended = command(["sweep", str(file)], tmp_path, RAY_ADDRESS="http://head:8265")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "mlflow").exists()
    assert not (tmp_path / "storage" / "features").exists()


def _sockets(process: psutil.Process) -> set[str]:
    found = set()
    for each in [process, *process.children(recursive=True)]:
        found |= {line.laddr.ip for line in each.net_connections("inet") if line.status == psutil.CONN_LISTEN}
    return found


ON_ONE_MACHINE = """
import os, ray
from gemma_nli.sweep.cluster.ray_session import ray_session
@ray.remote
def task(): return 1
with ray_session():
    ray.get(task.remote())
    print("up", flush=True)
    input()
"""


def test_on_one_machine_nothing_of_ray_listens_beyond_loopback(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", ON_ONE_MACHINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline().strip() == "up"
        time.sleep(1.0)
        listened = _sockets(psutil.Process(child.pid))
        child.stdin.close()
    assert listened
    assert {ip.removeprefix("::ffff:") for ip in listened} == {"127.0.0.1"}
