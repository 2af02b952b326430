"""From token states to one vector: what a pooling strategy is, and how one is found by its name.

A pooling is a class under `@pooler(name, reads=...)` in a file of this folder.

Shapes: K models trained together (folds), B rows, T tokens, H hidden. `mask` is 1 on real tokens, on whichever side the
padding is. Poolers without parameters take any leading dimensions; learned ones carry one set of parameters per model
and take `h_KBTH`. A row that is all padding gives zeros, whatever the strategy: NaN would spread to its whole batch.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from gemma_nli.base.part_registry import Registry
from gemma_nli.model.loading.sentence_modules import SentenceModules

K_SETTING = "model.pooling_k"


class Pooler(nn.Module):
    """One way to turn a text's token states into a vector; `num_models` copies of its parameters along the first
    dimension.
    """

    learned: ClassVar[bool] = False
    of_folder: ClassVar[bool] = False
    """Whether it is made of what the encoder's folder says (`modules`), which also decides how texts are read."""

    def __init__(self, hidden_size: int, k: int | None = None, num_models: int = 1) -> None:
        """
        Args:
            k: `model.pooling_k`; None where the pooling does not declare that it reads it.
        """
        super().__init__()
        self.hidden_size, self.num_models, self._k = hidden_size, num_models, k

    @property
    def k(self) -> int:
        if self._k is None:
            raise TypeError(f"{type(self).__name__} reads k without saying so: @pooler(NAME, reads=('{K_SETTING}',))")
        return self._k

    @property
    def width(self) -> int:
        """Numbers in a pooled vector: as many as a token state has, unless the pooling says otherwise."""
        return self.hidden_size

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        raise TypeError("use a registered pooler")

    def reset(self, model: int, generator: torch.Generator) -> None:
        """Draw the initial parameters of one of the K models; does nothing if nothing is learned."""


POOLERS: Registry[type[Pooler]] = Registry("model.pooling_strategy")
pooler = POOLERS.part


def uses_k(strategy: str) -> bool:
    """Whether its vectors depend on `model.pooling_k`."""
    return POOLERS.reads(strategy, K_SETTING)


def build_pooler(
    name: str, hidden_size: int, k: int = 4, num_models: int = 1, modules: SentenceModules | None = None
) -> Pooler:
    """The pooler of that name; raises ConfigError with the nearest name if there is none.

    Args:
        modules: what the encoder's folder says about its vectors, as `Encoder.sentence_modules`, for native pooling.
    """
    kind = POOLERS[name]
    if kind.of_folder:
        return kind(hidden_size, None, num_models, modules=modules)  # type: ignore[call-arg]
    return kind(hidden_size, k if uses_k(name) else None, num_models)


def view_name(strategy: str, k: int) -> str | None:
    """The name under which the feature store keeps a strategy's vectors (`first_k:4`); None for a learned one."""
    if POOLERS[strategy].learned:
        return None
    return f"{strategy}:{k}" if uses_k(strategy) else strategy
