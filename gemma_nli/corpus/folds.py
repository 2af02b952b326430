"""Folds by iterative stratification: each fold gets its share of every stratum, the rarest dealt out first.

Shape letters: P posts, C strata (a column each), K folds.
"""

from __future__ import annotations

import numpy as np


def assign_folds(labels_PC: np.ndarray, num_folds: int, seed: int, num_leading: int = 0) -> np.ndarray:
    """A fold 1..K for each post, sizes equal to within one post.

    The rarest stratum with undealt posts is dealt first, each of its posts to the fold that still wants most of
    that stratum, then to the smallest, then by lot. The first `num_leading` columns are dealt out before all others,
    so that with at least K posts in them no fold goes without. Posts in no stratum fill the folds up.

    Args:
        labels_PC: (P, C) bool, which strata a post is in.
        num_folds: K, at least 1.
        seed: any whole number from 0; the same seed gives the same folds under every version of numpy.
        num_leading: how many columns come first.
    Returns:
        (P,) int16.
    Source: Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", algorithm 1; the
    limit on the folds' sizes and the leading columns are ours.
    """
    labels_PC = np.asarray(labels_PC, dtype=bool)
    num_posts, num_strata = labels_PC.shape
    lots = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    order_P = lots.permutation(num_posts)
    dealer = _Dealer(labels_PC[order_P], num_folds, lots)
    for columns in (range(num_leading), range(num_leading, num_strata)):
        dealer.deal_strata(np.array(columns, dtype=np.int64))
    dealer.deal_rest()
    fold_P = np.empty(num_posts, dtype=np.int16)
    fold_P[order_P] = dealer.fold_P
    return fold_P


class _Dealer:
    """Posts in random order, the folds' sizes, and how many posts of each stratum each fold still wants."""

    def __init__(self, labels_PC: np.ndarray, num_folds: int, lots: np.random.RandomState) -> None:
        self.labels_PC = labels_PC
        self.fold_P = np.zeros(len(labels_PC), dtype=np.int16)  # 0: not dealt yet
        self.wanted_KC = np.tile(labels_PC.sum(0) / num_folds, (num_folds, 1))
        self.size_K = np.zeros(num_folds, dtype=np.int64)
        self.least, self.larger_folds = divmod(len(labels_PC), num_folds)
        self.lots = lots

    def deal_strata(self, columns: np.ndarray) -> None:
        while len(columns):
            undealt_C = self.labels_PC[self.fold_P == 0][:, columns].sum(0)
            columns, undealt_C = columns[undealt_C > 0], undealt_C[undealt_C > 0]
            if len(columns):
                column = columns[np.argmin(undealt_C)]
                for post in np.flatnonzero((self.fold_P == 0) & self.labels_PC[:, column]):
                    self._place(int(post), self.wanted_KC[:, column])

    def deal_rest(self) -> None:
        for post in np.flatnonzero(self.fold_P == 0):
            self._place(int(post), -self.size_K)

    def _place(self, post: int, wanted_K: np.ndarray) -> None:
        has_room_K = self.size_K < self.least
        if (self.size_K > self.least).sum() < self.larger_folds:
            has_room_K |= self.size_K == self.least
        folds = np.flatnonzero(has_room_K)
        folds = folds[wanted_K[folds] == wanted_K[folds].max()]
        folds = folds[self.size_K[folds] == self.size_K[folds].min()]
        fold = folds[self.lots.randint(len(folds))] if len(folds) > 1 else folds[0]
        self.fold_P[post] = fold + 1
        self.size_K[fold] += 1
        self.wanted_KC[fold] -= self.labels_PC[post]
