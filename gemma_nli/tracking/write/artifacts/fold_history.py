"""Each fold's epochs, and the epoch and threshold it was measured at."""

from __future__ import annotations

from typing import Any

from gemma_nli.model.scaling import UNSCALED
from gemma_nli.tracking.write.artifact import TrialSource, fold_artifact, to_json
from gemma_nli.training.results import FoldResult


@fold_artifact("fold_{fold}_history.json")
def fold_history(source: TrialSource, fold: FoldResult) -> bytes:
    facts: dict[str, Any] = {
        "fold": fold.fold,
        "status": fold.status,
        "selected_epoch": fold.selected_epoch,
        "best_epoch": fold.best_epoch,
    }
    if fold.thresholds:
        facts["thresholds"] = fold.thresholds
    if fold.scaling != UNSCALED:
        facts["scaling"] = fold.scaling.facts()
    return to_json({**facts, "threshold": fold.threshold, "metrics": fold.metrics, "history": fold.history})
