"""What a finished trial predicted for pairs that it was not trained on: trials are compared by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gemma_nli.corpus.pairs import PairTable
from gemma_nli.tracking.write.artifact import TrialSource, trial_artifact
from gemma_nli.training.results import OutOfFold

OUT_OF_FOLD = "out_of_fold.safetensors"


@trial_artifact(OUT_OF_FOLD)
def out_of_fold(source: TrialSource) -> bytes | None:
    """Each evaluation pair's probability and decision by a model that has not seen its post, as safetensors.

    rows, posts (int64: of the PairTable whose fingerprint the run is tagged with; a copy counts as the post it copies),
    criteria, folds, labels, decisions (int8), probabilities (float32): (N,) in the order of rows. Two runs of one
    fingerprint can be compared pair by pair.
    """
    if source.record.state != "finished":
        return None
    return predictions_file(OutOfFold.of([fold for _, fold in sorted(source.record.folds.items())]), source.pairs)


def predictions_file(found: OutOfFold, pairs: PairTable) -> bytes:
    """The same of any predictions of a pair table's rows."""
    order = np.argsort(found.rows, kind="stable")
    columns: dict[str, NDArray[Any]] = {
        "rows": found.rows,
        "posts": pairs.group_N[found.rows].astype(np.int64),
        "criteria": pairs.criterion_N[found.rows].astype(np.int64),
        "folds": found.folds,
        "labels": found.labels.astype(np.int8),
        "decisions": found.decisions.astype(np.int8),
        "probabilities": found.probabilities.astype(np.float32),
    }
    data: bytes = save({name: np.ascontiguousarray(values[order]) for name, values in columns.items()})
    return data
