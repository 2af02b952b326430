"""Waiting for machines: a cluster that scales from zero has no workers until work is queued."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ray.autoscaler.sdk import request_resources

from gemma_nli.base.errors import SweepError
from gemma_nli.spec.sweep_sections import Resources
from gemma_nli.sweep.cluster.ray_session import alive_nodes
from gemma_nli.sweep.cluster.trial_resources import least_bundle

WAIT = "GEMMA_NLI_WAIT_FOR_NODES"
"""Minutes; set by the machine files (cluster.yaml), as only they know that nodes are started on demand."""
_LOOK_SECONDS = 2.0


def wait_for_nodes(asked: Resources, report: Callable[[str], None]) -> None:
    """Ask the autoscaler for a first node that fits a trial, and wait for it; returns at once if there is one.

    Without $GEMMA_NLI_WAIT_FOR_NODES nothing is waited for: the existing nodes are used.

    Args:
        report: is given the phase's name when waiting begins.
    Raises:
        SweepError: no such node in time, or the variable is not a number.
    """
    minutes = _minutes()
    bundle = least_bundle(asked)
    if not minutes or _holds(bundle):
        return
    report("waiting")
    request_resources(bundles=[bundle])
    try:
        until = time.monotonic() + 60 * minutes
        while not _holds(bundle):
            if time.monotonic() > until:
                wanted = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
                raise SweepError(
                    f"no node with {wanted} started within {minutes:g} minutes (${WAIT}); check `ray status` on the "
                    "head (quota, spot capacity, instance type), or set resources.gpu=0 for workers without GPUs."
                )
            time.sleep(_LOOK_SECONDS)
    finally:
        request_resources(bundles=[])  # from here on the waiting trials are the demand


def _holds(bundle: dict[str, float]) -> bool:
    return any(
        all(node["Resources"].get(name, 0.0) >= amount for name, amount in bundle.items()) for node in alive_nodes()
    )


def _minutes() -> float:
    text = os.environ.get(WAIT, "0")
    try:
        return max(0.0, float(text))
    except ValueError:
        raise SweepError(f"${WAIT}: must be a number of minutes, got '{text}'.") from None
