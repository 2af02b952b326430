"""The winner's curse: what the best of many trials really scores, and what more trials bring.

Letters: T trials, S draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.held_out import HeldOut
from gemma_nli.analysis.inference.significance import Difference, difference_of_draws
from gemma_nli.base.metrics import METRICS, RankedMetric

Floats = NDArray[np.float64]
LEVEL = 0.95
REPETITIONS = 2000
METHOD = "bias corrected, bootstrap over posts"


@dataclass(frozen=True)
class HonestScore:
    """`raw` is the winner's own score, `value` the score of the best of these trials on posts that did not choose it.

    `low` and `high` take into account that other posts would have chosen another trial.

    `stability`: the share of draws in which the same trial won.
    """

    metric: str
    raw: float
    value: float
    low: float
    high: float
    level: float
    candidates: int
    stability: float

    @property
    def optimism(self) -> float:
        return self.raw - self.value


@dataclass(frozen=True)
class Draws:
    """(S, T) every trial's score on the posts drawn, and on the posts left out, the same posts for all trials.

    `held_out` has the same trials on tenths of the posts.
    """

    metric: str
    inside_ST: Floats
    outside_ST: Floats
    score_T: Floats
    bootstrap: PostBootstrap
    held_out: HeldOut

    @classmethod
    def of(cls, evidence: Evidence, repetitions: int = REPETITIONS, seed: int = 0) -> Draws:
        """Fewer draws where a ranking metric over very many trials would take minutes."""
        metric = evidence.ranked_by
        if isinstance(METRICS[metric], RankedMetric):
            cells = evidence.probability_TN.size
            repetitions = int(np.clip(repetitions * 3e5 / max(cells, 1), 200, repetitions))
        bootstrap = evidence.bootstrap(repetitions, seed)
        return cls.from_values(bootstrap, evidence.values(metric).T, metric, evidence.scores(metric), seed)

    @classmethod
    def from_values(
        cls, bootstrap: PostBootstrap, values_NT: NDArray[Any], metric: str, score_T: Floats, seed: int = 0
    ) -> Draws:
        """Of decisions (N, T) for a metric that counts them, of scores for one of ranks."""
        inside_ST, outside_ST = bootstrap.many(values_NT, metric), bootstrap.many(values_NT, metric, left_out=True)
        held_out = HeldOut(bootstrap, values_NT, metric, seed)
        return cls(metric, inside_ST, outside_ST, score_T, bootstrap, held_out)

    def winners(self, places: Sequence[int] | None = None) -> NDArray[np.int64]:
        """(S,) which of `places` (all trials) is best on the posts drawn; ties go to the first."""
        columns = np.arange(self.inside_ST.shape[1]) if places is None else np.asarray(places)
        inside_ST = np.where(np.isnan(self.inside_ST[:, columns]), -np.inf, self.inside_ST[:, columns])
        return np.asarray(columns[inside_ST.argmax(1)])

    def chosen_outside(self, places: Sequence[int] | None = None) -> Floats:
        """(S,) the score of those winners on the posts left out."""
        winners_S = self.winners(places)
        return np.asarray(self.outside_ST[np.arange(len(winners_S)), winners_S])

    def honest(self, places: Sequence[int] | None = None) -> tuple[float, Floats]:
        """(what the best of `places` is worth, (S,) draws of it).

        The worth is measured on tenths of the posts (`held_out.py`); the draws are those of bootstrap bias corrected
        cross-validation, moved so that they lie around it.
        """
        columns = list(range(len(self.score_T))) if places is None else list(places)
        score_of_best, outside_S = self.held_out.score_of_best(columns), self.chosen_outside(columns)
        return score_of_best, outside_S + (score_of_best - float(np.nanmean(outside_S)))

    def difference(self, place_a: int, place_b: int, level: float = LEVEL) -> Difference:
        """Of two given trials: a paired bootstrap over posts."""
        a, b = float(self.score_T[place_a]), float(self.score_T[place_b])
        d_S = self.bootstrap.widened(self.inside_ST[:, place_a] - self.inside_ST[:, place_b], a - b)
        return difference_of_draws(d_S, a, b, level, "paired bootstrap over posts")

    def difference_from(self, values_N: NDArray[Any], score: float, level: float = LEVEL) -> Difference:
        """The tuned best of all trials minus something that was not chosen (a baseline), on the same left-out posts.

        Args:
            values_N: its decisions, or scores where the metric takes them.
            score: its score as it is.
        """
        own, own_S = self.honest()
        other_S = self.bootstrap.draws(values_N, self.metric, left_out=True)
        other_S = other_S + (score - float(np.nanmean(other_S)))
        return difference_of_draws(own_S - other_S, own, score, level, METHOD)

    def difference_of_tuned(self, places_a: Sequence[int], places_b: Sequence[int], level: float = LEVEL) -> Difference:
        """Best of one group minus best of another, each chosen on some posts and measured on the others.

        `score_a` and `score_b` are the groups' honest scores, `value` their difference; so a group with more trials
        gains nothing from that. The interval takes into account that another sample of posts would choose other trials.
        """
        (a, a_S), (b, b_S) = self.honest(places_a), self.honest(places_b)
        return difference_of_draws(a_S - b_S, a, b, level, METHOD)


def honest_score(draws: Draws, places: Sequence[int] | None = None, level: float = LEVEL) -> HonestScore:
    """Bias corrected score of the best among `places` (all trials).

    Bootstrap bias corrected cross-validation: each draw of posts chooses its own winner, which is scored on the posts
    that the draw left out; no training is needed. Its draws give the interval. Their mean is low where trials differ in
    skill, as each draw chooses by 63% of the posts; so the value itself is of choices by 90% (`HeldOut`), and the draws
    are moved to it.

    Source: Tsamardinos, Greasidou and Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation", algorithm 3; here posts are drawn whole, within folds. Choosing and measuring on other
    parts, over stored predictions: Varma and Simon 2006, "Bias in error estimation when using cross-validation for
    model selection", without the training.
    """
    columns = list(range(len(draws.score_T))) if places is None else list(places)
    value, outside_S = draws.honest(columns)
    real_S = outside_S[~np.isnan(outside_S)]
    low, high = np.quantile(real_S, [(1 - level) / 2, (1 + level) / 2]) if len(real_S) else (math.nan, math.nan)
    raw = float(draws.score_T[columns].max())
    winner = columns[int(draws.score_T[columns].argmax())]
    stability = float((draws.winners(columns) == winner).mean())
    return HonestScore(draws.metric, raw, value, float(low), float(high), level, len(columns), stability)


@dataclass(frozen=True)
class BudgetCurve:
    """Expected best score after 1..n trials, with the range that holds four in five random orders of the trials."""

    expected: Floats
    low: Floats
    high: Floats


def expected_best(scores: Sequence[float] | Floats) -> BudgetCurve:
    """What the best of n of these trials is on average, for n from 1 to all of them.

    Source: Dodge et al. 2019, "Show Your Work", section 3, with the trials drawn without replacement, which leaves the
    estimate without bias: Tang et al. 2020, "Showing Your Work Doesn't Always Work", equation 5.
    """
    sorted_B = np.sort(np.asarray(scores, dtype=np.float64))
    total = len(sorted_B)
    if not total:
        raise ValueError("no scores")
    rows = [(e, lo, hi) for e, lo, hi in (_best_of(sorted_B, n) for n in range(1, total + 1))]
    expected, low, high = (np.array(column) for column in zip(*rows, strict=True))
    return BudgetCurve(expected, low, high)


def _best_of(sorted_B: Floats, n: int) -> tuple[float, float, float]:
    """(mean, 10% and 90% quantile) of the best of n; P(best is the i-th smallest or below) = C(i, n) / C(B, n)."""
    total = len(sorted_B)
    below_B = np.zeros(total)
    below_B[total - 1] = 1.0
    for i in range(total - 1, 0, -1):  # C(i, n) / C(i + 1, n) = (i + 1 - n) / (i + 1)
        below_B[i - 1] = below_B[i] * max(i + 1 - n, 0) / (i + 1)
    at_B = np.diff(below_B, prepend=0.0)
    low, high = (sorted_B[min(int(np.searchsorted(below_B, q - 1e-12)), total - 1)] for q in (0.1, 0.9))
    return float(at_B @ sorted_B), float(low), float(high)
