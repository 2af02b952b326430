"""What is done to a head's input before the head sees it: nothing, or one of two ways to give its numbers one scale.

An encoder's states may have a few dimensions a hundred times as large as the others (Gemma's have): one learning rate
does not suit both. A norm is a class under `@head_norm(name, reads=...)` in this file.

Shapes: K models, B rows, W pooled, D head input (W joint, 4W separate).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from gemma_nli.base.part_registry import Registry
from gemma_nli.model.heads import combine

LEAST_SPREAD, LEAST_OF_OTHERS = 1e-5, 1e-6
"""Of a number's own size, and of the others' median: less is rounding, as between states of a causal model's <bos>."""
_SMALLEST, _ROUNDING = 1e-12, 1e-6


class HeadNorm(nn.Module):
    """Does nothing; `fitted` parameters are set once, by `fit`, and never trained."""

    fitted: ClassVar[bool] = False

    def __init__(self, in_features: int, num_models: int = 1) -> None:
        super().__init__()
        self.in_features, self.num_models = in_features, num_models

    def of_text(self, x_BW: Tensor) -> Tensor:
        """Of a pooled vector, before two are combined; any leading dimensions."""
        return x_BW

    def forward(self, x_KBD: Tensor) -> Tensor:
        """Of the head's input."""
        return x_KBD

    def fit(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Learn from inputs of the head what `forward` needs.

        Args:
            chunks: x_KBD, and which of its rows count: real_KB.
        """


HEAD_NORMS: Registry[type[HeadNorm]] = Registry("model.head_norm")
head_norm = HEAD_NORMS.part


def build_head_norm(name: str, in_features: int, num_models: int = 1) -> HeadNorm:
    """The norm of that name; raises ConfigError with the nearest name if there is none."""
    return HEAD_NORMS[name](in_features, num_models)


def head_input(norm: HeadNorm, sides: Iterable[Tensor]) -> Tensor:
    """What `norm` is fitted to: a joint pair's vector, or two texts' combined; any leading dimensions."""
    return combine_sides([norm.of_text(side) for side in sides])


def combine_sides(sides: list[Tensor]) -> Tensor:
    return sides[0] if len(sides) == 1 else combine(sides[0], sides[1])


@head_norm("none", reads=())
class NoNorm(HeadNorm):
    """The vectors as they are."""


@head_norm("layernorm", reads=())
class LayerNorm(HeadNorm):
    """Each text's vector to mean 0 and spread 1 over its own numbers, before two are combined. Nothing is learned."""

    def of_text(self, x_BW: Tensor) -> Tensor:
        centred_BW = x_BW - x_BW.mean(-1, keepdim=True)
        least_B1 = (_ROUNDING * x_BW.abs().amax(-1, keepdim=True)).clamp(min=_SMALLEST)
        return centred_BW / torch.maximum(centred_BW.square().mean(-1, keepdim=True).sqrt(), least_B1)


@head_norm("standardize", reads=())
class Standardize(HeadNorm):
    """Each number of the input to mean 0 and spread 1 over the fold's own training pairs.

    They are measured once, before the first step: of an encoder or pooling that is trained, as it is at the start. A
    number that the training pairs all share says nothing, and is left out of what the head sees.
    """

    fitted = True

    def __init__(self, in_features: int, num_models: int = 1) -> None:
        super().__init__(in_features, num_models)
        self.mean_KD = nn.Parameter(torch.zeros(num_models, in_features), requires_grad=False)
        self.scale_KD = nn.Parameter(torch.ones(num_models, in_features), requires_grad=False)

    def forward(self, x_KBD: Tensor) -> Tensor:
        return (x_KBD - self.mean_KD.unsqueeze(1)) * self.scale_KD.unsqueeze(1)

    @torch.no_grad()
    def fit(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> None:
        count_K1 = torch.zeros(self.num_models, 1, dtype=torch.float64)
        sum_KD, square_KD = torch.zeros(2, self.num_models, self.in_features, dtype=torch.float64).unbind()
        for x_KBD, real_KB in chunks:
            real_KB1 = real_KB.cpu().double().unsqueeze(-1)
            kept_KBD = x_KBD.cpu().double() * real_KB1
            count_K1 += real_KB1.sum(1)
            sum_KD += kept_KBD.sum(1)
            square_KD += kept_KBD.square().sum(1)
        mean_KD, square_KD = sum_KD / count_K1, square_KD / count_K1
        spread_KD, size_KD = (square_KD - mean_KD.square()).clamp(min=0).sqrt(), square_KD.sqrt()
        others_K1 = LEAST_OF_OTHERS * size_KD.median(1, keepdim=True).values
        least_KD = torch.maximum(LEAST_SPREAD * size_KD, others_K1)
        varies_KD = spread_KD > least_KD.clamp(min=_SMALLEST)
        self.mean_KD.copy_(mean_KD)
        self.scale_KD.copy_(torch.where(varies_KD, 1 / spread_KD, 0.0))
