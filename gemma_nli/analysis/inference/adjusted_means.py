"""The mean score at each value of a setting, the other settings held equal, and which values differ.

A linear model over the trials: one mean per value of the setting, and terms for the other settings. Where every
combination of the others stands beside each value, the adjusted means are the plain ones. Two sources of error are
counted: other posts (the bootstrap's draws) and the luck of a trial, which is what the model leaves over. The bootstrap
explains a part of that remainder, of which half is taken off: with little over to estimate it from, taking all of it
off claims too often, taking none too seldom (`benchmarks/simulated_claims.py`; the table is in docs/LOG.md).

Letters: T trials, L values, Q columns for the other settings, S draws.
Source: Searle, Speed and Milliken 1980, "Population Marginal Means in the Linear Model".
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.inference.simultaneous import Family
from gemma_nli.base.random_streams import TRIALS_LUCK

Floats = NDArray[np.float64]
ENOUGH = 2
"""Degrees of freedom that the remainder must have to say anything of the luck of a trial."""
_OFF = 0.5


@dataclass(frozen=True)
class AdjustedMeans:
    """`weight_LT`: each value's mean as a weighted sum of scores; `luck`: variance of a trial's own luck.

    `freedom`: degrees of freedom of the remainder; `explained`: the variance that posts explain of it.
    """

    weight_LT: Floats
    luck: float
    explained: float
    freedom: int

    def means(self, score_T: Floats) -> Floats:
        return self.weight_LT @ score_T

    def errors(self, noise_ST: Floats) -> Floats:
        """(L, L) standard error of each difference of two means, posts and luck together."""
        return np.sqrt(self._posts(noise_ST) + self.luck * self._spans())

    def add_to(self, family: Family, noise_ST: Floats, seed: int = 0) -> None:
        """Every two values of the setting join the family of differences that are judged together."""
        rng, draws = TRIALS_LUCK.generator(seed), len(noise_ST)
        noise_SL = noise_ST @ self.weight_LT.T
        luck_S = np.zeros(draws)
        if self.freedom >= ENOUGH:
            own_ST = rng.standard_normal((draws, self.weight_LT.shape[1]))
            noise_SL = noise_SL + np.sqrt(self.luck) * own_ST @ self.weight_LT.T
            scale_S = rng.chisquare(self.freedom, draws) / self.freedom
            luck_S = np.maximum(0.0, (self.luck + _OFF * self.explained) * scale_S - _OFF * self.explained)
        posts_LL, span_LL = self._posts(noise_ST), self._spans()
        for i, j in itertools.combinations(range(len(span_LL)), 2):
            error_S = np.sqrt(posts_LL[i, j] + luck_S * span_LL[i, j])
            real_S = error_S > 0
            family.add(np.divide(noise_SL[:, i] - noise_SL[:, j], error_S, out=np.zeros(draws), where=real_S))

    def _posts(self, noise_ST: Floats) -> Floats:
        noise_SL = noise_ST @ self.weight_LT.T
        cov_LL = np.cov(noise_SL, rowvar=False)
        own_L = np.diag(cov_LL)
        return np.maximum(own_L[:, None] + own_L - 2 * cov_LL, 0.0)

    def _spans(self) -> Floats:
        """(L, L) squared length of each difference's weights: what one unit of luck variance adds."""
        between_LLT = self.weight_LT[:, None] - self.weight_LT
        return np.asarray((between_LLT**2).sum(2))


def adjusted_means(
    level_T: NDArray[np.int64], other_TQ: Floats, score_T: Floats, noise_ST: Floats, balanced: bool
) -> AdjustedMeans:
    """Fit the model; columns of `other_TQ` are taken in order for as long as they add something.

    Where a column would leave fewer than `ENOUGH` degrees of freedom, a balanced design goes without an estimate of
    luck; any other goes without the column, its effect being in the remainder.

    Args:
        level_T: (T,) which of the setting's values each trial has, 0 to L - 1.
        balanced: every combination of the other settings stands beside each value.
    """
    trials, levels = len(level_T), int(level_T.max()) + 1
    columns_TX: NDArray[Any] = np.eye(levels)[level_T]
    for column_T in other_TQ.T:
        wider_TX: NDArray[Any] = np.column_stack([columns_TX, column_T - column_T.mean()])
        if (balanced or wider_TX.shape[1] <= trials - ENOUGH) and np.linalg.matrix_rank(wider_TX) == wider_TX.shape[1]:
            columns_TX = wider_TX
    inverse_XT: Floats = np.linalg.pinv(columns_TX)
    weight_LT = inverse_XT[:levels]
    freedom = trials - columns_TX.shape[1]
    if freedom < ENOUGH:
        return AdjustedMeans(weight_LT, 0.0, 0.0, freedom)
    left_T, left_ST = (values - (values @ columns_TX) @ inverse_XT for values in (score_T, noise_ST))
    remainder, explained = float((left_T**2).sum()) / freedom, float((left_ST**2).sum(1).mean()) / freedom
    return AdjustedMeans(weight_LT, max(0.0, remainder - _OFF * explained), explained, freedom)


def confounded(level_T: NDArray[np.int64], other_TQ: Floats) -> bool:
    """Whether the setting cannot be separated from the others: a column of theirs is a sum of its values' columns."""
    columns_TX = np.eye(int(level_T.max()) + 1)[level_T]
    for column_T in other_TQ.T:
        if np.ptp(column_T) > 0:
            left_T = column_T - columns_TX @ np.linalg.lstsq(columns_TX, column_T, rcond=None)[0]
            if float((left_T**2).sum()) < 1e-9 * float(((column_T - column_T.mean()) ** 2).sum()):
                return True
    return False
