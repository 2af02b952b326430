"""Rows of different lengths in batches with little padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST_FILL = 0.9
"""A row shorter than this share of its batch's width starts a new batch,"""
LEAST_SIZE = 1 / 8
"""unless the batch holds less than this share of the token budget: many tiny batches cost more than some padding."""


def token_batches(
    lengths: Sequence[int] | np.ndarray, batch_tokens: int, least_fill: float = LEAST_FILL
) -> list[list[int]]:
    """Rows in batches of at most `batch_tokens` slots (one row at least), longest first: too large fails early.

    Args:
        least_fill: 0 fills every batch, whatever the padding. So training and serving cut theirs: a row's bits hang on
            its batch's width.
    """
    lengths_N = np.maximum(np.asarray(lengths, dtype=np.int64), 1)
    batches: list[list[int]] = []
    width = 0
    for row in np.argsort(-lengths_N, kind="stable").tolist():
        slots = len(batches[-1]) * width if batches else 0
        sparse = lengths_N[row] < least_fill * width and slots >= LEAST_SIZE * batch_tokens
        if not batches or sparse or slots + width > batch_tokens:
            batches.append([])
            width = int(lengths_N[row])
        batches[-1].append(row)
    return batches
