"""Classifiers on the pooled vector: K of them side by side, one a fold, in one batched computation.

Shapes: K models, B rows, D input width, E hidden units. A head gives one logit a row; sigmoid of it is the probability
of `matched`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gemma_nli.base.errors import ConfigError, did_you_mean

Drop = Callable[[Tensor, int], Tensor]
"""(values, site) -> values with dropout. Site 0 is the head's input, site 1 its hidden layer."""


def no_drop(x: Tensor, site: int) -> Tensor:
    return x


class Head(nn.Module):
    def __init__(self, in_features: int, hidden: int = 256, num_models: int = 1) -> None:
        super().__init__()
        self.in_features, self.hidden, self.num_models = in_features, hidden, num_models

    def forward(self, x_KBD: Tensor, drop: Drop = no_drop) -> Tensor:
        raise TypeError("use a registered head")

    def reset(self, model: int, generator: torch.Generator) -> None:
        raise TypeError("use a registered head")

    def drop_widths(self) -> tuple[int, ...]:
        """Width of the values at each dropout site, so that a trainer can draw all masks of an epoch at once."""
        return (self.in_features,)


HEADS: dict[str, type[Head]] = {}


def head(name: str) -> Callable[[type[Head]], type[Head]]:
    """Register a Head; its name joins the choices of `model.head` in config/ (a test holds the two equal)."""

    def register(kind: type[Head]) -> type[Head]:
        HEADS[name] = kind
        return kind

    return register


def build_head(name: str, in_features: int, hidden: int = 256, num_models: int = 1) -> Head:
    """The head of that name; raises ConfigError with the nearest name where there is none."""
    if name not in HEADS:
        raise ConfigError(f"model.head: unknown name '{name}'{did_you_mean(name, HEADS)}")
    return HEADS[name](in_features, hidden, num_models)


def _uniform(weight: Tensor, fan_in: int, generator: torch.Generator) -> None:
    with torch.no_grad():
        weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) / math.sqrt(fan_in))


def _logits(x_KBD: Tensor, weight_KD: Tensor, bias_K: Tensor) -> Tensor:
    """w . x + b; the row vector stands first, which on a CPU is ten times faster than x times a column."""
    return torch.bmm(weight_KD.unsqueeze(1), x_KBD.transpose(1, 2)).squeeze(1) + bias_K.unsqueeze(1)


@head("linear")
class Linear(Head):
    """Dropout and one linear map."""

    def __init__(self, in_features: int, hidden: int = 256, num_models: int = 1) -> None:
        super().__init__(in_features, hidden, num_models)
        self.weight_KD = nn.Parameter(torch.zeros(num_models, in_features))
        self.bias_K = nn.Parameter(torch.zeros(num_models))

    def reset(self, model: int, generator: torch.Generator) -> None:
        _uniform(self.weight_KD[model], self.in_features, generator)
        with torch.no_grad():
            self.bias_K[model] = 0.0

    def forward(self, x_KBD: Tensor, drop: Drop = no_drop) -> Tensor:
        return _logits(drop(x_KBD, 0), self.weight_KD, self.bias_K)


@head("mlp")
class Mlp(Head):
    """Dropout, a GELU layer of `model.head_hidden` units, dropout, and one linear map."""

    def __init__(self, in_features: int, hidden: int = 256, num_models: int = 1) -> None:
        super().__init__(in_features, hidden, num_models)
        self.inner_KDE = nn.Parameter(torch.zeros(num_models, in_features, hidden))
        self.inner_bias_KE = nn.Parameter(torch.zeros(num_models, hidden))
        self.weight_KE = nn.Parameter(torch.zeros(num_models, hidden))
        self.bias_K = nn.Parameter(torch.zeros(num_models))

    def reset(self, model: int, generator: torch.Generator) -> None:
        _uniform(self.inner_KDE[model], self.in_features, generator)
        _uniform(self.weight_KE[model], self.hidden, generator)
        with torch.no_grad():
            self.inner_bias_KE[model] = 0.0
            self.bias_K[model] = 0.0

    def forward(self, x_KBD: Tensor, drop: Drop = no_drop) -> Tensor:
        z_KBE = F.gelu(torch.baddbmm(self.inner_bias_KE[:, None, :], drop(x_KBD, 0), self.inner_KDE))
        return _logits(drop(z_KBE, 1), self.weight_KE, self.bias_K)

    def drop_widths(self) -> tuple[int, ...]:
        return (self.in_features, self.hidden)


def combine(u_BH: Tensor, v_BH: Tensor) -> Tensor:
    """u, v, |u - v| and u * v side by side: what a classifier sees of two texts encoded alone.

    Source: Conneau et al. 2017, InferSent, section 3.1.
    """
    return torch.cat([u_BH, v_BH, (u_BH - v_BH).abs(), u_BH * v_BH], dim=-1)
