"""A learned query over the token states.

Shapes: K models, B rows, T tokens, H hidden.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gemma_nli.model.pooling.learned import LearnedPooler
from gemma_nli.model.pooling.pooler import pooler


@pooler("attention", reads=())
class Attention(LearnedPooler):
    """A learned query looks at the token states themselves (the query probe of the Gemma Encoder paper).

    Source: Suganthan et al. 2025, arXiv 2503.02656, section 3.
    """

    def __init__(self, hidden_size: int, k: int | None = None, num_models: int = 1) -> None:
        super().__init__(hidden_size, k, num_models)
        self.query_KH = nn.Parameter(torch.zeros(num_models, hidden_size))

    def reset(self, model: int, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.query_KH[model].copy_(torch.randn(self.hidden_size, generator=generator) * 0.02)

    def look(self) -> Tensor:
        return self.query_KH / math.sqrt(self.hidden_size)
