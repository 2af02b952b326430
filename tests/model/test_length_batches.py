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


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(64, 1000))
def test_with_no_least_fill_each_batch_takes_all_that_its_longest_row_leaves_room_for(lengths, batch_tokens):
    """So training and serving cut theirs; another cut would change a row's last bits."""
    order, start = np.argsort(-np.array(lengths), kind="stable").tolist(), 0
    for batch in token_batches(lengths, batch_tokens, least_fill=0.0):
        size = max(1, batch_tokens // lengths[order[start]])
        assert batch == order[start : start + size]
        start += len(batch)
    assert start == len(lengths)
