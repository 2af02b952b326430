"""The losses a head can be trained with, on one logit a pair.

Shapes: K folds, B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gemma_nli.config import TrainingConfig


def pair_losses(logit_KB: Tensor, label_KB: Tensor, training: TrainingConfig, positive_weight_K1: Tensor) -> Tensor:
    """(K, B) loss of each pair, in nats.

    cross_entropy: plain; weighted: positives weigh `positive_weight_K1` (negatives over positives of the training
    pairs); focal: (1 - p_true) ** focal_gamma times cross-entropy. label_smoothing moves the target towards 0.5.

    Source of focal: Lin et al. 2017, "Focal Loss for Dense Object Detection", section 3.
    """
    target_KB = label_KB * (1 - training.label_smoothing) + 0.5 * training.label_smoothing
    if training.loss == "weighted":
        return F.binary_cross_entropy_with_logits(logit_KB, target_KB, reduction="none", pos_weight=positive_weight_K1)
    loss_KB = F.binary_cross_entropy_with_logits(logit_KB, target_KB, reduction="none")
    if training.loss == "focal":
        towards_KB = torch.where(label_KB > 0.5, logit_KB, -logit_KB)
        muted_KB = torch.exp(training.focal_gamma * F.logsigmoid(-towards_KB))  # 0 ** gamma would have a NaN gradient
        loss_KB = loss_KB * muted_KB
    return loss_KB
