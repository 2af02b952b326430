"""Several differences judged together: intervals and p-values that hold for all of them at once, and for each other.

The largest standardized difference in each draw says how far the most extreme of them goes by luck. An interval leaves
zero out exactly where the p-value beside it is below one minus the level, and picking the best and the worst after the
fact is counted in.

Letters: A values compared, S draws.
Source: Hothorn, Bretz and Westfall 2008, "Simultaneous Inference in General Parametric Models" (max-t), with the
bootstrap's draws in place of a normal distribution.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gemma_nli.analysis.inference.significance import Difference

Floats = NDArray[np.float64]
POWER = 0.8
_ROUNDING = 1e-12


class Family:
    """Differences that are asked about together; every one is added before the first is judged."""

    def __init__(self, draws: int, level: float = 0.95) -> None:
        self.level = level
        self.size = 0
        self._largest_S = np.zeros(draws)

    def add(self, standardized_S: Floats) -> None:
        """(S,) a difference's draws around zero, each divided by its standard error."""
        self.size += 1
        np.maximum(self._largest_S, np.abs(standardized_S), out=self._largest_S)

    @property
    def critical(self) -> float:
        """So many standard errors to either side hold all differences at once."""
        return float(np.quantile(self._largest_S, self.level))

    def difference(self, score_a: float, score_b: float, error: float, method: str) -> Difference:
        """One of them, `error` its standard error; the p-value is adjusted for all."""
        value, reach = score_a - score_b, self.critical * error
        low, high = max(value - reach, -1.0), min(value + reach, 1.0)
        return Difference(value, low, high, self._p_value(value, error), self.level, score_a, score_b, method)

    def smallest_found(self, error: float) -> float:
        """The true difference that this family's test would find in 80% of samples of posts like this one."""
        return (self.critical + float(stats.norm.ppf(POWER))) * error

    def _p_value(self, value: float, error: float) -> float:
        if error <= 0:
            return 1.0 if abs(value) < _ROUNDING else 0.0
        beyond = int((self._largest_S >= abs(value) / error - _ROUNDING).sum())
        p_value = (beyond + 1) / (len(self._largest_S) + 1)
        if beyond == 0:  # so few draws cannot say how rare it is: then the normal tail does
            p_value = min(p_value, self.size * 2 * float(stats.norm.sf(abs(value) / error)))
        return min(1.0, p_value)


class AllPairs:
    """Every two of some values; `difference(i, j)` is the i-th less the j-th."""

    def __init__(self, values: Sequence[float], noise_SA: Floats, level: float = 0.95, method: str = "") -> None:
        self.values, self.method = list(values), method
        self.family = Family(len(noise_SA), level)
        self._errors: dict[tuple[int, int], float] = {}
        for i, j in itertools.combinations(range(len(self.values)), 2):
            noise_S = noise_SA[:, i] - noise_SA[:, j]
            error = float(noise_S.std())
            self._errors[i, j] = self._errors[j, i] = error
            if error > 0:
                self.family.add(noise_S / error)

    def difference(self, i: int, j: int) -> Difference:
        return self.family.difference(self.values[i], self.values[j], self._errors[i, j], self.method)

    def smallest_found(self, i: int, j: int) -> float:
        return self.family.smallest_found(self._errors[i, j])
