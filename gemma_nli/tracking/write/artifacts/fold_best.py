"""Each fold's trained weights, where they are kept."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save

from gemma_nli.tracking.write.artifact import TrialSource, fold_artifact
from gemma_nli.training.results import FoldResult


@fold_artifact("fold_{fold}_best.safetensors")
def fold_best(source: TrialSource, fold: FoldResult) -> bytes | Path | None:
    if fold.fold in source.record.weights:
        return source.record.weights[fold.fold]
    if not fold.state:
        return None
    weights: bytes = save({name: tensor.contiguous() for name, tensor in fold.state.items()})
    return weights
