from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gemma_nli.config import TrainingConfig
from gemma_nli.training.losses import pair_losses

LOGIT_KB = torch.tensor([[-3.0, -0.2, 0.0, 4.0], [2.0, -1.0, 0.5, -60.0]])
LABEL_KB = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]])
WEIGHT_K1 = torch.tensor([[3.0], [0.5]])


def losses(**settings) -> torch.Tensor:
    return pair_losses(LOGIT_KB, LABEL_KB, TrainingConfig(**settings), WEIGHT_K1)


def test_cross_entropy_is_minus_the_log_of_the_probability_of_the_label():
    p_KB = torch.sigmoid(LOGIT_KB.double())
    expected = -torch.log(torch.where(LABEL_KB > 0, p_KB, 1 - p_KB)).float()
    torch.testing.assert_close(losses(), expected)


def test_weighted_multiplies_the_loss_of_positives_alone_by_each_folds_weight():
    expected = torch.where(LABEL_KB > 0, losses() * WEIGHT_K1, losses())
    torch.testing.assert_close(losses(loss="weighted"), expected)


def test_focal_with_gamma_zero_is_cross_entropy():
    torch.testing.assert_close(losses(loss="focal", focal_gamma=0.0), losses())


def test_focal_follows_the_papers_formula():
    p_KB = torch.sigmoid(LOGIT_KB)
    p_true_KB = torch.where(LABEL_KB > 0, p_KB, 1 - p_KB)
    torch.testing.assert_close(losses(loss="focal", focal_gamma=2.0), (1 - p_true_KB) ** 2 * losses())


@pytest.mark.parametrize("loss", ["cross_entropy", "weighted", "focal"])
def test_label_smoothing_moves_the_target_towards_a_half(loss):
    target_KB = LABEL_KB * 0.8 + 0.1
    plain = F.binary_cross_entropy_with_logits(LOGIT_KB, target_KB, reduction="none")
    smoothed = losses(loss=loss, label_smoothing=0.2)
    if loss == "cross_entropy":
        torch.testing.assert_close(smoothed, plain)
    assert not torch.allclose(smoothed, losses(loss=loss))


@pytest.mark.parametrize("loss", ["cross_entropy", "weighted", "focal"])
def test_no_loss_or_gradient_overflows_on_a_huge_logit(loss):
    logit_KB = (LOGIT_KB * 1e6).requires_grad_()
    total = pair_losses(logit_KB, LABEL_KB, TrainingConfig(loss=loss, focal_gamma=0.5), WEIGHT_K1).sum()
    (gradient,) = torch.autograd.grad(total, logit_KB)
    assert torch.isfinite(total)
    assert torch.isfinite(gradient).all()
