"""One batch out of the encoder and the vectors of all views of it.

Shapes: B rows of a batch, T tokens, H hidden, P all views' widths together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gemma_nli.model.pooling import Pooler


class Encoded(NamedTuple):
    """One batch out of the encoder: which rows of its Tokens, their states, and the token slots that were padding."""

    rows: list[int]
    h_BTH: Tensor
    mask_BT: Tensor
    padded_slots: int
    slots: int


@torch.inference_mode()
def pool_all(poolers: Sequence[Pooler], batch: Encoded, prompts: list[int] | None) -> Tensor:
    """(B, P); `prompts`: tokens that the prompt takes in each row of the Tokens, where a pooling leaves them out."""
    h_BTH, mask_BT = batch.h_BTH.float(), batch.mask_BT
    prompt_B = None if prompts is None else torch.tensor([prompts[row] for row in batch.rows], device=h_BTH.device)
    parts = []
    for pool in poolers:
        looks_past = pool.of_folder and prompt_B is not None
        parts.append(pool(h_BTH, mask_BT, prompt_B) if looks_past else pool(h_BTH, mask_BT))
    return torch.cat(parts, dim=1)
