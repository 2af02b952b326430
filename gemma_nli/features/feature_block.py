"""Features as a trial uses them: pooled vectors and token states of M texts, and each text's row.

Shapes: M texts of the block, B rows of a batch, T tokens, S tokens of all texts end to end, H hidden, D of all layers
side by side, W a view's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gemma_nli.base.errors import FeatureError
from gemma_nli.features.request import FeatureRequest, digest_list, is_token_part, text_digests
from gemma_nli.features.token_states import TokenStates, as_tensor


class StateSource(Protocol):
    """Token states computed on demand, in float32, right-padded with zeros."""

    def states(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]: ...


@dataclass
class FeatureBlock:
    """Views and token states that trials index by row; all arrays may be read-only and shared between processes.

    Args:
        digests: (M, 32) content address of each text.
        lengths: (M,) tokens of each text.
        hidden_size: H of the token states.
        views: pooled vectors, (M, W) float32 each.
        tokens: token states, as far as they were kept.
        request: the texts, needed to recompute token states that were not kept; `token_batch` gives its layers.
    """

    digests: np.ndarray
    lengths: np.ndarray
    hidden_size: int
    views: dict[str, np.ndarray]
    tokens: TokenStates | None = None
    request: FeatureRequest | None = None
    _rows: dict[bytes, int] = field(default_factory=dict, repr=False)
    _flat: list[Tensor] | None = field(default=None, repr=False)
    _source: StateSource | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.digests)

    def positions(self, premises: Sequence[str], hypotheses: Sequence[str] | None = None) -> np.ndarray:
        """Which row of the block each text (or pair) is: (n,) int64.

        Raises:
            FeatureError: a text that is not in the block's request.
        """
        return self.rows_of(text_digests(premises, hypotheses))

    def rows_of(self, digests: Sequence[bytes]) -> np.ndarray:
        """`positions` for texts whose digests are known (`FeatureRequest.digests`)."""
        known = self._known_rows
        rows = np.fromiter((known.get(digest, -1) for digest in digests), np.int64, len(digests))
        absent = int((rows < 0).sum())
        if absent:
            raise FeatureError(
                f"features: {absent} of {len(rows)} texts were never encoded; include them in the request."
            )
        return rows

    @property
    def _known_rows(self) -> dict[bytes, int]:
        if not self._rows:
            self._rows = {digest: row for row, digest in enumerate(digest_list(self.digests))}
        return self._rows

    def view(self, name: str) -> Tensor:
        """A view's vectors (M, W) as a tensor on the same memory; do not write to it."""
        if name not in self.views:
            raise FeatureError(f"features: no view '{name}' in this block; it has {', '.join(self.views) or 'none'}.")
        return as_tensor(self.views[name])

    def asked_by(self, request: FeatureRequest) -> FeatureBlock:
        """The same features for another request of this key, whose layers' token states it gives."""
        tokens = self.tokens.of(request.token_parts) if self.tokens is not None and request.with_tokens else None
        return FeatureBlock(
            self.digests, self.lengths, self.hidden_size, self.views, tokens, request, _rows=self._known_rows
        )

    @property
    def num_layers(self) -> int:
        """Whose token states `token_batch` gives."""
        if self.request is not None and self.request.with_tokens:
            return len(self.request.token_layers)
        return 1 if self.tokens is None else len(self.tokens.layers)

    def token_batch(self, rows: Sequence[int] | np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """Token states of some texts: h_BTD float32, right-padded with zeros, and mask_BT (bool).

        Kept states are read, the others are computed; the numbers agree up to rounding.
        """
        rows_B = np.asarray(rows, dtype=np.int64)
        lengths_B = self.lengths[rows_B].astype(np.int64)
        steps_T = np.arange(int(lengths_B.max(initial=0)))
        mask_BT = steps_T[None, :] < lengths_B[:, None]
        h_BTD = torch.zeros(*mask_BT.shape, self.hidden_size * self.num_layers)
        kept_B = self._kept(rows_B)
        if kept_B.any():
            self._read(h_BTD, rows_B, mask_BT & kept_B[:, None])
        if not kept_B.all():
            places = torch.from_numpy(np.flatnonzero(~kept_B))
            h_PTD, _ = self._computing().states([int(row) for row in rows_B[~kept_B]])
            h_BTD[places, : h_PTD.shape[1]] = h_PTD
        return h_BTD, torch.from_numpy(mask_BT)

    def kept_share(self) -> float:
        """Share of the block's tokens whose states were kept."""
        total = int(self.lengths.sum())
        return 0.0 if self.tokens is None or not total else int(self.tokens.offsets[-1]) / total

    def _kept(self, rows_B: np.ndarray) -> np.ndarray:
        if self.tokens is None:
            return np.zeros(len(rows_B), dtype=bool)
        kept: np.ndarray = self.tokens.offsets[rows_B + 1] > self.tokens.offsets[rows_B]
        return kept

    def _read(self, h_BTD: Tensor, rows_B: np.ndarray, take_BT: np.ndarray) -> None:
        assert self.tokens is not None
        if self._flat is None:
            self._flat = self.tokens.tensors()
        from_BT = self.tokens.offsets[rows_B][:, None] + np.arange(take_BT.shape[1])[None, :]
        from_N = torch.from_numpy(from_BT[take_BT])
        h_BTD[torch.from_numpy(take_BT)] = torch.cat([flat_SH[from_N].float() for flat_SH in self._flat], dim=-1)

    def _computing(self) -> StateSource:
        if self._source is None:
            if self.request is None:
                raise FeatureError("features: token states were not kept and the block has no request; set it.")
            from gemma_nli.features.encode_texts import EncodedOnDemand

            self._source = EncodedOnDemand(self.request, self.rows_of(self.request.digests))
        return self._source

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Only plain arrays, for an object store; `from_arrays` rebuilds the block without a copy."""
        arrays = {"digests": self.digests, "lengths": self.lengths, "hidden_size": np.array(self.hidden_size)}
        arrays |= {f"view:{name}": array for name, array in self.views.items()}
        if self.tokens is not None:
            arrays |= {**self.tokens.layers, "offsets": self.tokens.offsets}
            arrays["tokens_dtype"] = np.array(self.tokens.dtype)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], request: FeatureRequest | None = None) -> FeatureBlock:
        """The block that `to_arrays` took apart; `request` lets it recompute token states that were not kept."""
        views = {name.removeprefix("view:"): array for name, array in arrays.items() if name.startswith("view:")}
        tokens = None
        if "offsets" in arrays:
            layers = {name: array for name, array in arrays.items() if is_token_part(name)}
            tokens = TokenStates(layers, arrays["offsets"], str(arrays["tokens_dtype"]))
        return cls(arrays["digests"], arrays["lengths"], int(arrays["hidden_size"]), views, tokens, request)


class FeatureSource(Protocol):
    """Where a trial gets its features: the store itself, or the part of it that a sweep shares."""

    def load(self, request: FeatureRequest) -> FeatureBlock: ...
