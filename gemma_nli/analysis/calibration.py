"""Whether a probability means what it says, and how much one temperature, learned on other folds, improves it.

Letters: N pairs, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from statsmodels.stats.proportion import proportion_confint

Floats = NDArray[np.float64]
BINS = 15


@dataclass(frozen=True)
class Bin:
    """Pairs whose probability falls in a stretch of [0, 1]: mean probability, share of positives with its interval."""

    stated: float
    share: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True)
class Calibration:
    """Before and after temperature scaling; errors are fractions in 0..1."""

    error: float
    scaled_error: float
    brier: float
    scaled_brier: float
    temperatures: tuple[float, ...]
    bins: tuple[Bin, ...]
    scaled_bins: tuple[Bin, ...]


def calibration_error(probability_N: Floats, label_N: NDArray[np.integer], bins: int = BINS) -> float:
    """How far stated confidence lies from accuracy, on average: a fraction in 0..1.

    Args:
        probability_N: of `matched`.
        bins: equal-width bins over [0, 1].
    Raises:
        ValueError: no rows, or lengths that differ.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2, for two classes by the positive's
    probability.
    """
    if not len(probability_N) or len(probability_N) != len(label_N):
        raise ValueError(f"{len(probability_N)} probabilities and {len(label_N)} labels")
    found = reliability(probability_N, label_N, bins)
    return float(sum(b.pairs * abs(b.stated - b.share) for b in found) / len(probability_N))


def reliability(probability_N: Floats, label_N: NDArray[np.integer], bins: int = BINS) -> tuple[Bin, ...]:
    """The bins that hold a pair; intervals at 95% by Wilson's method, pairs taken as independent."""
    index_N = np.minimum((np.asarray(probability_N, dtype=np.float64) * bins).astype(int), bins - 1)
    found = []
    for index in np.unique(index_N):
        here = index_N == index
        hits, pairs = int(label_N[here].sum()), int(here.sum())
        low, high = proportion_confint(hits, pairs, method="wilson")
        found.append(Bin(float(probability_N[here].mean()), hits / pairs, float(low), float(high), pairs))
    return tuple(found)


def fit_temperature(probability_N: Floats, label_N: NDArray[np.integer]) -> float:
    """The temperature by which logits are divided to make these labels most likely; 1 where they are of one class."""
    if len(np.unique(label_N)) < 2:
        return 1.0
    logit_N = _logit(probability_N)

    def loss(log_temperature: float) -> float:
        z_N = logit_N / np.exp(log_temperature)
        return float((np.logaddexp(0, z_N) - z_N * label_N).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 4), method="bounded").x))


def calibrate(
    probability_N: NDArray[np.floating], label_N: NDArray[np.integer], fold_N: NDArray[np.integer]
) -> Calibration:
    """Calibration out of fold: each fold is scaled by a temperature that the other folds' predictions chose."""
    exact_N = np.asarray(probability_N, dtype=np.float64)
    scaled_N, temperatures = np.empty_like(exact_N), []
    for fold in np.unique(fold_N):
        here = fold_N == fold
        temperatures.append(fit_temperature(exact_N[~here], label_N[~here]))
        scaled_N[here] = expit(_logit(exact_N[here]) / temperatures[-1])
    return Calibration(
        error=calibration_error(exact_N, label_N),
        scaled_error=calibration_error(scaled_N, label_N),
        brier=float(((exact_N - label_N) ** 2).mean()),
        scaled_brier=float(((scaled_N - label_N) ** 2).mean()),
        temperatures=tuple(temperatures),
        bins=reliability(exact_N, label_N),
        scaled_bins=reliability(scaled_N, label_N),
    )


def _logit(probability_N: Floats) -> Floats:
    return np.asarray(logit(np.clip(probability_N, 1e-7, 1 - 1e-7)))
