"""A hidden layer before the linear map.

Shapes: K models, B rows, D input width, E hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gemma_nli.model.heads.classifier_head import Drop, Head, draw_uniform, head, logits_of, no_drop


@head("mlp", reads=("model.head_hidden",))
class Mlp(Head):
    """Dropout, a GELU layer of `model.head_hidden` units, dropout, and one linear map."""

    def __init__(self, in_features: int, hidden: int | None = None, num_models: int = 1) -> None:
        super().__init__(in_features, hidden, num_models)
        self.inner_KDE = nn.Parameter(torch.zeros(num_models, in_features, self.hidden))
        self.inner_bias_KE = nn.Parameter(torch.zeros(num_models, self.hidden))
        self.weight_KE = nn.Parameter(torch.zeros(num_models, self.hidden))
        self.bias_K = nn.Parameter(torch.zeros(num_models))

    def reset(self, model: int, generator: torch.Generator) -> None:
        draw_uniform(self.inner_KDE[model], self.in_features, generator)
        draw_uniform(self.weight_KE[model], self.hidden, generator)
        with torch.no_grad():
            self.inner_bias_KE[model] = 0.0
            self.bias_K[model] = 0.0

    def forward(self, x_KBD: Tensor, drop: Drop = no_drop) -> Tensor:
        z_KBE = F.gelu(torch.baddbmm(self.inner_bias_KE[:, None, :], drop(x_KBD, 0), self.inner_KDE))
        return logits_of(drop(z_KBE, 1), self.weight_KE, self.bias_K)

    def drop_widths(self) -> tuple[int, ...]:
        return (self.in_features, self.hidden)
