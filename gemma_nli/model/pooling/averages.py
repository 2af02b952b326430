"""Poolings that average some of the real tokens: all, the first, the last, the first or last k.

Shapes: B rows, T tokens, H hidden; any leading dimensions.
"""

from __future__ import annotations

from torch import Tensor

from gemma_nli.model.pooling.pooler import Pooler, pooler


def _real_mean(h_BTH: Tensor, take_BT: Tensor) -> Tensor:
    count_B1 = take_BT.sum(-1, keepdim=True).clamp(min=1)
    return h_BTH.masked_fill(~take_BT.unsqueeze(-1), 0).sum(-2) / count_B1.to(h_BTH.dtype)


@pooler("mean", reads=())
class Mean(Pooler):
    """Average of the real tokens."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        return _real_mean(h_BTH, mask_BT.bool())


@pooler("cls", reads=())
class Cls(Pooler):
    """First real token: BERT's [CLS], Gemma's <bos> (which in a causal model has seen nothing else)."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT = mask_BT.bool()
        return _real_mean(h_BTH, mask_BT & (mask_BT.cumsum(-1) == 1))


@pooler("last", reads=())
class Last(Pooler):
    """Last real token: in a causal model the only one that has seen the whole text."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT = mask_BT.bool()
        return _real_mean(h_BTH, mask_BT & (mask_BT.flip(-1).cumsum(-1).flip(-1) == 1))


@pooler("first_k", reads=("model.pooling_k",))
class FirstK(Pooler):
    """Average of the first k real tokens, of all if there are fewer."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT = mask_BT.bool()
        return _real_mean(h_BTH, mask_BT & (mask_BT.cumsum(-1) <= self.k))


@pooler("last_k", reads=("model.pooling_k",))
class LastK(Pooler):
    """Average of the last k real tokens, of all if there are fewer."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT = mask_BT.bool()
        return _real_mean(h_BTH, mask_BT & (mask_BT.flip(-1).cumsum(-1).flip(-1) <= self.k))
