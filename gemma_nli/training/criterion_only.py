"""What knowing a pair's criterion, and never its post, is worth; and any scorer on the trials' folds.

Letters: N evaluation pairs, R rows of a PairTable, C criteria.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics import MacroMetric, measured_by
from gemma_nli.base.metrics.macro import mean_of_known, supported, within_criteria
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.training.fold import FoldPlan, plan_fold
from gemma_nli.training.metrics import log_odds, sigmoid
from gemma_nli.training.threshold_rules import THRESHOLD_RULES, Thresholds

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Scorer = Callable[[Rows], Floats]
"""(R,) rows of the PairTable to (R,) scores."""


def score_folds(
    pairs: PairTable, rows_N: Rows, config: RunConfig, fit: Callable[[FoldPlan], Scorer]
) -> tuple[NDArray[np.bool_], Floats]:
    """(N,) decisions and (N,) scores of what `fit` makes of each fold's training pairs, on its evaluation pairs.

    Each fold's thresholds are chosen on pairs of its training posts, as a trial's are (`training.threshold`).

    Args:
        fit: gives a scorer of probabilities or log-odds.
    """
    of_row = np.full(len(pairs), np.nan)
    chosen = np.zeros(len(pairs), dtype=bool)
    inner = config.with_settings({"training.epoch_selection": "inner"})
    for fold in range(1, pairs.num_folds + 1):
        plan = plan_fold(inner, pairs, fold)
        scorer = fit(plan)
        tuned_on = _tuned_on(plan)
        of_row[plan.evaluation] = scorer(plan.evaluation)
        thresholds, as_given = _thresholds(config, pairs, tuned_on, scorer(tuned_on))
        likely = of_row[plan.evaluation] if as_given else sigmoid(of_row[plan.evaluation])
        chosen[plan.evaluation] = likely >= thresholds.of(pairs.criterion_N[plan.evaluation])
    return chosen[rows_N], of_row[rows_N]


def mean_thresholds(pairs: PairTable, config: RunConfig, fit: Callable[[FoldPlan], Scorer]) -> Floats:
    """(C,) from which score on a pair of each criterion is matched by a scorer that is fitted on all folds: the mean of
    what the folds chose, as a refit trial's. A scorer of log-odds has its thresholds as log-odds.
    """
    inner, chosen = config.with_settings({"training.epoch_selection": "inner"}), []
    criterion_C = np.arange(len(pairs.criterion_ids))
    for fold in range(1, pairs.num_folds + 1):
        plan = plan_fold(inner, pairs, fold)
        rows = _tuned_on(plan)
        thresholds, as_given = _thresholds(config, pairs, rows, fit(plan)(rows))
        at_C = thresholds.of(criterion_C)
        chosen.append(at_C if as_given else log_odds(at_C))
    return np.asarray(np.mean(chosen, axis=0))


def _thresholds(config: RunConfig, pairs: PairTable, rows: Rows, score_R: Floats) -> tuple[Thresholds, bool]:
    """By `training.threshold`, of (R,) scores of these rows; whether they are of the scores as given, not of their
    sigmoid: a rule that calibrates needs probabilities.
    """
    shared = config.training.threshold == "shared"
    as_given = shared or bool((score_R >= 0).all() and (score_R <= 1).all())
    likely_R = score_R if as_given else sigmoid(score_R)
    return THRESHOLD_RULES[config.training.threshold](likely_R, pairs.label_N[rows], pairs.criterion_N[rows]), as_given


def _tuned_on(plan: FoldPlan) -> Rows:
    """The pairs that thresholds are chosen on."""
    return plan.selection if len(plan.selection) else plan.fit


def criterion_only(config: RunConfig, pairs: PairTable, rows_N: Rows) -> tuple[NDArray[np.bool_], Floats]:
    """(N,) decisions and (N,) scores: the criterion's share of positives among the training posts of each fold.

    A model that scores no higher has learned how frequent the criteria are, whatever it read.
    """

    def fit(plan: FoldPlan) -> Scorer:
        share_C = shares_of_criteria(pairs, known_frequencies(pairs, plan))
        return lambda rows: np.asarray(share_C[pairs.criterion_N[rows]])

    return score_folds(pairs, rows_N, config, fit)


def known_frequencies(pairs: PairTable, plan: FoldPlan) -> Rows:
    """The rows that tell how frequent each criterion is: pairs of the posts that the fold fits on, as many of each kind
    as are evaluated. So a true prevalence (`data.eval_negative_ratio: all`) is known even where training negatives are
    matched and hide it.
    """
    ratio = pairs.eval_negative_ratio
    return pairs.inner_split(plan.fold, ratio)[0] if len(plan.selection) else pairs.training_rows(plan.fold, ratio)


def shares_of_criteria(pairs: PairTable, rows: Rows) -> Floats:
    """(C,) the share of positives among these rows of each criterion; of one that has none, the share of all rows."""
    label_R, criterion_R = pairs.label_N[rows].astype(np.float64), pairs.criterion_N[rows]
    positives_C = np.bincount(criterion_R, weights=label_R, minlength=len(pairs.criterion_ids))
    count_C = np.bincount(criterion_R, minlength=len(pairs.criterion_ids))
    return np.asarray(np.where(count_C > 0, positives_C / np.maximum(1, count_C), label_R.mean()))


def scores_of_criterion_only(config: RunConfig, pairs: PairTable) -> dict[str, float]:
    """`f1` and `auc` of the criterion alone on the evaluation pairs, means over folds as a trial's."""
    rows_N = evaluation_rows(pairs)
    return mean_scores(pairs, rows_N, *criterion_only(config, pairs, rows_N), ("f1", "auc"))


def evaluation_rows(pairs: PairTable) -> Rows:
    """(N,) the evaluation pairs of all folds."""
    return np.concatenate([pairs.evaluation_rows(fold) for fold in range(1, pairs.num_folds + 1)])


def mean_scores(
    pairs: PairTable, rows_N: Rows, decided_N: NDArray[np.bool_], score_N: Floats, names: Sequence[str]
) -> dict[str, float]:
    """Of (N,) decisions and scores, each metric as a trial's: its mean over folds, or over criteria."""
    label_N, fold_N, criterion_N = pairs.label_N[rows_N], pairs.fold_N[rows_N], pairs.criterion_N[rows_N]
    found: dict[str, float] = {}
    for name in names:
        metric = measured_by(name)
        values_1N = metric.takes(decided_N, score_N)[None]
        if isinstance(metric, MacroMetric):
            criteria = supported(label_N, criterion_N)
            scores = within_criteria(metric.part, values_1N, label_N, criterion_N, fold_N, criteria)
        else:
            folds = [np.flatnonzero(fold_N == fold) for fold in range(1, pairs.num_folds + 1)]
            scores = np.stack([metric.of_rows(values_1N[:, rows], label_N[rows]) for rows in folds], axis=1)
        found[name] = float(mean_of_known(scores, axis=1)[0])
    return found
