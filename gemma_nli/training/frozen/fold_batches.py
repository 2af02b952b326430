"""Which pairs a fold sees at which step, and its dropout: drawn from the fold's own seed, whatever trains beside it.

Shapes: K models (folds, of one training seed or several), S steps, B rows per batch, W width at a dropout site.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma_nli.base.random_streams import FOLD_BATCHES, HEAD_DROPOUT

_DROPOUT_BYTES = 1 << 20  # random bits drawn at a time: few calls, and they stay in the cache


class FoldBatches:
    """Shuffled batches of K folds of unequal length, as dense (S, K, B) tensors per epoch.

    A fold with fewer rows ends its epoch with padding (weight 0) and, at worst, with steps in which it is idle.

    Args:
        rows: of each fold.
        drawn_by: (training seed, fold) of each.
    """

    def __init__(self, rows: list[NDArray[np.int64]], batch_size: int, drawn_by: Sequence[tuple[int, int]]) -> None:
        self.rows, self.batch_size = rows, batch_size
        self.steps = [-(-len(fold_rows) // batch_size) for fold_rows in rows]
        self.max_steps = max(self.steps)
        self.orders = [FOLD_BATCHES.generator(seed, fold) for seed, fold in drawn_by]

    def asleep(self, step: int, device: torch.device) -> Tensor | None:
        """Indices of the folds that have no batch left at this step of an epoch."""
        idle = [fold for fold, steps in enumerate(self.steps) if step >= steps]
        return torch.tensor(idle, device=device) if idle else None

    def epoch(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """rows_SKB (padding repeats a fold's first row) and weight_SKB: 1 / (pairs in the batch), 0 on padding."""
        shape = (self.max_steps, len(self.rows), self.batch_size)
        rows_SKB, weight_SKB = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        for fold, fold_rows in enumerate(self.rows):
            size = self.max_steps * self.batch_size
            padded = np.full(size, fold_rows[0], dtype=np.int64)
            padded[: len(fold_rows)] = self.orders[fold].permutation(fold_rows)
            real = (np.arange(size) < len(fold_rows)).reshape(self.max_steps, self.batch_size)
            rows_SKB[:, fold] = padded.reshape(self.max_steps, self.batch_size)
            weight_SKB[:, fold] = real / np.maximum(real.sum(1, keepdims=True), 1)
        return torch.from_numpy(rows_SKB).to(device), torch.from_numpy(weight_SKB).to(device)


class FoldDropout:
    """Dropout of K folds, its masks drawn several steps at a time from one stream per fold, site and epoch.

    A new stream each epoch: a fold that is idle at an epoch's end while longer ones continue starts the next as it
    would alone. The share dropped is rounded to 1/65,536, so that a mask costs two random bytes per value.
    """

    def __init__(
        self,
        share: float,
        widths: tuple[int, ...],
        batch_size: int,
        drawn_by: Sequence[tuple[int, int]],
        epoch_steps: int,
    ) -> None:
        self.cut = round(share * 65536)
        self.scale = 65536 / (65536 - self.cut) if self.cut < 65536 else 0.0
        self.shapes = [(batch_size, width) for width in widths]
        self.drawn_by, self.epoch_steps = list(drawn_by), epoch_steps
        self.ahead = max(1, _DROPOUT_BYTES // (2 * len(self.drawn_by) * batch_size * max(widths)))
        self.streams: list[list[np.random.Generator]] = []
        self.draws: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.epoch = self.step = 0

    def next_epoch(self) -> None:
        """Begin an epoch of at most `epoch_steps` steps."""
        self.epoch, self.step = self.epoch + 1, 0
        sites = range(len(self.shapes))
        self.streams = [
            [HEAD_DROPOUT.generator(seed, fold, site, self.epoch) for seed, fold in self.drawn_by] for site in sites
        ]

    def next_step(self, device: torch.device) -> None:
        """Make the masks of the epoch's next optimizer step."""
        if not self.cut:
            return
        if self.step % self.ahead == 0:
            steps = min(self.ahead, self.epoch_steps - self.step)
            self.draws = [self._draw(site, steps).to(device) for site in range(len(self.shapes))]
        if not self.masks:
            self.masks = [torch.empty(draw.shape[1:], device=device) for draw in self.draws]
        for draw_SKBW, mask_KBW in zip(self.draws, self.masks, strict=True):
            torch.ge(draw_SKBW[self.step % self.ahead], self.cut - 32768, out=mask_KBW)
        self.step += 1

    def _draw(self, site: int, steps: int) -> Tensor:
        batch, width = self.shapes[site]
        words = -(-batch * width // 4)  # whole words per step: what is drawn does not depend on how far ahead
        folds = []
        for stream in self.streams[site]:
            bits = stream.integers(0, 2**64 - 1, size=(steps, words), dtype=np.uint64, endpoint=True)
            folds.append(bits.view(np.int16)[:, : batch * width].reshape(steps, batch, width))
        return torch.from_numpy(np.stack(folds, axis=1))

    def __call__(self, x_KBW: Tensor, site: int) -> Tensor:
        if not self.cut:
            return x_KBW
        if x_KBW.requires_grad:
            return x_KBW * self.masks[site] * self.scale
        return x_KBW.mul_(self.masks[site]).mul_(self.scale)  # a gathered copy: nothing else uses it
