"""Whether a fold learned anything: its AUC against what chance alone gives, and whether it has more than one answer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gemma_nli.config import RunConfig
from gemma_nli.training.results import FINISHED, FoldResult

NORMAL_QUANTILE = 1.96  # two-sided 95%


def chance_auc(positives: int, negatives: int) -> float:
    """The AUC that random scores stay below in 39 of 40 samples of this many pairs.

    Source: Mann and Whitney 1947: without a difference U / (PN) has mean 1/2 and variance (P + N + 1) / (12 PN).
    Pairs of a post are not independent, so the true limit lies a little higher: a fold below it has not learned.
    """
    return 0.5 + NORMAL_QUANTILE * math.sqrt((positives + negatives + 1) / (12 * positives * negatives))


def why_chance(labels_N: NDArray[np.int8], chosen_N: NDArray[np.bool_], auc: float) -> str:
    """Why one fold's decisions and AUC say nothing about its pairs; empty if they do, or with one class."""
    positives, pairs, named = int(labels_N.sum()), len(labels_N), int(chosen_N.sum())
    if not 0 < positives < pairs:
        return ""
    reasons = []
    if named in (0, pairs):
        reasons.append(f"calls every pair {'matched' if named else 'not matched'}")
    limit = chance_auc(positives, pairs - positives)
    if not auc > limit and auc < 1:  # a perfect order is not called chance, although a few pairs may have it by chance
        reasons.append(f"AUC {auc:.3f}, where chance alone reaches {min(limit, 1.0):.3f}")
    return " and ".join(reasons)


def unlearned(folds: Iterable[FoldResult]) -> dict[int, str]:
    """The finished folds that did not learn, and why."""
    found = {}
    for fold in folds:
        if fold.status == FINISHED:
            found[fold.fold] = why_chance(fold.labels, fold.decisions, fold.metrics["auc"])
    return {number: why for number, why in found.items() if why}


def learning_warning(folds: Iterable[FoldResult], config: RunConfig) -> str:
    """A sentence on the folds of a trial that did not learn, with what to try; empty if all did."""
    found = unlearned(folds)
    if not found:
        return ""
    which = ", ".join(map(str, found))
    head = f"fold {which} did" if len(found) == 1 else f"folds {which} did"
    why = next(iter(found.values()))
    return (
        f"{head} not learn ({why}{', in the first of them' if len(found) > 1 else ''}); F1 means nothing there. Try "
        f"another training.learning_rate (it was {config.training.learning_rate:g}), more epochs or another encoder."
    )
