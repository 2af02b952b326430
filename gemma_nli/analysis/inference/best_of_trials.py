"""What the best of some trials is worth: its own score, drawn back to the mean of those it stands among.

The best of many trials is partly the luckiest. How much of its lead is luck follows from two variances: of the trials'
scores as they are, and of the noise that other posts would bring, which the bootstrap shows. Where the scores differ no
more than noise alone makes them, the best is worth the mean; where they differ much more, its own score.

Of a single trial the worth is its own score, whatever the metric. The procedure was chosen by simulation
(`benchmarks/simulated_claims.py`; the table is in docs/LOG.md): choosing on some posts and measuring on the others, as
Varma and Simon 2006 and Tsamardinos et al. 2018 have it, has twice the error.

Letters: T trials, S draws.
Source: Morris 1983, "Parametric Empirical Bayes Inference: Theory and Applications"; Efron and Morris 1975, "Data
Analysis Using Stein's Estimator and its Generalizations".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
REACH = 2.0
"""A trial further behind than so many simultaneous 95% reaches is no rival: a few that failed say nothing of luck."""
LEVEL = 0.95


@dataclass(frozen=True)
class Worth:
    """`value`, and (S,) how far another sample of posts would move it; `own`: 1 where the best keeps its own score, 0
    where it is worth the mean of its rivals.
    """

    value: float
    noise_S: Floats
    own: float


def worth_of_best(score_T: Floats, noise_ST: Floats, best: int | None = None) -> Worth:
    """The worth of the trial `best` (the one with the highest score).

    Args:
        noise_ST: each draw's score less the mean over draws, the same posts for all trials.
    """
    chosen = int(score_T.argmax()) if best is None else best
    rivals = _rivals(score_T, noise_ST, chosen)
    if len(rivals) == 1:
        return Worth(float(score_T[chosen]), noise_ST[:, chosen], 1.0)
    mean, spread = float(score_T[rivals].mean()), float(score_T[rivals].var(ddof=1))
    mean_S = noise_ST[:, rivals].mean(1)
    noise = float(((noise_ST[:, rivals] - mean_S[:, None]) ** 2).sum(1).mean()) / (len(rivals) - 1)
    own = max(0.0, 1 - noise / spread) if spread > 0 else 0.0
    ahead = float(score_T[chosen]) - mean
    # `own` is an estimate itself: Morris's second term
    unsure = (1 - own) ** 2 * ahead**2 / ((len(rivals) - 1) * noise) if noise > 0 else 0.0
    kept = np.sqrt(min(1.0, own + unsure))
    return Worth(mean + own * ahead, mean_S + kept * (noise_ST[:, chosen] - mean_S), own)


def _rivals(score_T: Floats, noise_ST: Floats, chosen: int) -> NDArray[np.int64]:
    """Those not far behind the chosen one, itself among them."""
    behind_ST = noise_ST[:, [chosen]] - noise_ST
    spread_T = behind_ST.std(0)
    standardized_ST = np.abs(behind_ST) / np.where(spread_T > 0, spread_T, np.inf)
    reach_T = REACH * float(np.quantile(standardized_ST.max(1), LEVEL)) * spread_T
    return np.flatnonzero(score_T[chosen] - score_T <= reach_T + 1e-12)
