"""Resampling posts with all their pairs: the sampling error of a score, and of the difference between two.

Pairs of one post are not independent (one text, nine criteria), so posts are drawn, not pairs. With folds, posts are
drawn within each fold and a score is the mean over folds, as `cv_aggregate/mean_*` is.

Letters: N pairs, P posts, S draws, T score columns (trials), K folds.
Source: Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8 (clusters drawn whole).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gemma_nli.analysis.inference.observed import ScoredPairs
from gemma_nli.base.metrics import CountedMetric, Counts, Metric, RankedMetric, measured_by
from gemma_nli.base.metrics.macro import running_mean
from gemma_nli.base.metrics.table import by_score
from gemma_nli.base.random_streams import BOOTSTRAP, DRAWN_ACROSS_FOLDS

Floats = NDArray[np.float64]
_CHUNK_CELLS = 4_000_000  # (draw, pair) cells held at a time


@dataclass(frozen=True)
class _Fold:
    """A fold's pairs (places in the arrays given), the post of each, and how often each post is drawn."""

    rows_R: NDArray[np.int64]
    post_R: NDArray[np.int64]
    weights_SP: NDArray[np.float32]
    labels_R: NDArray[np.bool_]


@dataclass(frozen=True)
class DrawnPosts:
    """How often each of G posts is drawn, (S, G): the same draws for evaluation pairs in different folds."""

    name_G: NDArray[Any]
    weight_SG: NDArray[np.float32]

    @classmethod
    def of(cls, posts: NDArray[Any], repetitions: int, seed: int = 0) -> DrawnPosts:
        """Draws of all the posts named, with no regard to folds."""
        name_G = np.unique(posts)
        rng = DRAWN_ACROSS_FOLDS.generator(seed)
        drawn_SG = rng.multinomial(len(name_G), np.full(len(name_G), 1 / len(name_G)), size=repetitions)
        return cls(name_G, drawn_SG.astype(np.float32))


class PostBootstrap:
    """Draws of posts, made once and used for every score that is compared: the draws are paired."""

    def __init__(
        self,
        posts: Sequence[Any] | NDArray[Any],
        labels: ArrayLike,
        repetitions: int = 2000,
        seed: int = 0,
        folds: ArrayLike | None = None,
        criteria: ArrayLike | None = None,
        drawn: DrawnPosts | None = None,
    ) -> None:
        """
        Args:
            posts: (N,) the post of each pair.
            labels: (N,) 0 or 1.
            folds: (N,) the fold of each pair; None: all pairs are one.
            criteria: (N,) the criterion of each pair, which macro metrics need.
            drawn: draws made already, of these posts among others; else posts are drawn within folds.
        Raises:
            ValueError: no pairs, lengths that differ, labels other than 0 and 1, or a post in two folds.
        """
        post_ids, labels_N = np.asarray(posts), np.asarray(labels)
        fold_N = np.zeros(len(labels_N), dtype=np.int64) if folds is None else np.asarray(folds)
        if not len(labels_N) or not len(post_ids) == len(labels_N) == len(fold_N):
            raise ValueError(f"{len(post_ids)} posts, {len(labels_N)} labels and {len(fold_N)} folds of pairs")
        if not np.isin(labels_N, (0, 1)).all():
            raise ValueError("labels must be 0 or 1")
        if repetitions < 1:
            raise ValueError(f"repetitions must be at least 1, got {repetitions}")
        name_P, post_N = np.unique(post_ids, return_inverse=True)
        self.labels_N = labels_N.astype(bool)
        self.scored = ScoredPairs(labels_N.astype(np.int8), fold_N, None if criteria is None else np.asarray(criteria))
        self.repetitions = repetitions if drawn is None else len(drawn.weight_SG)
        self.strata = len(np.unique(fold_N)) if drawn is None else 1
        self.folds: list[_Fold] = []
        self._of_post = np.full(post_N.max() + 1, -1)
        for index, fold in enumerate(np.unique(fold_N)):
            rows_R = np.flatnonzero(fold_N == fold)
            names, post_R = np.unique(post_N[rows_R], return_inverse=True)
            if (self._of_post[names] >= 0).any():
                raise ValueError("a post stands in two folds; posts must be kept whole")
            self._of_post[names] = index
            if drawn is None:
                rng = BOOTSTRAP.generator(seed, index)
                drawn_SP = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=repetitions)
                weights_SP = drawn_SP.astype(np.float32)
            else:
                weights_SP = drawn.weight_SG[:, np.searchsorted(drawn.name_G, name_P[names])]
            self.folds.append(_Fold(rows_R, post_R, weights_SP, self.labels_N[rows_R]))

    def observed(self, values_N: NDArray[Any], metric: str) -> float:
        """The score as it is: of decisions (N,) for a metric that counts them, of scores (N,) for one of ranks."""
        return float(self.scored.scores(np.asarray(values_N)[None], metric)[0])

    def widened(self, draws_S: Floats, center: float | Floats) -> Floats:
        """Draws of a difference spread for the number of posts: a bootstrap of few clusters is too narrow.

        Once by sqrt(P / (P - K)), what drawing within folds leaves out of the variance, and once by Student's quantile
        over the normal one (1.05 at 30 posts, 1.002 at 1,000), as that variance is an estimate.

        Source: Hesterberg 2015, "What Teachers Should Know About the Bootstrap", sections 3.2 (narrowness bias) and
        5.3 (expanded percentiles).
        """
        wider = np.sqrt(len(self._of_post) / self._freedom) * self.student
        return np.asarray(center + (draws_S - center) * wider)

    @property
    def student(self) -> float:
        """How much wider an interval is than the noise itself: Student's quantile over the normal one."""
        return float(stats.t.ppf(0.975, self._freedom) / stats.norm.ppf(0.975))

    @property
    def _freedom(self) -> int:
        return max(len(self._of_post) - self.strata, 1)

    def noise(self, drawn: Floats) -> Floats:
        """(S, ...) how far each draw moves a score from its mean over draws; 0 where a draw has no score."""
        real = ~np.isnan(drawn)
        mean = np.where(real, drawn, 0.0).sum(0) / np.maximum(real.sum(0), 1)
        return self.widened(np.where(real, drawn - mean, 0.0), 0.0)

    def draws(self, values_N: NDArray[Any], metric: str) -> Floats:
        """(S,) the score in each draw."""
        return self.many(values_N[:, None], metric)[:, 0]

    def many(self, values_NT: NDArray[Any], metric: str) -> Floats:
        """(S, T) the same of several columns; a draw in which every fold lacks a class has no AUC and is NaN."""
        measured = measured_by(metric)
        if isinstance(measured, Metric):
            scores = (_drawn_scores(fold, values_NT, measured) for fold in self.folds)
        else:
            scores = (self._within(cells, values_NT, measured.part) for cells in self._criteria())
        return running_mean(scores, (self.repetitions, values_NT.shape[1]))

    def by_fold(self, values_NT: NDArray[Any], metric: str) -> Floats:
        """(S, T, K) the scores of each fold in each draw, NaN without both classes; K is 1 for a mean over criteria."""
        measured = measured_by(metric)
        if not isinstance(measured, Metric):
            return self.many(values_NT, metric)[:, :, None]
        return np.stack([_drawn_scores(fold, values_NT, measured) for fold in self.folds], axis=2)

    def _criteria(self) -> Iterator[list[_Fold]]:
        """Of each criterion with enough support its pairs in each fold, and how often their posts were drawn."""
        for criterion in self.scored.averaged:
            cells = []
            for fold in self.folds:
                assert self.scored.criterion_N is not None
                here_R = self.scored.criterion_N[fold.rows_R] == criterion
                if here_R.any():
                    posts, post_R = np.unique(fold.post_R[here_R], return_inverse=True)
                    cells.append(_Fold(fold.rows_R[here_R], post_R, fold.weights_SP[:, posts], fold.labels_R[here_R]))
            yield cells

    def _within(self, cells: list[_Fold], values_NT: NDArray[Any], part: Metric) -> Floats:
        """(S, T) the scores within a criterion, as `within_criteria`; NaN in a draw that lacks a class."""
        if isinstance(part, CountedMetric):
            counted = [_counts(cell, values_NT[cell.rows_R]) for cell in cells]
            columns = zip(*((c.hit, c.named, c.real, c.every) for c in counted), strict=True)
            counts = Counts(*(np.sum(column, axis=0) for column in columns))
            both_ST = (counts.real > 0) & (counts.real < counts.every)
            return np.where(both_ST, part.of_counts(counts), np.nan)
        scores = (_both_classes(cell, _drawn_scores(cell, values_NT, part)) for cell in cells)
        return running_mean(scores, (self.repetitions, values_NT.shape[1]))


def _both_classes(cell: _Fold, score_ST: Floats) -> Floats:
    """NaN in the draws without a pair of each class."""
    positive_S, other_S = (
        (cell.weights_SP[:, cell.post_R[here]] > 0).any(axis=1) for here in (cell.labels_R, ~cell.labels_R)
    )
    return np.where(np.logical_and(positive_S, other_S)[:, None], score_ST, np.nan)


def _drawn_scores(fold: _Fold, values_NT: NDArray[Any], measured: Metric) -> Floats:
    """(S, T) one fold's scores."""
    if isinstance(measured, CountedMetric):
        return measured.of_counts(_counts(fold, values_NT[fold.rows_R]))
    assert isinstance(measured, RankedMetric), "the table holds no other kind"
    return _ranking(fold, values_NT[fold.rows_R], measured)


def _counts(fold: _Fold, chosen_RT: NDArray[Any]) -> Counts:
    """(S, T) counts of each post, summed with the draw's weights."""
    chosen_RT = chosen_RT.astype(bool)
    posts, labels_R1 = fold.weights_SP.shape[1], fold.labels_R[:, None]
    order_R = np.argsort(fold.post_R, kind="stable")
    starts_P = np.searchsorted(fold.post_R[order_R], np.arange(posts))

    def drawn(of_row: NDArray[np.bool_]) -> Floats:
        of_post = np.add.reduceat(of_row[order_R].astype(np.float32), starts_P, axis=0)
        return np.asarray(fold.weights_SP @ of_post, dtype=np.float64)  # whole numbers far below 2^24: exact in float32

    hit_ST, named_ST = drawn(chosen_RT & labels_R1), drawn(chosen_RT)
    real_ST, every_ST = (np.broadcast_to(drawn(each), hit_ST.shape) for each in (labels_R1, np.ones_like(labels_R1)))
    return Counts(hit_ST, named_ST, real_ST, every_ST)


def _ranking(fold: _Fold, scores_RT: NDArray[Any], measured: RankedMetric) -> Floats:
    """(S, T) scores of weighted pairs, a few draws at a time."""
    draws, columns = len(fold.weights_SP), scores_RT.shape[1]
    score_ST = np.empty((draws, columns))
    size = max(1, _CHUNK_CELLS // max(1, len(scores_RT)))
    for begin in range(0, draws, size):
        weights_SR = fold.weights_SP[begin : begin + size][:, fold.post_R]
        for column in range(columns):
            positive_SG, negative_SG = by_score(scores_RT[:, column], fold.labels_R, weights_SR)
            score_ST[begin : begin + size, column] = measured.of_weights(positive_SG, negative_SG)
    return score_ST
