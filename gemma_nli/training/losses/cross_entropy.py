"""Plain cross-entropy."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from gemma_nli.config.parts import SettingsRead
from gemma_nli.training.losses.pair_loss import PairBatch, loss


@loss("cross_entropy", reads=())
def cross_entropy(batch: PairBatch, training: SettingsRead) -> Tensor:
    return F.binary_cross_entropy_with_logits(batch.logit_KB, batch.target_KB, reduction="none")
