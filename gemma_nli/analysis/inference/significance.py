"""Is one configuration better than another, by how much, and how certain is that?

Each test takes out-of-fold predictions or fold scores of both, and gives the difference `a - b` with an interval; a
p-value alone answers nothing. Letters: N pairs, J fold scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.base.metrics import CountedMetric, measured_by
from gemma_nli.base.metrics.auc import roc_auc
from gemma_nli.base.metrics.macro import measure_names

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """`value` = a - b, with an interval that contains the true difference at `level`, and a two-sided
    p-value.
    """

    value: float
    low: float
    high: float
    p_value: float
    level: float
    score_a: float
    score_b: float
    method: str

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Posterior:
    """Chances that a is worse by more than the region of practical equivalence, that they are equal, that a is
    better.
    """

    worse: float
    equal: float
    better: float
    mean: float
    low: float
    high: float
    rope: float


def paired_bootstrap(
    posts: Sequence[Any] | NDArray[Any],
    labels: ArrayLike,
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    metric: str = "f1",
    repetitions: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    folds: ArrayLike | None = None,
    luck: float = 0.0,
    criteria: ArrayLike | None = None,
) -> Difference:
    """The difference of two scores on the same pairs, posts drawn with all their pairs, for both at once.

    What it answers: would it hold on other posts? It takes both models as they are; the variation between trainings
    is what `corrected_resampled_t` takes into account.

    Args:
        posts: (N,) the post of each pair.
        labels: (N,) 0 or 1.
        predictions_a: (N,) decisions (0 or 1) for a metric that counts them (f1), scores for one of ranks (auc).
        level: how often the interval should contain the true difference.
        folds: (N,) of each pair; given, scores are means over folds and posts are drawn within folds.
        luck: what a's score owes to a being the best of several trials, less the same of b (`honest_score`); it is
            taken off a's score.
        criteria: (N,) of each pair, for a macro metric.
    Returns:
        Interval by percentiles; the p-value is the level at which that interval would just touch zero.
    Raises:
        ValueError: an unknown metric, lengths that differ, decisions that are not 0 or 1, or a macro metric without
            criteria.
    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 15; on F1, Berg-Kirkpatrick
    et al. 2012, "An Empirical Investigation of Statistical Significance in NLP".
    """
    if metric not in measure_names():
        raise ValueError(f"metric must be one of {', '.join(measure_names())}, got {metric!r}")
    both = [np.asarray(predictions_a), np.asarray(predictions_b)]
    bootstrap = PostBootstrap(posts, labels, repetitions, seed, folds, criteria)
    for name, values in zip("ab", both, strict=True):
        if values.shape != bootstrap.labels_N.shape:
            raise ValueError(f"predictions_{name} has shape {values.shape}, labels {bootstrap.labels_N.shape}")
        if isinstance(measured_by(metric).part, CountedMetric) and not np.isin(values, (0, 1)).all():
            raise ValueError(f"predictions_{name} must be decisions (0 or 1) for {metric}: apply the threshold first")
    score_a, score_b = (bootstrap.observed(values, metric) for values in both)
    drawn = bootstrap.many(np.stack(both, axis=1), metric)
    draws_S = bootstrap.widened(drawn[:, 0] - drawn[:, 1], score_a - score_b) - luck
    return difference_of_draws(draws_S, score_a - luck, score_b, level, "paired bootstrap over posts")


def difference_of_draws(
    draws_S: Floats, score_a: float, score_b: float, level: float, method: str = "bootstrap"
) -> Difference:
    """A Difference from bootstrap draws of it; draws that are NaN are left out."""
    real_S = draws_S[~np.isnan(draws_S)]
    if not len(real_S):
        return Difference(score_a - score_b, math.nan, math.nan, math.nan, level, score_a, score_b, method)
    low, high = np.quantile(real_S, [(1 - level) / 2, (1 + level) / 2])
    tail, spread = min((real_S <= 0).sum(), (real_S >= 0).sum()), float(real_S.std())
    p_value = min(1.0, 2 * (float(tail) + 1) / (len(real_S) + 1))
    if tail == 0 and spread > 0:  # too few draws to say how rare zero is: use the normal tail
        p_value = min(p_value, float(2 * stats.norm.sf(abs(float(real_S.mean())) / spread)))
    return Difference(score_a - score_b, float(low), float(high), p_value, level, score_a, score_b, method)


def corrected_resampled_t(
    scores_a: ArrayLike, scores_b: ArrayLike, test_share: float, level: float = 0.95
) -> Difference:
    """Paired t-test on fold scores, its variance widened because training sets overlap.

    Args:
        scores_a: (J,) the score in each fold (of each repeat), in the order of scores_b.
        test_share: test pairs per training pair: 1 / (K - 1) for K folds.
    Raises:
        ValueError: fewer than two folds, or lengths that differ.
    Source: Nadeau and Bengio 2003, "Inference for the Generalization Error", equation 9: (1/J + n_test/n_train) in
    place of 1/J, with J - 1 degrees of freedom.
    """
    a, b, d, scale = _fold_differences(scores_a, scores_b, test_share)
    mean, freedom = float(d.mean()), len(d) - 1
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * scale
    p_value = float(2 * stats.t.sf(abs(mean) / scale, freedom)) if scale > 0 else float(mean == 0)
    return Difference(
        mean, mean - reach, mean + reach, p_value, level, float(a.mean()), float(b.mean()), "corrected resampled t"
    )


def correlated_bayes(
    scores_a: ArrayLike, scores_b: ArrayLike, test_share: float, rope: float = 0.01, level: float = 0.95
) -> Posterior:
    """The posterior of the mean difference over folds, their correlation counted in.

    Args:
        test_share: as in `corrected_resampled_t`.
        rope: differences up to this size are of no practical weight.
    Source: Corani and Benavoli 2015, "A Bayesian approach for comparing cross-validated algorithms on multiple data
    sets"; Benavoli et al. 2017, "Time for a Change", section 3: a Student t around the mean difference, with the same
    widened variance.
    """
    _, _, d, scale = _fold_differences(scores_a, scores_b, test_share)
    mean = float(d.mean())
    if scale == 0:
        worse, better = float(mean < -rope), float(mean > rope)
        return Posterior(worse, 1 - worse - better, better, mean, mean, mean, rope)
    belief = stats.t(len(d) - 1, loc=mean, scale=scale)
    worse, better = float(belief.cdf(-rope)), float(belief.sf(rope))
    low, high = belief.interval(level)
    return Posterior(worse, 1 - worse - better, better, mean, float(low), float(high), rope)


def _fold_differences(
    scores_a: ArrayLike, scores_b: ArrayLike, test_share: float
) -> tuple[Floats, Floats, Floats, float]:
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"needs two or more folds, the same ones of both; got {a.shape} and {b.shape}")
    if not test_share > 0:
        raise ValueError(f"test_share must be above 0, got {test_share}")
    d = a - b
    return a, b, d, float(np.sqrt((1 / len(d) + test_share) * d.var(ddof=1)))


def mcnemar(
    labels: ArrayLike,
    decisions_a: ArrayLike,
    decisions_b: ArrayLike,
    posts: Sequence[Any] | NDArray[Any] | None = None,
    level: float = 0.95,
) -> Difference:
    """Whether one makes more mistakes than the other, judged by the pairs that only one of them gets right.

    Args:
        posts: (N,) given, pairs of a post count as one cluster; without, every pair as independent (exact binomial).
    Returns:
        The difference of accuracies.
    Source: McNemar 1947 (statsmodels, exact); with posts Durkalski et al. 2003, "Analysis of clustered matched-pair
    data", clusters weighted by size.
    """
    y, a, b = (np.asarray(values).astype(bool) for values in (labels, decisions_a, decisions_b))
    right_a, right_b = a == y, b == y
    d_N = right_a.astype(np.float64) - right_b
    groups_N = np.arange(len(y)) if posts is None else np.unique(np.asarray(posts), return_inverse=True)[1]
    of_post = np.bincount(groups_N, weights=d_N)
    value = float(d_N.mean())
    scale = float(np.sqrt((of_post**2).sum() - of_post.sum() ** 2 / len(of_post))) / len(y)
    reach = float(stats.norm.ppf((1 + level) / 2)) * scale
    if posts is None:
        table = [[np.sum(right_a & right_b), np.sum(right_a & ~right_b)]]
        table += [[np.sum(~right_a & right_b), np.sum(~right_a & ~right_b)]]
        p_value = float(exact_mcnemar(table, exact=True).pvalue)
    else:
        spread = float((of_post**2).sum())
        p_value = float(stats.chi2.sf(of_post.sum() ** 2 / spread, 1)) if spread else 1.0
    return Difference(
        value, value - reach, value + reach, p_value, level, float(right_a.mean()), float(right_b.mean()), "McNemar"
    )


def delong(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    posts: Sequence[Any] | NDArray[Any] | None = None,
    level: float = 0.95,
) -> Difference:
    """The difference of two areas under the ROC curve over the same pairs.

    Args:
        posts: (N,) given, pairs of a post are one cluster (Obuchowski); without, every pair is independent (DeLong).
    Raises:
        ValueError: labels of one class.
    Source: DeLong et al. 1988, "Comparing the Areas under Two or More Correlated ROC Curves"; computed by midranks as
    in Sun and Xu 2014; clusters as in Obuchowski 1997, "Nonparametric Analysis of Clustered ROC Curve Data".
    """
    y = np.asarray(labels).astype(bool)
    if y.all() or not y.any():
        raise ValueError("AUC needs labels of both classes")
    placed = [_placements(np.asarray(scores, dtype=np.float64), y) for scores in (scores_a, scores_b)]
    area_a, area_b = (
        float(roc_auc(np.asarray(s, dtype=np.float64)[None], y.astype(np.int8))[0]) for s in (scores_a, scores_b)
    )
    shift_N = (placed[0] - area_a) - (placed[1] - area_b)
    shift_N = np.where(y, shift_N / y.sum(), shift_N / (~y).sum())
    if posts is None:
        positives, negatives = int(y.sum()), int((~y).sum())
        parts = [(shift_N[y], positives), (shift_N[~y], negatives)]
        variance = sum(float((part**2).sum()) * n / max(n - 1, 1) for part, n in parts)
    else:
        of_post = np.bincount(np.unique(np.asarray(posts), return_inverse=True)[1], weights=shift_N)
        variance = float((of_post**2).sum()) * len(of_post) / max(len(of_post) - 1, 1)
    value, scale = area_a - area_b, math.sqrt(variance)
    reach = float(stats.norm.ppf((1 + level) / 2)) * scale
    p_value = float(2 * stats.norm.sf(abs(value) / scale)) if scale > 0 else float(value == 0)
    return Difference(value, value - reach, value + reach, p_value, level, area_a, area_b, "DeLong")


def _placements(scores_N: Floats, y: NDArray[np.bool_]) -> Floats:
    """(N,) for a positive the share of negatives below it, for a negative the share of positives above it."""
    all_ranks_N = stats.rankdata(scores_N)
    own_N = np.empty_like(all_ranks_N)
    own_N[y], own_N[~y] = stats.rankdata(scores_N[y]), stats.rankdata(scores_N[~y])
    below_N = all_ranks_N - own_N
    return np.asarray(np.where(y, below_N / (~y).sum(), 1 - below_N / y.sum()))
