"""Shuffled batches of rows of similar length: drawn again each epoch, with little padding, the same for the same
seed.
"""

from __future__ import annotations

import numpy as np

from gemma_nli.base.random_streams import LENGTH_GROUPED_BATCHES
from gemma_nli.training.fold import Rows

BATCHES_A_GROUP = 16


class LengthGroupedBatches:
    """A fold's rows in a new order each epoch; they depend on (seed, fold), the rows and their lengths alone.

    The shuffled rows are cut into groups of 16 batches, sorted by length inside a group, and the batches shuffled
    again: chance mixes pairs, and a batch's rows differ little in length. Each row comes once per epoch; one batch
    may be short. A batch's rows are ordered longest first, so that its micro-batches have similar lengths too.
    """

    def __init__(self, rows: Rows, lengths: Rows, batch_size: int, seed: int, fold: int) -> None:
        self.rows, self.lengths, self.batch_size = rows, lengths, batch_size
        self.steps = -(-len(rows) // batch_size)
        self._rng = LENGTH_GROUPED_BATCHES.generator(seed, fold)

    def epoch(self) -> list[Rows]:
        order = self._rng.permutation(len(self.rows))
        span = self.batch_size * BATCHES_A_GROUP
        batches = []
        for start in range(0, len(order), span):
            group = order[start : start + span]
            group = group[np.argsort(-self.lengths[group], kind="stable")]
            batches += [group[at : at + self.batch_size] for at in range(0, len(group), self.batch_size)]
        return [self.rows[batches[place]] for place in self._rng.permutation(len(batches))]
