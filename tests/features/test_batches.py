from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_nli.model.length_batches import token_batches


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(64, 1000))
def test_every_row_is_in_one_batch_that_keeps_to_the_budget(lengths, batch_tokens):
    batches = token_batches(lengths, batch_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= batch_tokens


@pytest.mark.parametrize("batch_tokens", [1024, 4096])
def test_padding_stays_under_five_percent_on_comment_lengths(batch_tokens):
    """Lengths like reddit_emotions' pairs: 35 to 70 tokens, a few up to 128."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.normal(52, 8, 5000), 33, 128).astype(int)
    batches = token_batches(lengths, batch_tokens)
    slots = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert 1 - lengths.sum() / slots < 0.05


def test_the_longest_text_comes_first():
    assert token_batches([3, 9, 5], 9) == [[1], [2], [0]]
