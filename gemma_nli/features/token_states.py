"""Token states of many texts end to end, read in place.

Shapes: M texts, S tokens of all texts end to end, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenStates:
    """Token states of M texts end to end; a text whose states were not kept has an empty span.

    Args:
        flat_SH: in the compute dtype; bfloat16 as uint16 that carry its bits.
        offsets: (M + 1,) where each text begins.
        dtype: the compute dtype's name.
    """

    flat_SH: np.ndarray
    offsets: np.ndarray
    dtype: str

    def tensor(self) -> Tensor:
        """The flat states as a tensor on the same memory."""
        flat_SH = as_tensor(self.flat_SH)
        return flat_SH.view(torch.bfloat16) if self.dtype == "bfloat16" else flat_SH


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
