"""Looks at a sealed test set, on the sweep's run and on the model version that was scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gemma_nli.analysis.sealed_posts import SealedTest
from gemma_nli.base.what_was_measured import SEALED_REFIT
from gemma_nli.tracking.registry.register import Registered
from gemma_nli.tracking.store.mlflow_store import talking
from gemma_nli.tracking.write.tracker import MlflowTracker

REFIT_TAG = "gemma_nli.refit"
LOOKS, POSTS, FINGERPRINT = "gemma_nli.sealed_looks", "gemma_nli.sealed_posts", "gemma_nli.sealed_fingerprint"
OF_ALL_MODELS = (LOOKS, POSTS, FINGERPRINT)
"""What holds for every version that a sweep registers: the scores are of the one that was scored."""


def sealed_tags(test: SealedTest) -> dict[str, str]:
    """How many posts are sealed, how many looks there were, and the first model's latest score."""
    tags = {LOOKS: str(test.count), POSTS: str(test.posts), FINGERPRINT: test.fingerprint}
    last = test.last
    if last is None or not last.scores:
        return tags
    model = last.scores[0]
    tags |= {"gemma_nli.sealed_metric": last.label, "gemma_nli.sealed_look": str(last.number)}
    tags |= {f"gemma_nli.sealed_{name}": repr(getattr(model.score, name)) for name in ("value", "low", "high")}
    if model.foretold is not None:
        tags["gemma_nli.sealed_foretold"] = repr(model.foretold.value)
    return tags


def sealed_metrics(test: SealedTest) -> dict[str, float]:
    """For the sweep's run; a later look goes to the metric's next step."""
    last = test.last
    if last is None or not last.scores:
        return {"sealed/looks": float(test.count)}
    model = last.scores[0]
    known = {"sealed/score": model.score.value}
    if model.foretold is not None:
        known["sealed/foretold"] = model.foretold.value
    return {"sealed/looks": float(test.count), **{n: value for n, value in known.items() if math.isfinite(value)}}


def looks_known(tracker: MlflowTracker, sweep_run_id: str | None, registered: Registered | None) -> int:
    """The looks that MLflow has counted.

    Raises:
        TrackingError: it cannot be reached.
    """
    with talking(tracker.store, "read the looks at the sealed posts"):
        found: list[Mapping[str, Any]] = []
        if sweep_run_id is not None:
            found.append(tracker.client.get_run(sweep_run_id).data.tags)
        if registered is not None:
            found.append(tracker.client.get_model_version(registered.name, str(registered.version)).tags)
        return max((int(tags[LOOKS]) for tags in found if str(tags.get(LOOKS, "")).isdigit()), default=0)


def tag_look(tracker: MlflowTracker, sweep_run_id: str | None, registered: Registered | None, test: SealedTest) -> None:
    """Write the count, and the scores once there are some, on both.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    with talking(tracker.store, "count the look at the sealed posts"):
        for name, value in sealed_tags(test).items():
            if sweep_run_id is not None:
                tracker.client.set_tag(sweep_run_id, name, value)
            if registered is not None:
                tracker.client.set_model_version_tag(registered.name, str(registered.version), name, value)
        if registered is not None and test.last is not None and test.last.scores:
            tracker.client.set_model_version_tag(registered.name, str(registered.version), REFIT_TAG, SEALED_REFIT)
