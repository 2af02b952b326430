"""Folds by iterative stratification: each fold gets its share of every stratum, the rarest distributed first.

Shape letters: P posts, U units (a post, or a group of posts that stay together), C strata (one column each), K folds.
"""

from __future__ import annotations

import numpy as np

from gemma_nli.base.random_streams import FOLDS, SEALED_POSTS


def assign_folds(
    labels_PC: np.ndarray, num_folds: int, seed: int, num_leading: int = 0, group_P: np.ndarray | None = None
) -> np.ndarray:
    """A fold 1..K for each post, sizes equal to within one post (or as nearly as whole groups allow).

    The rarest stratum with undealt posts is dealt first, each of its posts to the fold that still needs most of
    that stratum, then to the smallest, then at random. The first `num_leading` columns are dealt before all others, so
    that with at least K posts in them every fold gets one. Posts in no stratum fill up the folds.

    Args:
        labels_PC: (P, C) bool, which strata a post is in.
        num_folds: K, at least 1.
        seed: any whole number from 0; the same seed gives the same folds under every version of numpy.
        num_leading: how many columns come first.
        group_P: (P,) posts of equal value go to one fold, the largest groups of a stratum first; None: each for itself.
    Returns:
        (P,) int16.
    Source: Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", algorithm 1; the
    limit on the folds' sizes, the leading columns and the groups are ours.
    """
    rng = np.random.RandomState(np.random.MT19937(FOLDS.sequence(seed)))
    return _assigned(labels_PC, np.full(num_folds, 1 / num_folds), rng, num_leading, group_P)


def draw_share(labels_PC: np.ndarray, share: float, seed: int, num_leading: int, group_P: np.ndarray) -> np.ndarray:
    """(P,) bool: a share of the posts, with its share of every stratum, drawn as a fold is (`assign_folds`).

    Args:
        share: in (0, 1); how many posts it is, is rounded, and whole groups may make it a few more or fewer.
    """
    rng = np.random.RandomState(np.random.MT19937(SEALED_POSTS.sequence(seed)))
    part = round(share * len(labels_PC)) / max(len(labels_PC), 1)
    return np.asarray(_assigned(labels_PC, np.array([part, 1 - part]), rng, num_leading, group_P) == 1)


def _assigned(
    labels_PC: np.ndarray,
    share_K: np.ndarray,
    rng: np.random.RandomState,
    num_leading: int,
    group_P: np.ndarray | None,
) -> np.ndarray:
    """(P,) int16: parts 1..K of these shares."""
    labels_PC = np.asarray(labels_PC, dtype=bool)
    num_posts, num_strata = labels_PC.shape
    # Units in the order of their first posts: without groups, the posts themselves.
    _, first_U, unit_P = np.unique(
        np.arange(num_posts) if group_P is None else group_P, return_index=True, return_inverse=True
    )
    order_U = np.argsort(first_U, kind="stable")
    unit_P = np.argsort(order_U, kind="stable")[unit_P]
    labels_UC = np.zeros((len(order_U), num_strata), dtype=np.int64)
    np.add.at(labels_UC, unit_P, labels_PC)
    size_U = np.bincount(unit_P, minlength=len(order_U))
    drawn_U = rng.permutation(len(order_U))
    assigner = _FoldAssigner(labels_UC[drawn_U], size_U[drawn_U], share_K, rng)
    for columns in (range(num_leading), range(num_leading, num_strata)):
        assigner.assign_strata(np.array(columns, dtype=np.int64))
    assigner.assign_rest()
    fold_U = np.empty(len(order_U), dtype=np.int16)
    fold_U[drawn_U] = assigner.fold_U
    return np.asarray(fold_U[unit_P])


class _FoldAssigner:
    """Units in random order, the folds' sizes in posts, and how many posts of each stratum each fold still wants."""

    def __init__(
        self, labels_UC: np.ndarray, size_U: np.ndarray, share_K: np.ndarray, rng: np.random.RandomState
    ) -> None:
        self.labels_UC, self.size_U = labels_UC, size_U
        self.fold_U = np.zeros(len(labels_UC), dtype=np.int16)  # 0: not dealt yet
        self.wanted_KC = share_K[:, None] * labels_UC.sum(0)
        self.size_K = np.zeros(len(share_K), dtype=np.int64)
        posts = int(size_U.sum())
        self.least_K = np.floor(posts * share_K + 1e-6).astype(np.int64)  # a share like 1 / 49 is rounded
        self.larger_folds = posts - int(self.least_K.sum())
        self.rng = rng

    def assign_strata(self, columns: np.ndarray) -> None:
        while len(columns):
            unassigned_C = self.labels_UC[self.fold_U == 0][:, columns].sum(0)
            columns, unassigned_C = columns[unassigned_C > 0], unassigned_C[unassigned_C > 0]
            if len(columns):
                column = columns[np.argmin(unassigned_C)]
                for unit in self._unassigned(self.labels_UC[:, column] > 0):
                    self._place(unit, self.wanted_KC[:, column])

    def assign_rest(self) -> None:
        for unit in self._unassigned(np.ones(len(self.fold_U), dtype=bool)):
            self._place(unit, self.least_K - self.size_K)

    def _unassigned(self, asked_U: np.ndarray) -> list[int]:
        """The largest first, else in their random order."""
        units = np.flatnonzero((self.fold_U == 0) & asked_U)
        ordered: list[int] = units[np.argsort(-self.size_U[units], kind="stable")].tolist()
        return ordered

    def _place(self, unit: int, wanted_K: np.ndarray) -> None:
        after_K = self.size_K + self.size_U[unit]
        has_room_K = after_K <= self.least_K
        if (self.size_K > self.least_K).sum() < self.larger_folds:
            has_room_K |= after_K == self.least_K + 1
        room_K = self.least_K - self.size_K
        if not has_room_K.any():  # a group larger than any gap
            has_room_K = room_K == room_K.max()
        folds = np.flatnonzero(has_room_K)
        folds = folds[wanted_K[folds] == wanted_K[folds].max()]
        folds = folds[room_K[folds] == room_K[folds].max()]
        fold = folds[self.rng.randint(len(folds))] if len(folds) > 1 else folds[0]
        self.fold_U[unit] = fold + 1
        self.size_K[fold] += self.size_U[unit]
        self.wanted_KC[fold] -= self.labels_UC[unit]
