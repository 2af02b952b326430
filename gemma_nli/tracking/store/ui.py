"""MLflow's web pages, on loopback, on the store that our commands write to."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import tempfile
from pathlib import Path

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.store.mlflow_store import Store, connect_existing, resolve_store, talking

LOOPBACK = "127.0.0.1"
TRIES = 50


def serve_ui(port: int = 5000, host: str = LOOPBACK, tracking_uri: str | None = None) -> str:
    """Become MLflow's server, stopped by Ctrl-C; for a store that is a server, only give its address.

    Raises:
        TrackingError: no store yet, no such host here, or the port is taken (with the next free one): also by a server
            that is still starting and does not listen yet.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    if store.is_server:
        return store.shown
    with talking(store, "open"):
        connect_existing(store)
    claim = claim_port(port, host, store)
    sys.stderr.write(f"MLflow: http://{host}:{port}  (store {store.shown}; stop with Ctrl-C)\n")
    sys.stderr.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    # The address may contain a password: it is passed in the environment, not in the process list.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["PYTHONSAFEPATH"] = "1"  # MLflow starts others by -m: none imports a module of the working folder
    environment.pop("MLFLOW_TRACKING_URI", None)
    if store.artifact_root:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = store.artifact_root
    os.set_inheritable(claim, True)  # held by the server, from its start to its end
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter, words of ours


def address_of(tracking_uri: str | None = None) -> str:
    """The store's address, as $MLFLOW_TRACKING_URI takes it.

    Raises:
        TrackingError: it contains a password, which is never printed.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    if store.shown != store.uri:
        raise TrackingError(
            f"{store.shown}: contains a password, which is not printed; use the address as you gave it."
        )
    return store.uri


def claim_port(port: int, host: str, store: Store) -> int:
    """A lock on the port, as an open file; a server takes seconds from its start to its first answer.

    Raises:
        TrackingError: the port is taken, with the next free one, or cannot be listened on.
    """
    claim = _claim(port, host)
    if claim is not None:
        return claim
    for other in range(port + 1, min(port + TRIES, 65536)):
        free = _claim(other, host)
        if free is not None:
            os.close(free)
            elsewhere = () if host == LOOPBACK else ("--host", host)
            line = store.line("ui", "--port", other, *elsewhere)
            raise TrackingError(f"port {port} is in use; the next free one: {line}")
    raise TrackingError(f"port {port} and the {TRIES} after it are in use; name another --port.")


def _claim(port: int, host: str) -> int | None:
    if not _free(port, host):
        return None
    path = Path(tempfile.gettempdir()) / f"gemma-nli-ui-{os.getuid()}-{port}.lock"
    claim = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return None
    return claim


def _free(port: int, host: str) -> bool:
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
    except (OSError, UnicodeError) as error:
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            return False
        if code == errno.EACCES:
            raise TrackingError(f"port {port}: this user may not listen there; use a --port above 1023.") from None
        raise TrackingError(
            f"--host: '{host}' is not an address of this machine; 127.0.0.1 is, and 0.0.0.0 means all."
        ) from None
    return True
