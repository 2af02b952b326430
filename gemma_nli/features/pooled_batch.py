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
def pool_all(
    poolers: Sequence[Pooler], at: Sequence[int], layers: int, batch: Encoded, prompts: list[int] | None
) -> Tensor:
    """(B, P), each pooling of one of the layers whose states stand side by side.

    Args:
        at: the layer of each pooling, by its place among the `layers`.
        prompts: tokens that the prompt takes in each row of the Tokens, where a pooling leaves them out.
    """
    h_LBTH = [h_BTH.float().contiguous() for h_BTH in batch.h_BTH.chunk(layers, -1)]
    mask_BT, device = batch.mask_BT, batch.h_BTH.device
    prompt_B = None if prompts is None else torch.tensor([prompts[row] for row in batch.rows], device=device)
    parts = []
    for pool, place in zip(poolers, at, strict=True):
        h_BTH = h_LBTH[place]
        looks_past = pool.of_folder and prompt_B is not None
        parts.append(pool(h_BTH, mask_BT, prompt_B) if looks_past else pool(h_BTH, mask_BT))
    return torch.cat(parts, dim=1) if parts else torch.zeros(len(mask_BT), 0, device=device)
