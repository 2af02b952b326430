"""What the best of some trials is worth: its own score less the luck of having been chosen.

The best of many trials is partly the luckiest. How lucky follows from the trials' scores and from the noise that other
posts would bring, which the bootstrap shows. Scores vary by noise and by merit; they are pulled together around their
mean until they vary as merit alone would have them, and the noise is drawn upon them again and again: what the best of
a draw owes to its noise, on average, is the luck taken off. Where scores differ no more than noise makes them, that is
what the luckiest of equals gains; where the best is far ahead, nothing.

Of a single trial the worth is its own score, whatever the metric. The interval is of the winner's own noise: luck is an
estimate, and a narrower one held less often than it said. The procedure was chosen by simulation
(`benchmarks/simulated_claims.py`; the table is in docs/LOG.md). Drawing the best back to the mean of its rivals (James
and Stein's) errs less where all trials are equal, but takes a trial that stands out for a lucky one: a value whose only
good trial equals the other's twelve was called worse in 25 to 33% of sweeps. Choosing on some posts and measuring on
the others, as Varma and Simon 2006 and Tsamardinos et al. 2018 have it, has twice the error.

Letters: T trials, S draws.
Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 10 (bias by the bootstrap); Louis 1984,
"Estimating a Population of Parameter Values Using Bayes and Empirical Bayes Methods" (means pulled together until they
vary as the true ones do).
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
    """`value`, and (S,) how far another sample of posts would move it; `rivals`: the trials that may have been chosen
    in its place, and itself.
    """

    value: float
    noise_S: Floats
    rivals: NDArray[np.int64]


def worth_of_best(score_T: Floats, noise_ST: Floats, best: int | None = None, student: float = 1.0) -> Worth:
    """The worth of the trial `best` (the one with the highest score).

    Args:
        noise_ST: each draw's score less the mean over draws, the same posts for all trials.
        student: by how much that is widened for the intervals of few posts: luck comes of the noise itself.
    """
    chosen = int(score_T.argmax()) if best is None else best
    rivals = _rivals(score_T, noise_ST, chosen)
    if len(rivals) == 1:
        return Worth(float(score_T[chosen]), noise_ST[:, chosen], rivals)
    score_R, noise_SR = score_T[rivals], noise_ST[:, rivals] / student
    mean, spread = float(score_R.mean()), float(score_R.var(ddof=1))
    noise = float(noise_SR.var(axis=1, ddof=1).mean())
    merited = max(0.0, 1 - noise / spread) if spread > 0 else 0.0
    merit_R = mean + np.sqrt(merited) * (score_R - mean)
    luckiest_S = (merit_R + noise_SR).argmax(axis=1)
    luck = float(noise_SR[np.arange(len(noise_SR)), luckiest_S].mean())
    return Worth(float(score_T[chosen]) - max(luck, 0.0), noise_ST[:, chosen], rivals)


def carried_luck(luck: float, moved_SR: Floats, chosen: int, again_S: Floats) -> float:
    """What new trainings of the best trial owe to the posts that favoured it when it was chosen.

    The posts are the same ones, so a part of the luck of the choice is in the new trainings too: as much as draws of
    posts that favour the trial over its rivals favour its new trainings.

    Args:
        luck: of the choice: its score less its worth.
        moved_SR: how far each draw moves the scores of the rivals; `chosen` is the best one's column.
        again_S: how far the same draws move the mean of the new trainings.
    """
    ahead_S = moved_SR[:, chosen] - moved_SR.mean(1)
    square = float(ahead_S @ ahead_S)
    return luck * float(np.clip(ahead_S @ again_S / square, 0.0, 1.0)) if square > 0 else 0.0


def _rivals(score_T: Floats, noise_ST: Floats, chosen: int) -> NDArray[np.int64]:
    """Those not far behind the chosen one, itself among them."""
    behind_ST = noise_ST[:, [chosen]] - noise_ST
    spread_T = behind_ST.std(0)
    standardized_ST = np.abs(behind_ST) / np.where(spread_T > 0, spread_T, np.inf)
    reach_T = REACH * float(np.quantile(standardized_ST.max(1), LEVEL)) * spread_T
    return np.flatnonzero(score_T[chosen] - score_T <= reach_T + 1e-12)
