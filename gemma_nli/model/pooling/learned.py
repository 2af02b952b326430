"""What poolings by a learned query share.

Shapes: K models, B rows, T tokens, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gemma_nli.model.pooling.pooler import Pooler


class LearnedPooler(Pooler):
    """Attention by a learned query: `look` gives it, the states are weighted by it, `mix` is applied afterwards.

    A trainer that keeps states without padding does the weighting itself between `look` and `mix`.
    """

    learned = True

    def look(self) -> Tensor:
        """(K, H) the vectors that the states are multiplied by for their scores, scale included."""
        raise TypeError("use a registered pooler")

    def mix(self, x_KBH: Tensor) -> Tensor:
        """From the weighted sums of states to the pooled vectors."""
        return x_KBH

    def forward(self, h_KBTH: Tensor, mask_KBT: Tensor) -> Tensor:
        real_KBT = mask_KBT.bool()
        score_KBT = torch.matmul(h_KBTH, self.look().to(h_KBTH.dtype)[:, None, :, None]).squeeze(-1)
        score_KBT = score_KBT.float().masked_fill(~real_KBT, torch.finfo(torch.float32).min)
        weight_KBT = score_KBT.softmax(-1).masked_fill(~real_KBT, 0).to(h_KBTH.dtype)
        real_KBTH = h_KBTH.masked_fill(~real_KBT.unsqueeze(-1), 0)
        return self.mix(torch.matmul(weight_KBT.unsqueeze(-2), real_KBTH).squeeze(-2))
