"""Token states of many texts end to end, of one layer or several, read in place.

Shapes: M texts, S tokens of all texts end to end, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenStates:
    """Token states of M texts end to end; a text whose states were not kept has an empty span.

    Args:
        layers: (S, H) of each layer by its part's name (`FeatureRequest.token_parts`), in the compute dtype; bfloat16
            as uint16 that carry its bits.
        offsets: (M + 1,) where each text begins.
        dtype: the compute dtype's name.
    """

    layers: Mapping[str, np.ndarray]
    offsets: np.ndarray
    dtype: str

    def tensors(self) -> list[Tensor]:
        """The flat states of each layer as tensors on the same memory."""
        flat = [as_tensor(flat_SH) for flat_SH in self.layers.values()]
        return [flat_SH.view(torch.bfloat16) if self.dtype == "bfloat16" else flat_SH for flat_SH in flat]

    def of(self, parts: Sequence[str]) -> TokenStates:
        """Some of the layers, in this order; the states themselves are shared."""
        return TokenStates({part: self.layers[part] for part in parts}, self.offsets, self.dtype)

    @classmethod
    def joined(cls, pieces: Sequence[TokenStates]) -> TokenStates:
        """Of some texts after those of others, the same layers of each."""
        counts = np.concatenate([np.diff(piece.offsets) for piece in pieces])
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        layers = {part: np.concatenate([piece.layers[part] for piece in pieces]) for part in pieces[0].layers}
        return cls(layers, offsets, pieces[0].dtype)


class _Borrowed:
    """Memory of a read-only array, declared writable: torch warns about every read-only array it gets."""

    def __init__(self, array: np.ndarray) -> None:
        self.owner = array
        self.__array_interface__: dict[str, Any] = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on an array's own memory, read-only memory included: writing to that ends the process."""
    if array.flags.writeable or not array.size:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    return torch.from_numpy(np.asarray(_Borrowed(np.ascontiguousarray(array))))
