"""Attention pooling over texts of different lengths without padding and without a copy of their token states.

Shapes: S tokens of all texts in memory, H hidden, R rows (texts attended to), N tokens of those rows. A padded batch
copies every state several times per optimizer step, which on a CPU costs ten times the arithmetic. Here each step
reads the states in place, four times: scores, weighted sum, and the two gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Ragged:
    """The tokens of R rows: which states of the flat array, where each row begins, and the row of each token."""

    flat_SH: Tensor
    index_N: Tensor
    offset_R: Tensor
    row_N: Tensor


def ragged_rows(flat_SH: Tensor, offsets: NDArray[np.int64], rows_R: NDArray[np.int64]) -> Ragged:
    """The tokens of `rows_R` of a block whose text i has the states offsets[i] to offsets[i + 1]."""
    starts_R, lengths_R = offsets[rows_R], offsets[rows_R + 1] - offsets[rows_R]
    first_R = np.concatenate([[0], lengths_R.cumsum()[:-1]])
    row_N = np.repeat(np.arange(len(rows_R)), lengths_R)
    index_N = np.arange(len(row_N)) - first_R[row_N] + starts_R[row_N]
    return Ragged(flat_SH, *(torch.from_numpy(a).to(flat_SH.device) for a in (index_N, first_R, row_N)))


def attend(layers: list[Ragged], query_RH: Tensor, share_RL: Tensor | None = None) -> Tensor:
    """(R, H): each row's states, weighted by softmax of query . state. A row without tokens gives zeros.

    Args:
        layers: the same tokens' states in each of L layers; one without `share_RL`.
        share_RL: how much of each layer a state has; the mixed states themselves are never made.
    """
    rows, texts = len(query_RH), layers[0]
    scores: list[Tensor] = [_Dot.apply(query_RH, each) for each in layers]  # type: ignore[no-untyped-call]
    score_N = scores[0]
    if share_RL is not None:
        share_NL = share_RL[texts.row_N]
        score_N = torch.stack([share_NL[:, place] * each for place, each in enumerate(scores)]).sum(0)
    with torch.no_grad():
        top_R = torch.full((rows,), -torch.inf, device=score_N.device, dtype=score_N.dtype)
        top_R.scatter_reduce_(0, texts.row_N, score_N, "amax")
    power_N = (score_N - top_R[texts.row_N]).exp()
    total_R = torch.zeros(rows, device=score_N.device, dtype=score_N.dtype).index_add(0, texts.row_N, power_N)
    weight_N = power_N / total_R[texts.row_N]
    if share_RL is None:
        return _bag(texts, weight_N)
    return torch.stack([share_RL[:, [place]] * _bag(each, weight_N) for place, each in enumerate(layers)]).sum(0)


def _bag(texts: Ragged, weight_N: Tensor) -> Tensor:
    """(R, H) weighted sums of the rows' states; its gradient with respect to the weights is `_Dot`."""
    return F.embedding_bag(texts.index_N, texts.flat_SH, texts.offset_R, mode="sum", per_sample_weights=weight_N)


class _Dot(torch.autograd.Function):
    """query of the token's row . state of the token, for each of N tokens.

    torch has this product as the gradient of `embedding_bag` with respect to its weights; the gradient of the product
    with respect to the query is `embedding_bag` again.
    """

    @staticmethod
    def forward(ctx: Any, query_RH: Tensor, texts: Ragged) -> Tensor:
        ctx.texts = texts
        dot: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            query_RH.contiguous(), texts.flat_SH, texts.index_N, texts.offset_R, texts.row_N, 0
        )
        return dot

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:
        return _bag(ctx.texts, grad_N.contiguous()), None
