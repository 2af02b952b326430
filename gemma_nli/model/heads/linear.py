"""One linear map.

Shapes: K models, B rows, D input width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gemma_nli.model.heads.classifier_head import Drop, Head, draw_uniform, head, logits_of, no_drop


@head("linear", reads=())
class Linear(Head):
    """Dropout and one linear map."""

    def __init__(self, in_features: int, hidden: int | None = None, num_models: int = 1) -> None:
        super().__init__(in_features, hidden, num_models)
        self.weight_KD = nn.Parameter(torch.zeros(num_models, in_features))
        self.bias_K = nn.Parameter(torch.zeros(num_models))

    def reset(self, model: int, generator: torch.Generator) -> None:
        draw_uniform(self.weight_KD[model], self.in_features, generator)
        with torch.no_grad():
            self.bias_K[model] = 0.0

    def forward(self, x_KBD: Tensor, drop: Drop = no_drop) -> Tensor:
        return logits_of(drop(x_KBD, 0), self.weight_KD, self.bias_K)
