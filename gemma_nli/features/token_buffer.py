"""Token states as they come out of the encoder, kept as far as a budget goes.

Shapes: n texts, B rows of a batch, T tokens, S tokens of all texts end to end, H hidden, M of all layers that a pass
gives side by side.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gemma_nli.features.request import FeatureRequest
from gemma_nli.features.token_states import TokenStates


def rows_within(lengths: np.ndarray, row_bytes: int, budget_bytes: int) -> np.ndarray:
    """(n,) which texts' token states fit a budget, the shortest first, so that most texts fit.

    Args:
        row_bytes: bytes of one token's states, of all layers that are kept.
    """
    order = np.argsort(lengths, kind="stable")
    fits = np.zeros(len(lengths), dtype=bool)
    fits[order] = np.cumsum(lengths[order].astype(np.int64)) * row_bytes <= budget_bytes
    return fits


class TokenStateBuffer:
    """Token states of those texts that fit the budget, written in place as batches come."""

    def __init__(self, lengths: np.ndarray, hidden: int, request: FeatureRequest, budget_bytes: int) -> None:
        parts, self.dtype, self.hidden = request.token_parts, request.dtype, hidden
        self.fits = rows_within(lengths, len(parts) * hidden * self.dtype.itemsize, budget_bytes)
        offsets = np.concatenate([[0], np.cumsum(np.where(self.fits, lengths, 0))]).astype(np.int64)
        self.flat = {part: torch.empty(int(offsets[-1]), hidden, dtype=self.dtype) for part in parts}
        self.at = request.token_places
        self.offsets = torch.from_numpy(offsets)

    def keep(self, rows_B: np.ndarray, h_BTM: Tensor, mask_BT: Tensor) -> None:
        fits_B = torch.from_numpy(self.fits[rows_B])
        if not fits_B.any():
            return
        mask_BT = mask_BT.cpu() & fits_B[:, None]
        place_BT = self.offsets[torch.from_numpy(rows_B)][:, None] + mask_BT.cumsum(1) - 1
        states_NM, places_N = h_BTM[mask_BT.to(h_BTM.device)], place_BT[mask_BT]
        for flat_SH, at in zip(self.flat.values(), self.at, strict=True):
            flat_SH[places_N] = states_NM[:, at * self.hidden : (at + 1) * self.hidden].to("cpu", self.dtype)

    @property
    def states(self) -> TokenStates:
        layers = {
            part: (flat_SH.view(torch.uint16) if self.dtype == torch.bfloat16 else flat_SH).numpy()
            for part, flat_SH in self.flat.items()
        }
        return TokenStates(layers, self.offsets.numpy(), str(self.dtype).removeprefix("torch."))
