"""Two sets of out-of-fold predictions as they are, by every test: over trainings, by mistakes, by ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.significance import (
    Difference,
    Posterior,
    corrected_resampled_t,
    correlated_bayes,
    delong,
    mcnemar,
)

Floats = NDArray[np.float64]
ROPE = 0.01
"""Differences of up to one point of F1 (or AUC) have no practical weight."""


@dataclass(frozen=True)
class PairedTests:
    """The first less the second: `folds` and `belief` over trainings, `accuracy` by McNemar, `auc` by DeLong."""

    folds: Difference
    belief: Posterior
    accuracy: Difference
    auc: Difference


def paired_tests(
    evidence: Evidence,
    folds: tuple[Floats, Floats],
    decided: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    ranked: tuple[NDArray[Any], NDArray[Any]],
) -> PairedTests:
    """
    Args:
        folds: (K,) the scores of both in each fold; a fold in which either has none is left out.
        decided: (N,) their decisions.
        ranked: (N,) their probabilities or scores.
    """
    label_N, group_N, share = evidence.label_N, evidence.group_N, 1 / (evidence.pairs.num_folds - 1)
    real_K = ~(np.isnan(folds[0]) | np.isnan(folds[1]))
    a_J, b_J = folds[0][real_K], folds[1][real_K]
    measured = len(a_J) > 1  # of one fold there is no spread
    return PairedTests(
        folds=corrected_resampled_t(a_J, b_J, share) if measured else _UNKNOWN,
        belief=correlated_bayes(a_J, b_J, share, ROPE) if measured else _NO_BELIEF,
        accuracy=mcnemar(label_N, *decided, group_N),
        auc=delong(label_N, *ranked, group_N),
    )


_NAN = math.nan
_UNKNOWN = Difference(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, "corrected resampled t")
_NO_BELIEF = Posterior(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, ROPE)
