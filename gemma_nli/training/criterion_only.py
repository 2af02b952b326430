"""What knowing a pair's criterion, and never its post, is worth; and any scorer on the trials' folds.

Letters: N evaluation pairs, R rows of a PairTable, C criteria.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics import METRICS
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.training.fold import FoldPlan, plan_fold
from gemma_nli.training.metrics import best_threshold

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Scorer = Callable[[Rows], Floats]
"""(R,) rows of the PairTable to (R,) scores."""


def score_folds(
    pairs: PairTable, rows_N: Rows, config: RunConfig, fit: Callable[[FoldPlan], Scorer]
) -> tuple[NDArray[np.bool_], Floats]:
    """(N,) decisions and (N,) scores of what `fit` makes of each fold's training pairs, on its evaluation pairs.

    Each fold's threshold has the best F1 on pairs of its training posts, as a trial's.
    """
    of_row = np.full(len(pairs), np.nan)
    chosen = np.zeros(len(pairs), dtype=bool)
    inner = config.with_settings({"training.epoch_selection": "inner"})
    for fold in range(1, pairs.num_folds + 1):
        plan = plan_fold(inner, pairs, fold)
        scorer = fit(plan)
        tuned_on = plan.selection if len(plan.selection) else plan.fit
        threshold, _ = best_threshold(scorer(tuned_on), pairs.label_N[tuned_on])
        of_row[plan.evaluation] = scorer(plan.evaluation)
        chosen[plan.evaluation] = of_row[plan.evaluation] >= threshold
    return chosen[rows_N], of_row[rows_N]


def criterion_only(config: RunConfig, pairs: PairTable, rows_N: Rows) -> tuple[NDArray[np.bool_], Floats]:
    """(N,) decisions and (N,) scores: the criterion's share of positives among each fold's training pairs.

    A model that scores no higher has learned how frequent the criteria are, whatever it read. A criterion that is not
    among a fold's training pairs gets the share of all of them.
    """

    def fit(plan: FoldPlan) -> Scorer:
        label_R, criterion_R = pairs.label_N[plan.fit].astype(np.float64), pairs.criterion_N[plan.fit]
        positives_C = np.bincount(criterion_R, weights=label_R, minlength=len(pairs.criterion_ids))
        count_C = np.bincount(criterion_R, minlength=len(pairs.criterion_ids))
        share_C = np.where(count_C > 0, positives_C / np.maximum(1, count_C), label_R.mean())
        return lambda rows: np.asarray(share_C[pairs.criterion_N[rows]])

    return score_folds(pairs, rows_N, config, fit)


def scores_of_criterion_only(config: RunConfig, pairs: PairTable) -> dict[str, float]:
    """`f1` and `auc` of the criterion alone on the evaluation pairs, means over folds as a trial's."""
    folds = [pairs.evaluation_rows(fold) for fold in range(1, pairs.num_folds + 1)]
    decided_N, score_N = criterion_only(config, pairs, np.concatenate(folds))
    ends = np.cumsum([len(rows) for rows in folds])[:-1]
    each = list(zip(np.split(decided_N, ends), np.split(score_N, ends), folds, strict=True))
    found: dict[str, float] = {}
    for name in ("f1", "auc"):
        metric = METRICS[name]
        values = [metric.takes(decided, score) for decided, score, _ in each]
        scores = [
            float(metric.of_rows(of[None], pairs.label_N[rows])[0]) for of, rows in zip(values, folds, strict=True)
        ]
        found[name] = float(np.nanmean(scores))
    return found
