"""Which pairs serve as negatives: each has a place among the negatives of its kind, and a ratio takes the first ones.

With `data.negatives: matched` each criterion of a fold is a kind, so that the criterion says nothing about the label;
with `pooled` all of a fold's negatives are one kind, as they were in version 1 of the semantics.

Shape letters: N all pairs, K folds, C criteria, B kinds of negatives (K * C matched, K pooled).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Negatives = Literal["matched", "pooled"]


def kinds_of(negatives: Negatives, fold_N: np.ndarray, criterion_N: np.ndarray, num_criteria: int) -> np.ndarray:
    """(N,) int64: the kind of negatives that each pair belongs to, from 0."""
    fold_from_0_N = fold_N.astype(np.int64) - 1
    return fold_from_0_N if negatives == "pooled" else fold_from_0_N * num_criteria + criterion_N


def rank_negatives(
    post_ids: Sequence[str],
    criterion_ids: Sequence[str],
    label_N: np.ndarray,
    source_N: np.ndarray,
    kind_N: np.ndarray,
    seed: int,
) -> NDArray[np.int32]:
    """(N,) place of each negative among those of its kind, annotated before sampled, else by a hash of seed and ids.

    Positives have -1. `source_N` sorts annotated negatives before sampled ones.
    """
    hash_N = np.array([_hash(seed, post, name) for post in post_ids for name in criterion_ids], dtype=np.uint64)
    rank_N = np.full(len(label_N), -1, dtype=np.int32)
    rows = np.flatnonzero(label_N != 1)
    rows = rows[np.lexsort((hash_N[rows], source_N[rows], kind_N[rows]))]
    first_of_kind_B = np.searchsorted(kind_N[rows], np.arange(int(kind_N.max()) + 1))
    rank_N[rows] = np.arange(len(rows)) - first_of_kind_B[kind_N[rows]]
    return rank_N


def quotas(
    ratio: float, positives_B: np.ndarray, available_B: np.ndarray, draw_B: np.ndarray, num_folds: int
) -> np.ndarray:
    """(B,) int64: how many negatives of each kind `ratio` asks for. A higher ratio never asks for fewer of any kind.

    The share of a negative that the ratio leaves over is rounded by `draw_B` in [0, 1): with .5 to the nearest, with a
    draw to the next whole number as often as the share says, so that rare criteria get the ratio too, over the folds.
    Each fold has at least one negative: of its kind with the most positives that has any.
    """
    quota_B = np.floor(float(ratio) * positives_B + draw_B).astype(np.int64)
    for kinds in np.arange(len(positives_B)).reshape(num_folds, -1):
        usable = kinds[(positives_B[kinds] > 0) & (available_B[kinds] > 0)]
        if len(usable):
            most = usable[np.argmax(positives_B[usable])]
            quota_B[most] = max(1, quota_B[most])
    return np.asarray(quota_B)


def draws_of(negatives: Negatives, criterion_ids: Sequence[str], num_folds: int, seed: int) -> NDArray[np.float64]:
    """(B,) in [0, 1), by criterion id, fold and seed alone; .5 for pooled negatives, which round to the nearest."""
    if negatives == "pooled":
        return np.full(num_folds, 0.5)
    folds = range(1, num_folds + 1)
    draws = [_hash(seed, f"fold {fold}", name) / 2.0**64 for fold in folds for name in criterion_ids]
    return np.asarray(np.minimum(np.array(draws), np.nextafter(1.0, 0.0)))


def _hash(seed: int, post_id: str, criterion_id: str) -> int:
    """64 bits that stay the same whatever numpy's version, the process's hash seed or the other posts."""
    name = f"{seed}\0{post_id}\0{criterion_id}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
