"""A learned query with key and value maps of its own.

Shapes: K models, B rows, T tokens, H hidden.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gemma_nli.model.pooling.learned import LearnedPooler
from gemma_nli.model.pooling.pooler import pooler


@pooler("attention_kv", reads=())
class AttentionKV(LearnedPooler):
    """A learned query with its own key and value maps (the key/value probe of the Gemma Encoder paper).

    Both maps are linear, so query . (W_k h) is (W_k' query) . h and the sum of a W_v h is W_v of the sum: the maps are
    applied once per text, not once per token. Equal to the textbook form to rounding, at the cost of `attention`.
    """

    def __init__(self, hidden_size: int, k: int | None = None, num_models: int = 1) -> None:
        super().__init__(hidden_size, k, num_models)
        self.query_KH = nn.Parameter(torch.zeros(num_models, hidden_size))
        self.key_KHH = nn.Parameter(torch.zeros(num_models, hidden_size, hidden_size))
        self.value_KHH = nn.Parameter(torch.zeros(num_models, hidden_size, hidden_size))

    def reset(self, model: int, generator: torch.Generator) -> None:
        bound = math.sqrt(3.0 / self.hidden_size)
        with torch.no_grad():
            self.query_KH[model].copy_(torch.randn(self.hidden_size, generator=generator) * 0.02)
            for weight_KHH in (self.key_KHH, self.value_KHH):
                draw_HH = torch.rand(self.hidden_size, self.hidden_size, generator=generator)
                weight_KHH[model].copy_((draw_HH * 2 - 1) * bound)

    def look(self) -> Tensor:
        return torch.bmm(self.query_KH.unsqueeze(1), self.key_KHH).squeeze(1) / math.sqrt(self.hidden_size)

    def mix(self, x_KBH: Tensor) -> Tensor:
        return torch.bmm(x_KBH, self.value_KHH.transpose(1, 2).to(x_KBH.dtype))
