"""Token ids of some texts, and a batch's padded rows of them.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

PROMPT_TOKENS = "prompt_tokens"
"""A batch's (B,) numbers of first tokens that the pooling leaves out, where it leaves any out."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of each row, special tokens included, not padded; `types` if the encoder has segments (BERT).

    `prompts` are a row's first tokens that are its prompt's, where the pooling leaves those out.
    """

    ids: list[list[int]]
    types: list[list[int]] | None = None
    prompts: list[int] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def merged(cls, parts: Iterable[tuple[Sequence[int], Tokens]]) -> Tokens:
        """Parts that were tokenized apart, each with the rows of the whole that it holds; every row is in one part."""
        found = [(row, part, place) for rows, part in parts for place, row in enumerate(rows)]
        found.sort(key=lambda item: item[0])
        types = [part.types[place] for _, part, place in found if part.types is not None]
        prompts = [0 if part.prompts is None else part.prompts[place] for _, part, place in found]
        return cls(
            [part.ids[place] for _, part, place in found],
            types if len(types) == len(found) and found else None,
            prompts if any(part.prompts is not None for _, part, _ in found) else None,
        )

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) int64 tokens per row."""
        return np.fromiter(map(len, self.ids), dtype=np.int64, count=len(self.ids))


def fill(real_BT: np.ndarray, rows: Sequence[Sequence[int]], pad: int) -> np.ndarray:
    """(B, T) int64 of the rows' numbers where a batch is real, `pad` elsewhere."""
    filled_BT = np.full(real_BT.shape, pad, dtype=np.int64)
    filled_BT[real_BT] = np.fromiter((i for row in rows for i in row), dtype=np.int64, count=int(real_BT.sum()))
    return filled_BT
