"""Which Ray a sweep runs on, checked before it is joined: Ray itself tries a wrong address for minutes.

An address must be a head's own (host:port of its GCS). It is checked in three steps, each bounded in time: a
connection, the first bytes of its answer (a dashboard's are HTTP), then Ray's own client in a process of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
from ray._private.services import find_gcs_addresses

from gemma_nli.base.errors import SweepError
from gemma_nli.base.masking import mask_credentials

LOCAL, AUTO = "local", "auto"
CONNECT_SECONDS = 4.0
ANSWER_SECONDS = 6.0
IMPORT_SECONDS = 60.0  # for Ray in a new process, on a busy machine; not a time to wait for the address
DASHBOARD_PORT, CLIENT_PORT = 8265, 10001
SOCKET_BYTES = 107  # the longest path of a Unix socket on Linux
_SESSION = "/ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store.99"
_UNSET = "unset RAY_ADDRESS to run on this machine"
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # what a gRPC client says first
_ASK = """
import json, sys
import ray
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient
print("imported", flush=True)
try:
    client = GcsClient(address=canonicalize_bootstrap_address(sys.argv[1]))
    print(client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster").decode(), flush=True)
except BaseException as error:
    print(json.dumps({"error": type(error).__name__, "said": str(error)}), flush=True)
"""


def ray_address() -> str:
    """`local` (Ray is started here), `auto` (the running session of this machine) or the host:port of $RAY_ADDRESS.

    Raises:
        SweepError: the address is not a head's, nothing answers there, or Ray's folder cannot hold its sockets.
    """
    asked = chosen_address()
    if asked == LOCAL:
        _check_folder()
        return LOCAL
    if asked == AUTO:
        if not _session_runs() and not find_gcs_addresses():
            raise SweepError(
                f"RAY_ADDRESS=auto: Ray is not running on this machine; start it (`ray start --head`), or {_UNSET}."
            )
        return AUTO
    host, port = _parse(asked)
    _ask_port(asked, host, port)
    _ask_head(asked)
    return asked


def chosen_address() -> str:
    """What is asked for, not yet checked: $RAY_ADDRESS, else the session running here, else a Ray of our own."""
    return os.environ.get("RAY_ADDRESS", "").strip() or (AUTO if _session_runs() else LOCAL)


def current_note() -> Path:
    """Where `ray start` notes the address of the session of this machine."""
    return _temp_folder() / "ray" / "ray_current_cluster"


def _session_runs() -> bool:
    """Whether `ray start` runs a cluster on this machine. Its note of the address outlives a killed one, and Ray itself
    would end this process when it cannot reach it."""
    try:
        host, _, port = current_note().read_text(encoding="utf-8").strip().rpartition(":")
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False


def _temp_folder() -> Path:
    """As Ray chooses it."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - Ray's own default


def _check_folder() -> None:
    """Whether Ray's sockets can lie in its folder."""
    folder, name = _temp_folder(), "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    socket_path = f"{folder}{_SESSION.format(pid=os.getpid())}"
    excess = len(os.fsencode(socket_path)) - SOCKET_BYTES
    if excess > 0:
        raise SweepError(
            f"{name}={folder}: {excess} bytes too long for the sockets that Ray keeps in it (a socket's path "
            f"has at most {SOCKET_BYTES}); set RAY_TMPDIR to a shorter folder, as in RAY_TMPDIR=/tmp."
        )
    if not folder.is_absolute():
        raise SweepError(f"{name}={folder}: Ray needs an absolute path; set RAY_TMPDIR=/tmp.")
    try:
        (folder / "ray").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(
            f"{name}={folder}: Ray cannot keep its files there ({error.strerror}); set RAY_TMPDIR."
        ) from None
    if not os.access(folder / "ray", os.W_OK | os.X_OK):
        raise SweepError(f"{folder / 'ray'}: Ray cannot write there; set RAY_TMPDIR to a folder of your own.")


def _parse(asked: str) -> tuple[str, int]:
    shown = mask_credentials(asked if "://" in asked or "@" not in asked else f"***@{asked.rpartition('@')[2]}")
    scheme, found, rest = asked.partition("://")
    if found and scheme in ("http", "https"):
        raise SweepError(_dashboard(shown, rest))
    if found and scheme == "ray":
        raise SweepError(
            f"RAY_ADDRESS={shown}: Ray Client's addresses (ray://) cannot carry a sweep; run it on a node of the "
            f"cluster with RAY_ADDRESS=auto, queue it there with `gemma-nli submit`, or {_UNSET}."
        )
    if found:
        raise SweepError(f"RAY_ADDRESS={shown}: unknown scheme '{scheme}://'; write host:port, or {_UNSET}.")
    host, colon, port = asked.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or (":" in host and not asked.startswith("[")):
        raise SweepError(
            f"RAY_ADDRESS={shown}: has no port; write host:port, as in {_host_in(asked)}:6379, or {_UNSET}."
        )
    if not port.isdigit() or not 1024 <= int(port) <= 65535 or any(mark in host for mark in "@/ \t"):
        raise SweepError(f"RAY_ADDRESS={shown}: must be host:port with a port from 1024 to 65535, or {_UNSET}.")
    return host, int(port)


def _dashboard(shown: str, rest: str) -> str:
    return (
        f"RAY_ADDRESS={shown}: that is a dashboard, where jobs are queued (`gemma-nli submit --address`); a sweep "
        f"joins the head itself: set RAY_ADDRESS={_host_in(rest)}:6379 on a node of the cluster, or {_UNSET}."
    )


def _host_in(address: str) -> str:
    """The host alone, to show how an address is written."""
    host = address.rpartition("@")[2].partition("/")[0].strip("[]:")
    return (host if host.count(":") > 1 else host.partition(":")[0]) or "host"


def _ask_port(asked: str, host: str, port: int) -> None:
    """Connect, and check the first bytes of the answer."""
    answer = _within(2 * CONNECT_SECONDS, lambda: _first_bytes(host, port))
    if answer is None or isinstance(answer, Exception):
        why = f"no answer within {2 * CONNECT_SECONDS:g} seconds" if answer is None else _why(answer)
        raise SweepError(f"RAY_ADDRESS={asked}: nothing answers there ({why}); start that head, or {_UNSET}.")
    if answer.lower().startswith((b"http/", b"<!doctype", b"<html")):
        raise SweepError(_dashboard(asked, asked))
    if len(answer) < 9 or answer[3] != 4:  # the first frame of HTTP/2 is SETTINGS
        raise SweepError(
            f"RAY_ADDRESS={asked}: what answers there is not a Ray head; give its GCS port (6379), or {_UNSET}."
        )


def _first_bytes(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as line:
        line.sendall(_HTTP2)
        try:
            return line.recv(64)
        except TimeoutError:
            return b""


def _within(seconds: float, ask: Callable[[], bytes]) -> bytes | Exception | None:
    """Its answer, what it raised, or None if it takes longer: resolving a name has no time limit of its own."""
    answers: list[bytes | Exception] = []

    def work() -> None:
        try:
            answers.append(ask())
        except (OSError, UnicodeError) as error:
            answers.append(error)

    thread = threading.Thread(target=work, daemon=True, name="gemma_nli-ray-address")
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


@lru_cache
def _ask_head(asked: str) -> None:
    """Ask for the versions there, as Ray would, in a process that can be killed."""
    command = [sys.executable, "-P", "-c", _ASK, asked]  # -P: nothing is imported from the working folder
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8")  # noqa: S603
    answer: dict[str, Any] = {}
    with child:
        assert child.stdout is not None
        clock = threading.Timer(IMPORT_SECONDS, child.kill)
        clock.start()
        try:
            imported = child.stdout.readline()
            clock.cancel()
            clock = threading.Timer(ANSWER_SECONDS, child.kill)
            clock.start()
            lines = child.stdout.read().strip().splitlines() if imported else []
            answer = json.loads(lines[-1]) if lines else {}
        finally:
            clock.cancel()
            child.kill()
    said = f"{answer.get('error', '')} {answer.get('said', '')}"
    if "Authentication" in said or "Unauthenticated" in said or "AuthToken" in said or "401" in said:
        raise SweepError(
            f"RAY_ADDRESS={asked}: the cluster requires a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here "
            "as on the head."
        )
    if "ray_version" not in answer:
        why = f" ({mask_credentials(' '.join(said.split()))[:200]})" if said.strip() else ""
        raise SweepError(
            f"RAY_ADDRESS={asked}: what answers there is not the GCS of a head{why}; {CLIENT_PORT} is Ray Client's "
            f"port, {DASHBOARD_PORT} the dashboard's: give the head's own (6379), or {_UNSET}."
        )
    python = ".".join(map(str, sys.version_info[:3]))
    if (answer["ray_version"], answer["python_version"]) != (ray.__version__, python):
        raise SweepError(
            f"RAY_ADDRESS={asked}: runs Ray {answer['ray_version']} on Python {answer['python_version']}, but this is "
            f"Ray {ray.__version__} on Python {python}; install the same on both (constraints.txt)."
        )
