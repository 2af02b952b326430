"""Attention over states where they lie is attention over a padded batch, forwards and backwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemma_nli.model.pooling import build_pooler
from gemma_nli.training.frozen.ragged_attention import attend, ragged_rows

LENGTHS = np.array([3, 1, 7, 4, 2])
OFFSETS = np.concatenate([[0], LENGTHS.cumsum()])
HIDDEN = 6


@pytest.mark.parametrize("name", ["attention", "attention_kv"])
def test_ragged_attention_is_padded_attention(name):
    flat_SH = torch.randn(int(OFFSETS[-1]), HIDDEN, generator=torch.Generator().manual_seed(1)) * 3
    rows = np.array([[2, 0, 2], [4, 3, 1]])  # two models, three texts each, one twice
    pool = build_pooler(name, HIDDEN, num_models=2)
    for model in range(2):
        pool.reset(model, torch.Generator().manual_seed(model))
        with torch.no_grad():
            pool.query_KH[model] *= 20
    h_KBTH, mask_KBT = torch.full((2, 3, 7, HIDDEN), 9.0), torch.zeros(2, 3, 7)
    for k, b in np.ndindex(rows.shape):
        text = rows[k, b]
        h_KBTH[k, b, : LENGTHS[text]] = flat_SH[OFFSETS[text] : OFFSETS[text + 1]]
        mask_KBT[k, b, : LENGTHS[text]] = 1
    padded = pool(h_KBTH, mask_KBT)
    texts = ragged_rows(flat_SH, OFFSETS, rows.reshape(-1))
    ragged = pool.mix(attend([texts], pool.look().repeat_interleave(3, 0)).view(2, 3, HIDDEN))
    torch.testing.assert_close(ragged, padded)
    parameters = list(pool.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(ragged.square().sum(), parameters),
        torch.autograd.grad(padded.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_text_without_tokens_gives_zeros():
    offsets = np.array([0, 0, 2])
    texts = ragged_rows(torch.ones(2, HIDDEN), offsets, np.array([0, 1]))
    out = attend([texts], torch.ones(2, HIDDEN))
    assert torch.equal(out, torch.stack([torch.zeros(HIDDEN), torch.ones(HIDDEN)]))


@pytest.mark.parametrize("size", [1e3, -1e3, 1e30])
def test_scores_of_any_size_give_weights_that_sum_to_one(size):
    """exp(1000) is infinite: without each row's largest score taken off, such a row would be NaN."""
    flat_SH = torch.eye(HIDDEN) * size
    query = torch.ones(1, HIDDEN)
    query[0, 0] = 1 + 1e-6
    out = attend([ragged_rows(flat_SH, np.array([0, HIDDEN]), np.array([0]))], query)
    weights = torch.softmax(flat_SH @ query[0], 0)
    torch.testing.assert_close(out[0], weights @ flat_SH)
