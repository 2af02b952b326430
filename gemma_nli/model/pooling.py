"""From token states to one vector: the registry of pooling strategies.

Shapes: K models trained together (folds), B rows, T tokens, H hidden. `mask` is 1 on real tokens, on whichever side the
padding is. Poolers without parameters take any leading dimensions; learned ones carry one set of parameters a model
and take `h_KBTH`. A row that is all padding gives zeros, whatever the strategy: NaN would poison its whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from gemma_nli.base.errors import ConfigError, did_you_mean


class Pooler(nn.Module):
    """One way to make a vector of a text; `num_models` copies of its parameters stand along the first dimension."""

    learned: ClassVar[bool] = False
    uses_k: ClassVar[bool] = False

    def __init__(self, hidden_size: int, k: int = 4, num_models: int = 1) -> None:
        super().__init__()
        self.hidden_size, self.k, self.num_models = hidden_size, k, num_models

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        raise TypeError("use a registered pooler")

    def reset(self, model: int, generator: torch.Generator) -> None:
        """Draw the initial parameters of one of the K models; nothing to draw where nothing is learned."""


POOLERS: dict[str, type[Pooler]] = {}


def pooler(name: str) -> Callable[[type[Pooler]], type[Pooler]]:
    """Register a Pooler; its name joins the choices in config/sections.py (a test holds the two equal)."""

    def register(kind: type[Pooler]) -> type[Pooler]:
        POOLERS[name] = kind
        return kind

    return register


def build_pooler(name: str, hidden_size: int, k: int = 4, num_models: int = 1) -> Pooler:
    """The pooler of that name; raises ConfigError with the nearest name where there is none."""
    if name not in POOLERS:
        raise ConfigError(f"model.pooling_strategy: unknown name '{name}'{did_you_mean(name, POOLERS)}")
    return POOLERS[name](hidden_size, k, num_models)


def view_name(strategy: str, k: int) -> str | None:
    """The name under which the feature store keeps a strategy's vectors (`first_k:4`); None for a learned one."""
    kind = POOLERS[strategy]
    if kind.learned:
        return None
    return f"{strategy}:{k}" if kind.uses_k else strategy


def _real_mean(h_BTH: Tensor, take_BT: Tensor) -> Tensor:
    count_B1 = take_BT.sum(-1, keepdim=True).clamp(min=1)
    return h_BTH.masked_fill(~take_BT.unsqueeze(-1), 0).sum(-2) / count_B1.to(h_BTH.dtype)


@pooler("mean")
class Mean(Pooler):
    """Average of the real tokens."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        return _real_mean(h_BTH, mask_BT.bool())


@pooler("max")
class Max(Pooler):
    """Largest value of each hidden unit over the real tokens."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        real_BT1 = mask_BT.bool().unsqueeze(-1)
        top_BH = h_BTH.masked_fill(~real_BT1, torch.finfo(h_BTH.dtype).min).amax(-2)
        return top_BH.masked_fill(~real_BT1.any(-2), 0)


@pooler("cls")
class Cls(Pooler):
    """First real token: BERT's [CLS], Gemma's <bos> (which in a causal model has seen nothing else)."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT = mask_BT.bool()
        return _real_mean(h_BTH, mask_BT & (mask_BT.cumsum(-1) == 1))


@pooler("last")
class Last(Pooler):
    """Last real token: in a causal model the only one that has seen the whole text."""

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT = mask_BT.bool()
        return _real_mean(h_BTH, mask_BT & (mask_BT.flip(-1).cumsum(-1).flip(-1) == 1))


@pooler("first_k")
class FirstK(Pooler):
    """Average of the first k real tokens, of all where there are fewer."""

    uses_k = True

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT = mask_BT.bool()
        return _real_mean(h_BTH, mask_BT & (mask_BT.cumsum(-1) <= self.k))


@pooler("last_k")
class LastK(Pooler):
    """Average of the last k real tokens, of all where there are fewer."""

    uses_k = True

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT = mask_BT.bool()
        return _real_mean(h_BTH, mask_BT & (mask_BT.flip(-1).cumsum(-1).flip(-1) <= self.k))


class LearnedPooler(Pooler):
    """Attention by a learned query: `look` gives it, the states are weighted by it, `mix` is what follows.

    A trainer that keeps states without padding does the weighing itself between `look` and `mix`.
    """

    learned = True

    def look(self) -> Tensor:
        """(K, H) what the states are multiplied by for their scores, scale included."""
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


@pooler("attention")
class Attention(LearnedPooler):
    """A learned query looks at the token states themselves (the query probe of the Gemma Encoder paper).

    Source: Suganthan et al. 2025, arXiv 2503.02656, section 3.
    """

    def __init__(self, hidden_size: int, k: int = 4, num_models: int = 1) -> None:
        super().__init__(hidden_size, k, num_models)
        self.query_KH = nn.Parameter(torch.zeros(num_models, hidden_size))

    def reset(self, model: int, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.query_KH[model].copy_(torch.randn(self.hidden_size, generator=generator) * 0.02)

    def look(self) -> Tensor:
        return self.query_KH / math.sqrt(self.hidden_size)


@pooler("attention_kv")
class AttentionKV(LearnedPooler):
    """A learned query with its own key and value maps (the key/value probe of the Gemma Encoder paper).

    Both maps are linear, so query . (W_k h) is (W_k' query) . h and the sum of a W_v h is W_v of the sum: the maps are
    applied once a text, not once a token. Equal to the textbook form to rounding, at the cost of `attention`.
    """

    def __init__(self, hidden_size: int, k: int = 4, num_models: int = 1) -> None:
        super().__init__(hidden_size, k, num_models)
        self.query_KH = nn.Parameter(torch.zeros(num_models, hidden_size))
        self.key_KHH = nn.Parameter(torch.zeros(num_models, hidden_size, hidden_size))
        self.value_KHH = nn.Parameter(torch.zeros(num_models, hidden_size, hidden_size))

    def reset(self, model: int, generator: torch.Generator) -> None:
        bound = math.sqrt(3.0 / self.hidden_size)
        with torch.no_grad():
            self.query_KH[model].copy_(torch.randn(self.hidden_size, generator=generator) * 0.02)
            for weight_KHH in (self.key_KHH, self.value_KHH):
                draw_HH = torch.rand(self.hidden_size, self.hidden_size, generator=generator)
                weight_KHH[model].copy_((draw_HH * 2 - 1) * bound)

    def look(self) -> Tensor:
        return torch.bmm(self.query_KH.unsqueeze(1), self.key_KHH).squeeze(1) / math.sqrt(self.hidden_size)

    def mix(self, x_KBH: Tensor) -> Tensor:
        return torch.bmm(x_KBH, self.value_KHH.transpose(1, 2).to(x_KBH.dtype))
