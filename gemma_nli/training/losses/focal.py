"""Cross-entropy in which easy pairs count less."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gemma_nli.config.parts import SettingsRead
from gemma_nli.training.losses.pair_loss import PairBatch, loss


@loss("focal", reads=("training.focal_gamma",))
def focal(batch: PairBatch, training: SettingsRead) -> Tensor:
    """(1 - p_true) ** focal_gamma times cross-entropy.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", section 3.
    """
    loss_KB = F.binary_cross_entropy_with_logits(batch.logit_KB, batch.target_KB, reduction="none")
    towards_KB = torch.where(batch.label_KB > 0.5, batch.logit_KB, -batch.logit_KB)
    muted_KB = torch.exp(training.focal_gamma * F.logsigmoid(-towards_KB))  # 0 ** gamma would have a NaN gradient
    return loss_KB * muted_KB
