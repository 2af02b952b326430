"""Resampling posts with all their pairs: the sampling error of a score, and of the difference of two.

Pairs of one post are not independent (one text, nine criteria), so posts are drawn, not pairs. With folds, posts are
drawn within each fold and a score is the mean over folds, as `cv_aggregate/mean_*` is.

Letters: N pairs, P posts, S draws, T score columns (trials), K folds.
Source: Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8 (clusters drawn whole).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemma_nli.training.metrics import average_precision, decisions, roc_auc

Metric = Literal["f1", "accuracy", "precision", "recall", "auc", "ap"]
COUNTED = ("f1", "accuracy", "precision", "recall")
METRICS = (*COUNTED, "auc", "ap")
Floats = NDArray[np.float64]
_CHUNK_CELLS = 4_000_000  # (draw, pair) cells held at a time


@dataclass(frozen=True)
class _Fold:
    """A fold's pairs (places in the arrays given), the post of each, and how often each post is drawn."""

    rows_R: NDArray[np.int64]
    post_R: NDArray[np.int64]
    weights_SP: NDArray[np.float32]
    labels_R: NDArray[np.bool_]


class PostBootstrap:
    """Draws of posts, made once and used for every score that is compared: the draws are paired."""

    def __init__(
        self,
        posts: Sequence[Any] | NDArray[Any],
        labels: ArrayLike,
        repetitions: int = 2000,
        seed: int = 0,
        folds: ArrayLike | None = None,
    ) -> None:
        """
        Args:
            posts: (N,) the post of each pair.
            labels: (N,) 0 or 1.
            folds: (N,) the fold of each pair; None: all pairs are one.
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
        _, post_N = np.unique(post_ids, return_inverse=True)
        self.labels_N = labels_N.astype(bool)
        self.repetitions = repetitions
        self.folds: list[_Fold] = []
        self._of_post = np.full(post_N.max() + 1, -1)
        for index, fold in enumerate(np.unique(fold_N)):
            rows_R = np.flatnonzero(fold_N == fold)
            names, post_R = np.unique(post_N[rows_R], return_inverse=True)
            if (self._of_post[names] >= 0).any():
                raise ValueError("a post stands in two folds; posts must be kept whole")
            self._of_post[names] = index
            rng = np.random.default_rng([seed, index])
            drawn_SP = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=repetitions)
            self.folds.append(_Fold(rows_R, post_R, drawn_SP.astype(np.float32), self.labels_N[rows_R]))

    def observed(self, values_N: NDArray[Any], metric: Metric) -> float:
        """The score as it is: of decisions (N,) for a counted metric, of scores (N,) for auc."""
        return float(np.nanmean([_score(values_N[fold.rows_R], fold.labels_R, metric) for fold in self.folds]))

    def widened(self, draws_S: Floats, center: float | Floats) -> Floats:
        """Draws of a difference spread by sqrt(P / (P - K)): a bootstrap of few clusters is too narrow by that.

        Source: Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 3.2 (narrowness bias).
        """
        posts = len(self._of_post)
        return np.asarray(center + (draws_S - center) * np.sqrt(posts / max(posts - len(self.folds), 1)))

    def draws(self, values_N: NDArray[Any], metric: Metric, left_out: bool = False) -> Floats:
        """(S,) the score in each draw; `left_out`: of the posts that a draw left out instead."""
        return self.many(values_N[:, None], metric, left_out)[:, 0]

    def cut(self, repeats: int, parts: int, seed: int = 0) -> PostBootstrap:
        """In place of draws: each keeps all posts but one of `parts` parts of every fold, `repeats` times over.

        Repeat by repeat, part by part; a fold of fewer posts than parts has empty ones.
        """
        held = copy.copy(self)
        held.repetitions, held.folds = repeats * parts, []
        for index, fold in enumerate(self.folds):
            rng = np.random.default_rng([seed, index, parts])
            posts = fold.weights_SP.shape[1]
            part_RP = np.stack([rng.permutation(np.arange(posts) % parts) for _ in range(repeats)])
            kept_SP = (part_RP[:, None, :] != np.arange(parts)[:, None]).reshape(-1, posts).astype(np.float32)
            held.folds.append(dataclasses.replace(fold, weights_SP=kept_SP))
        return held

    def fractions(self, values_NT: NDArray[Any], metric: Metric, left_out: bool = False) -> list[tuple[Floats, Floats]]:
        """For each fold the (S, T) counts whose quotient a counted metric is; counts of several draws may be added."""
        return [_counts(fold, _weights(fold, left_out), values_NT[fold.rows_R], metric) for fold in self.folds]

    def many(self, values_NT: NDArray[Any], metric: Metric, left_out: bool = False) -> Floats:
        """(S, T) the same of several columns; a draw in which every fold lacks a class has no AUC and is NaN."""
        total_ST, used_ST = np.zeros((self.repetitions, values_NT.shape[1])), np.zeros((1, 1))
        for fold in self.folds:
            measure = _counted if metric in COUNTED else _ranking
            score_ST = measure(fold, _weights(fold, left_out), values_NT[fold.rows_R], metric)
            known_ST = ~np.isnan(score_ST)
            total_ST += np.where(known_ST, score_ST, 0.0)
            used_ST = used_ST + known_ST
        return np.asarray(np.divide(total_ST, used_ST, out=np.full(total_ST.shape, np.nan), where=used_ST > 0))


def _weights(fold: _Fold, left_out: bool) -> NDArray[np.float32]:
    return (fold.weights_SP == 0).astype(np.float32) if left_out else fold.weights_SP


def _score(values_R: NDArray[Any], labels_R: NDArray[np.bool_], metric: Metric) -> float:
    if metric in COUNTED:
        return float(decisions(values_R.astype(bool), labels_R.astype(np.int8))[metric])
    ranking = roc_auc if metric == "auc" else average_precision
    return float(ranking(np.asarray(values_R, dtype=np.float64)[None], labels_R.astype(np.int8))[0])


def _counted(fold: _Fold, weights_SP: NDArray[np.float32], chosen_RT: NDArray[Any], metric: Metric) -> Floats:
    """(S, T) 0 where there is nothing to divide by."""
    top_ST, bottom_ST = _counts(fold, weights_SP, chosen_RT, metric)
    return np.asarray(np.divide(top_ST, bottom_ST, out=np.zeros_like(top_ST), where=bottom_ST > 0))


def _counts(
    fold: _Fold, weights_SP: NDArray[np.float32], chosen_RT: NDArray[Any], metric: Metric
) -> tuple[Floats, Floats]:
    """(S, T) numerator and denominator, from true and false positives a post, summed with the draw's weights."""
    chosen_RT = chosen_RT.astype(bool)
    posts, labels_R1 = weights_SP.shape[1], fold.labels_R[:, None]
    order_R = np.argsort(fold.post_R, kind="stable")
    starts_P = np.searchsorted(fold.post_R[order_R], np.arange(posts))

    def drawn(of_row: NDArray[np.bool_]) -> Floats:
        of_post = np.add.reduceat(of_row[order_R].astype(np.float32), starts_P, axis=0)
        return np.asarray(weights_SP @ of_post, dtype=np.float64)  # whole numbers far below 2^24: exact in float32

    hit_ST, named_ST = drawn(chosen_RT & labels_R1), drawn(chosen_RT)
    real_S1, all_S1 = drawn(labels_R1), drawn(np.ones_like(labels_R1))
    tops_bottoms = {
        "f1": (2 * hit_ST, named_ST + real_S1),
        "precision": (hit_ST, named_ST),
        "recall": (hit_ST, np.broadcast_to(real_S1, hit_ST.shape)),
        "accuracy": (all_S1 - real_S1 - named_ST + 2 * hit_ST, np.broadcast_to(all_S1, hit_ST.shape)),
    }
    return tops_bottoms[metric]


def _ranking(fold: _Fold, weights_SP: NDArray[np.float32], scores_RT: NDArray[Any], metric: Metric) -> Floats:
    """(S, T) weighted areas under the ROC curve (ties counted half), or average precisions (ties taken as one step)."""
    draws, columns = len(weights_SP), scores_RT.shape[1]
    area_ST = np.empty((draws, columns))
    size = max(1, _CHUNK_CELLS // max(1, len(scores_RT)))
    for begin in range(0, draws, size):
        weights_SR = weights_SP[begin : begin + size][:, fold.post_R]
        for column in range(columns):
            positive_SG, negative_SG = _by_score(scores_RT[:, column], fold.labels_R, weights_SR)
            of_column = _weighted_auc if metric == "auc" else _weighted_ap
            area_ST[begin : begin + size, column] = of_column(positive_SG, negative_SG)
    return area_ST


def _by_score(
    scores_R: NDArray[Any], labels_R: NDArray[np.bool_], weights_SR: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(S, G) weights of positives and of negatives at each of the G distinct scores, lowest first."""
    order_R = np.argsort(scores_R, kind="stable")
    sorted_R, real_R = scores_R[order_R], labels_R[order_R]
    sorted_SR = weights_SR[:, order_R]
    if len(sorted_R) == len(np.unique(sorted_R)):
        return sorted_SR * real_R, sorted_SR * ~real_R
    starts_G = np.flatnonzero(np.r_[True, sorted_R[1:] != sorted_R[:-1]])
    positive_SG = np.add.reduceat(sorted_SR * real_R, starts_G, axis=1)
    return positive_SG, np.add.reduceat(sorted_SR * ~real_R, starts_G, axis=1)


def _weighted_auc(positive_SG: NDArray[np.float32], negative_SG: NDArray[np.float32]) -> Floats:
    """(S,) NaN where a class has no weight."""
    negatives_SG = negative_SG.cumsum(1, dtype=np.float64)
    below_SG = negatives_SG - negative_SG / 2
    area_S, pairs_S = (positive_SG * below_SG).sum(1), positive_SG.sum(1) * negatives_SG[:, -1]
    return np.asarray(np.divide(area_S, pairs_S, out=np.full(len(area_S), np.nan), where=pairs_S > 0))


def _weighted_ap(positive_SG: NDArray[np.float32], negative_SG: NDArray[np.float32]) -> Floats:
    """(S,) NaN without a positive."""
    hits_SG = positive_SG[:, ::-1].cumsum(1, dtype=np.float64)
    named_SG = hits_SG + negative_SG[:, ::-1].cumsum(1, dtype=np.float64)
    precision_SG = np.divide(hits_SG, named_SG, out=np.zeros_like(hits_SG), where=named_SG > 0)
    total_S = hits_SG[:, -1]
    sum_S = (precision_SG * positive_SG[:, ::-1]).sum(1)
    return np.asarray(np.divide(sum_S, total_S, out=np.full(len(total_S), np.nan), where=total_S > 0))
