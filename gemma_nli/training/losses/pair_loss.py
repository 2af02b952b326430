"""The losses a head can be trained with, on one logit per pair.

A loss is a function under `@loss(name, reads=...)` in a file of this folder.

Shapes: K folds, B rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gemma_nli.base.part_registry import Registry
from gemma_nli.config import TrainingConfig
from gemma_nli.config.parts import SettingsRead


@dataclass(frozen=True)
class PairBatch:
    """What a loss is computed from.

    Args:
        label_KB: 0 or 1.
        target_KB: the label, moved towards 0.5 by `training.label_smoothing`.
        positive_weight_K1: negatives per positive among each fold's training pairs.
    """

    logit_KB: Tensor
    label_KB: Tensor
    target_KB: Tensor
    positive_weight_K1: Tensor


LOSSES: Registry[Callable[[PairBatch, SettingsRead], Tensor]] = Registry("training.loss")
loss = LOSSES.part


def pair_losses(logit_KB: Tensor, label_KB: Tensor, training: TrainingConfig, positive_weight_K1: Tensor) -> Tensor:
    """(K, B) loss of each pair, in nats, by `training.loss`; `label_smoothing` moves the target towards 0.5."""
    target_KB = label_KB * (1 - training.label_smoothing) + 0.5 * training.label_smoothing
    batch = PairBatch(logit_KB, label_KB, target_KB, positive_weight_K1)
    return LOSSES[training.loss](batch, SettingsRead("training", training, LOSSES, training.loss))
