"""What a finished trial predicted for pairs that it was not trained on: trials are compared by it."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import save

from gemma_nli.tracking.write.artifact import TrialSource, trial_artifact

OUT_OF_FOLD = "out_of_fold.safetensors"


@trial_artifact(OUT_OF_FOLD)
def out_of_fold(source: TrialSource) -> bytes | None:
    """Each evaluation pair's probability and decision by a model that has not seen its post, as safetensors.

    rows, posts (int64: of the PairTable whose fingerprint the run is tagged with; a copy counts as the post it copies),
    folds, labels, decisions (int8), probabilities (float32): (N,) in the order of rows. Two runs of one fingerprint can
    be compared pair by pair.
    """
    if source.record.state != "finished":
        return None
    folds = [fold for _, fold in sorted(source.record.folds.items())]
    rows = np.concatenate([fold.rows for fold in folds])
    probabilities = np.concatenate([fold.probabilities for fold in folds])
    decisions = np.concatenate([fold.probabilities.astype(np.float64) >= fold.threshold for fold in folds])
    order = np.argsort(rows, kind="stable")
    columns = {
        "rows": rows,
        "posts": source.pairs.group_N[rows].astype(np.int64),
        "folds": np.concatenate([np.full(len(fold.rows), fold.fold, dtype=np.int64) for fold in folds]),
        "labels": np.concatenate([fold.labels for fold in folds]).astype(np.int8),
        "decisions": decisions.astype(np.int8),
        "probabilities": probabilities.astype(np.float32),
    }
    data: bytes = save({name: np.ascontiguousarray(values[order]) for name, values in columns.items()})
    return data
