"""Ray for a sweep: started here or joined, and asked what it has."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from gemma_nli.errors import GemmaNliError, SweepError
from gemma_nli.masking import mask_credentials

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_THRESHOLD_S": "30",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
}


@contextmanager
def ray_session() -> Iterator[str | None]:
    """Join the cluster of $RAY_ADDRESS or the running session, else start Ray here and stop it again at the end.

    RAY_ADDRESS=local starts one here whatever else runs. Gives the dashboard's address, None where there is none.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for noisy in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # failed trials are told of by the board and the journals
    if ray.is_initialized():
        yield _dashboard(ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR))
        return
    address = _address()
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    if own:  # a killed driver takes its Ray along; Ray's agents first look for their head, a minute long unless told
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
    context = ray.init(address, log_to_driver=False, configure_logging=True, logging_level=logging.ERROR, **own)
    try:
        yield _dashboard(context)
    finally:
        ray.shutdown()


def starts_its_own() -> bool:
    """Whether `ray_session` would start Ray in this process, for this process alone."""
    return not ray.is_initialized() and _address() == "local"


def _address() -> str:
    return os.environ.get("RAY_ADDRESS") or ("auto" if _runs_here() else "local")


def _runs_here() -> bool:
    """Whether `ray start` runs a cluster on this machine. Its note of the address outlives a killed one, and Ray itself
    would end this process in trying to reach what is gone."""
    note = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        host, _, port = note.read_text(encoding="utf-8").strip().rpartition(":")
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False


def _dashboard(context: Any) -> str | None:
    url = str(context.dashboard_url or "")
    return f"http://{url.removeprefix('http://')}" if url else None


def ray_failed(error: RayError) -> GemmaNliError:
    """What the user is told when a part of Ray dies, or when a task of ours raised an error that the user can mend."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, GemmaNliError):
        return cause
    lines = mask_credentials(str(error)).strip().splitlines() or [type(error).__name__]
    return SweepError(f"Ray failed: {lines[-1][:300]} ({type(error).__name__}); the same command goes on from here.")


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's facts of every node that is up."""
    return [node for node in ray.nodes() if node["Alive"]]


def may_grow() -> bool:
    """Whether nodes can join while a sweep runs: not where this process started Ray for itself."""
    return os.environ.get("RAY_ADDRESS", "local") != "local" or len(alive_nodes()) > 1


def cluster_size() -> tuple[float, float]:
    """(CPUs, GPUs) of all nodes."""
    total = ray.cluster_resources()
    return float(total.get("CPU", 0)), float(total.get("GPU", 0))


def node_cpus() -> float:
    """CPUs of the largest node."""
    return max((node["Resources"].get("CPU", 0.0) for node in alive_nodes()), default=0.0) or 1.0
