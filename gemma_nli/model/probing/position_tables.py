"""Which table of learned positions an encoder reads, found by observing a pass: names and sizes of tables are
misleading.

OPT keeps 130 rows for 128 positions, RoBERTa 514 for 512; tables have different names in each model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Lookups(TorchFunctionMode):
    """Records what embedding tables are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.embedding:
            indices, table = (*args, *kwargs.values())[:2]
            self.seen.append((indices.detach().flatten().cpu(), table.shape[0]))
        return func(*args, **kwargs)


def position_table(run: Callable[[], Any], length: int) -> tuple[int, int] | None:
    """(row of the first position, rows) of the smallest table that `run` reads in order; None if it reads none.

    Args:
        run: passes one text of `length` tokens without padding, whose ids do not count up.
    """
    with _Lookups() as lookups:
        run()
    steps = torch.arange(length)
    found = [
        (int(rows[0]), size)
        for rows, size in lookups.seen
        if len(rows) == length and torch.equal(rows - rows[0], steps.to(rows.dtype))
    ]
    return min(found, key=lambda table: table[1] - table[0], default=None)
