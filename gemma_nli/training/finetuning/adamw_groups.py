"""AdamW for a classifier whose encoder is trained: which weights decay, and each part's learning rate."""

from __future__ import annotations

import torch
from torch import nn

from gemma_nli.config import TrainingConfig
from gemma_nli.training.frozen.stacked_adamw import BETA1, BETA2, EPSILON
from gemma_nli.training.rate_schedules import rate_factors

_FUSED = ("cuda", "cpu", "mps")


class ScheduledAdamW:
    """torch's AdamW, fused if there is such a kernel, in groups: encoder and head, each with and without decay.

    Biases and norms do not decay. The encoder learns at `encoder_learning_rate`, by default the head's rate; both
    follow one schedule over `total_steps`.
    """

    def __init__(self, classifier: nn.Module, training: TrainingConfig, total_steps: int) -> None:
        head_rate = training.learning_rate
        encoder_rate = training.encoder_learning_rate or head_rate
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in classifier.named_parameters():
            if parameter.requires_grad:
                rate = encoder_rate if name.startswith("encoder.") else head_rate
                decay = training.weight_decay if decays(name, parameter) else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        self.parameters = [parameter for members in groups.values() for parameter in members]
        self.peaks = [rate for rate, _ in groups]
        self.factors = rate_factors(total_steps, training.warmup_ratio, training.schedule).tolist()
        self.adamw = torch.optim.AdamW(
            [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()],
            betas=(BETA1, BETA2),
            eps=EPSILON,
            fused=self.parameters[0].device.type in _FUSED,
        )

    def set_rates(self, step: int) -> None:
        """The learning rates of the next step, counted from 0; after the last step they stay."""
        factor = self.factors[min(step, len(self.factors) - 1)]
        for group, peak in zip(self.adamw.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def forget_gradients(self) -> None:
        self.adamw.zero_grad(set_to_none=True)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to a classifier's parameter: not to biases, nor to the encoder's norms (vectors)."""
    return "bias" not in name and not (name.startswith("encoder.") and parameter.ndim < 2)
