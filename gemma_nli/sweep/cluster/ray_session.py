"""Ray for a sweep: started here or joined, and its resources."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
from ray._private import ray_constants, worker
from ray.exceptions import RayError

from gemma_nli.base.errors import GemmaNliError, SweepError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.sweep.ray.address import LOCAL, chosen_address, ray_address
from gemma_nli.sweep.ray.shadowing_files import check_shadows

log = logging.getLogger(__name__)
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
    """Join the cluster of $RAY_ADDRESS or the running session; otherwise start Ray here and stop it at the end.

    RAY_ADDRESS=local always starts one here, on loopback only. Gives the dashboard's address, or
    None without one.

    Raises:
        SweepError: the address is not a head's, nothing answers there, or Ray cannot be started or joined.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for verbose in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(verbose).setLevel(
            logging.CRITICAL
        )  # failed trials are reported from the board and the journals
    worker.print_to_stdstream = _log_message
    if ray.is_initialized():
        yield _dashboard(ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR))
        return
    check_shadows()
    context = _joined(ray_address())
    try:
        yield _dashboard(context)
    finally:
        _leave()


def _leave() -> None:
    """End Ray here without a collection of garbage meanwhile: one that another thread begins may free a reference to an
    object or actor while Ray is on its way down, and Ray then ends the process at once, with status 1.
    """
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if collects:
            gc.enable()


def _log_message(message: dict[str, Any], *_: Any, **__: Any) -> None:
    """What Ray reports about its processes goes to the log; Ray would print it on stdout, which --json needs."""
    log.info("Ray: %s", " ".join(str(line) for line in message.get("lines", [])))


def _joined(address: str) -> Any:
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    if own:  # a killed driver takes its Ray along; by default Ray's agents first look for their head for a minute
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
    try:
        with _on_loopback() if own else nullcontext():
            return ray.init(address, log_to_driver=False, configure_logging=True, logging_level=logging.ERROR, **own)
    except Exception as error:  # noqa: BLE001 - of whatever kind Ray's errors are, the user reads a sentence
        said = " ".join(mask_credentials(str(error)).split())[:400]
        where = "cannot start here" if own else f"at {address} cannot be joined"
        raise SweepError(f"Ray {where}: {said or type(error).__name__} ({type(error).__name__}).") from None


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray started meanwhile takes 127.0.0.1 as this machine's address, and then listens there alone.

    It does so by itself on Windows and macOS only; `_node_ip_address="127.0.0.1"` it replaces by an outer address.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def check_ray() -> None:
    """Raise now whatever would keep Ray or its workers from starting, before anything is encoded or recorded."""
    if not ray.is_initialized():
        check_shadows()
        ray_address()


def starts_its_own() -> bool:
    """Whether `ray_session` would start Ray in this process, for this process alone."""
    return not ray.is_initialized() and chosen_address() == LOCAL


def _dashboard(context: Any) -> str | None:
    url = str(context.dashboard_url or "")
    return f"http://{url.removeprefix('http://')}" if url else None


def ray_failed(error: RayError) -> GemmaNliError:
    """The error shown to the user when a part of Ray dies, or when a task of ours raised an error that the user can
    fix.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, GemmaNliError):
        return cause
    lines = mask_credentials(str(error)).strip().splitlines() or [type(error).__name__]
    return SweepError(
        f"Ray failed: {lines[-1][:300]} ({type(error).__name__}); run the same command again to continue."
    )


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's facts about every running node."""
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
