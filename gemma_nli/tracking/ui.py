"""MLflow's pages, on loopback, over the store that our commands write to."""

from __future__ import annotations

import os
import socket
import sys

from gemma_nli.config import MlflowConfig
from gemma_nli.errors import TrackingError
from gemma_nli.tracking.store import connect_existing, resolve_store, talking

TRIES = 50


def serve_ui(port: int = 5000, host: str = "127.0.0.1", tracking_uri: str | None = None) -> str:
    """Become MLflow's server, which ends with Ctrl-C; for a store that is a server, only give its address.

    Raises:
        TrackingError: no store yet, or the port is taken (with the next free one).
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    if store.is_server:
        return store.shown
    with talking(store, "open"):
        connect_existing(store)
    check_port(port, host)
    sys.stderr.write(f"MLflow: http://{host}:{port}  (store {store.shown}; Ctrl-C ends it)\n")
    sys.stderr.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    # The address may hold a password: it travels in the environment, not in the process list.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    if store.artifact_root:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = store.artifact_root
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter, words of ours


def check_port(port: int, host: str = "127.0.0.1") -> None:
    """Raises TrackingError where the port is taken, with the next free one."""
    if _free(port, host):
        return
    for other in range(port + 1, min(port + TRIES, 65536)):
        if _free(other, host):
            raise TrackingError(f"port {port} is in use; the next free one: gemma-nli ui --port {other}")
    raise TrackingError(f"port {port} and the {TRIES} after it are in use; name another --port.")


def _free(port: int, host: str) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True
