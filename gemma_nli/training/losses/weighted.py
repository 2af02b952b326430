"""Cross-entropy in which matched pairs weigh as much as the others together."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from gemma_nli.config.parts import SettingsRead
from gemma_nli.training.losses.pair_loss import PairBatch, loss


@loss("weighted", reads=())
def weighted(batch: PairBatch, training: SettingsRead) -> Tensor:
    """A positive weighs negatives over positives of its fold's training pairs."""
    return F.binary_cross_entropy_with_logits(
        batch.logit_KB, batch.target_KB, reduction="none", pos_weight=batch.positive_weight_K1
    )
