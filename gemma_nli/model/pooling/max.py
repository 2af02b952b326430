"""The largest value of each hidden unit.

Shapes: B rows, T tokens, H hidden; any leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gemma_nli.model.pooling.pooler import Pooler, pooler


@pooler("max", reads=())
class Max(Pooler):
    """Largest value of each hidden unit over the real tokens."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        real_BT1 = mask_BT.bool().unsqueeze(-1)
        top_BH = h_BTH.masked_fill(~real_BT1, torch.finfo(h_BTH.dtype).min).amax(-2)
        return top_BH.masked_fill(~real_BT1.any(-2), 0)
