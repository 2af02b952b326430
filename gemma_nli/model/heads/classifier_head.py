"""Classifiers on the pooled vector: K of them side by side, one per fold, in one batched computation.

A head is a class under `@head(name, reads=...)` in a file of this folder.

Shapes: K models, B rows, D input width, E hidden units. A head gives one logit per row; sigmoid of it is the
probability of `matched`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gemma_nli.base.part_registry import Registry
from gemma_nli.config import ModelConfig

HIDDEN_SETTING = "model.head_hidden"
Drop = Callable[[Tensor, int], Tensor]
"""(values, site) -> values with dropout. Site 0 is the head's input, site 1 its hidden layer."""


def no_drop(x: Tensor, site: int) -> Tensor:
    return x


class Head(nn.Module):
    def __init__(self, in_features: int, hidden: int | None = None, num_models: int = 1) -> None:
        """
        Args:
            hidden: `model.head_hidden`; None where the head does not declare that it reads it.
        """
        super().__init__()
        self.in_features, self.num_models, self._hidden = in_features, num_models, hidden

    @property
    def hidden(self) -> int:
        if self._hidden is None:
            name = type(self).__name__
            raise TypeError(f"{name} reads head_hidden without saying so: @head(NAME, reads=('{HIDDEN_SETTING}',))")
        return self._hidden

    def forward(self, x_KBD: Tensor, drop: Drop = no_drop) -> Tensor:
        raise TypeError("use a registered head")

    def reset(self, model: int, generator: torch.Generator) -> None:
        raise TypeError("use a registered head")

    def drop_widths(self) -> tuple[int, ...]:
        """Width of the values at each dropout site, so that a trainer can draw all masks of an epoch at once."""
        return (self.in_features,)


HEADS: Registry[type[Head]] = Registry("model.head")
head = HEADS.part


def build_head(name: str, in_features: int, hidden: int = 256, num_models: int = 1) -> Head:
    """The head of that name; raises ConfigError with the nearest name if there is none."""
    kind = HEADS[name]
    return kind(in_features, hidden if HEADS.reads(name, HIDDEN_SETTING) else None, num_models)


def draw_uniform(weight: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Uniform within 1 / sqrt(fan_in), as torch's own Linear begins."""
    with torch.no_grad():
        weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) / math.sqrt(fan_in))


def logits_of(x_KBD: Tensor, weight_KD: Tensor, bias_K: Tensor) -> Tensor:
    """w . x + b; the row vector comes first, which on a CPU is ten times faster than x times a column."""
    return torch.bmm(weight_KD.unsqueeze(1), x_KBD.transpose(1, 2)).squeeze(1) + bias_K.unsqueeze(1)


def head_width(model: ModelConfig, pooled_width: int) -> int:
    """D of a head on pooled vectors of that width: a joint pair has one, texts encoded alone are combined."""
    return pooled_width if model.pair_encoding == "joint" else 4 * pooled_width


def combine(u_BH: Tensor, v_BH: Tensor) -> Tensor:
    """u, v, |u - v| and u * v side by side: the classifier's input for two texts encoded alone.

    Source: Conneau et al. 2017, InferSent, section 3.1.
    """
    return torch.cat([u_BH, v_BH, (u_BH - v_BH).abs(), u_BH * v_BH], dim=-1)
