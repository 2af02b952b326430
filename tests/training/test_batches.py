from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.training.frozen.fold_batches import FoldBatches, FoldDropout

CPU = torch.device("cpu")


def seeded(seed: int, folds: Iterable[int]) -> list[tuple[int, int]]:
    """What draws the batches and the dropout of these folds under one training seed."""
    return [(seed, fold) for fold in folds]


folds_of_rows = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(
    lambda sizes: [np.arange(100 * i, 100 * i + size, dtype=np.int64) for i, size in enumerate(sizes)]
)


@settings(deadline=None, max_examples=25)
@given(folds_of_rows, st.integers(1, 17))
def test_an_epoch_shows_each_fold_each_of_its_rows_once_and_weighs_every_batch_as_a_mean(rows, size):
    batches = FoldBatches(rows, size, drawn_by=seeded(1, range(1, len(rows) + 1)))
    rows_SKB, weight_SKB = batches.epoch(CPU)
    assert rows_SKB.shape == weight_SKB.shape == (batches.max_steps, len(rows), size)
    for fold, mine in enumerate(rows):
        real = weight_SKB[:, fold] > 0
        assert sorted(rows_SKB[:, fold][real].tolist()) == mine.tolist()
        sums_S = weight_SKB[:, fold].sum(1)
        awake = torch.arange(batches.max_steps) < batches.steps[fold]
        torch.testing.assert_close(sums_S, awake.float())
        assert set(rows_SKB[:, fold][~real].tolist()) <= set(mine.tolist()), "padding must be a row that has vectors"


@settings(deadline=None, max_examples=20)
@given(folds_of_rows, st.integers(1, 17))
def test_the_folds_asleep_at_a_step_are_those_without_a_batch(rows, size):
    batches = FoldBatches(rows, size, drawn_by=seeded(1, range(1, len(rows) + 1)))
    _, weight_SKB = batches.epoch(CPU)
    for step in range(batches.max_steps):
        asleep = batches.asleep(step, CPU)
        idle = (weight_SKB[step].sum(1) == 0).nonzero().flatten()
        assert (asleep is None and not len(idle)) or torch.equal(asleep, idle)


def test_a_folds_order_hangs_on_its_seed_and_number_and_changes_every_epoch():
    rows = [np.arange(50), np.arange(50)]

    def order(seed: int, folds: list[int]) -> list[list[int]]:
        batches = FoldBatches(rows[: len(folds)], 50, seeded(seed, folds))
        return [e.tolist() for _ in range(2) for e in batches.epoch(CPU)[0][0]]

    first_1, first_2, second_1, second_2 = order(7, [1, 2])
    assert order(7, [2]) == [first_2, second_2]
    assert first_1 != first_2
    assert first_1 != second_1
    assert order(8, [2])[0] != first_2


def masks_of(dropout: FoldDropout, epochs: int = 1, steps: int = 11) -> list[list[list[torch.Tensor]]]:
    """Copies of the masks: an item an epoch, a step, a site."""
    drawn = []
    for _ in range(epochs):
        dropout.next_epoch()
        drawn.append([])
        for _ in range(steps):
            dropout.next_step(CPU)
            drawn[-1].append([mask.clone() for mask in dropout.masks])
    return drawn


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.sampled_from([(3,), (5, 2)]))
def test_dropout_does_not_depend_on_how_far_ahead_it_is_drawn(ahead, further, size, widths):
    dropouts = [FoldDropout(0.4, widths, size, drawn_by=seeded(3, [1, 4]), epoch_steps=11) for _ in range(2)]
    dropouts[0].ahead, dropouts[1].ahead = ahead, ahead + further
    near, far = (masks_of(dropout, epochs=2) for dropout in dropouts)
    for one, other in zip(near, far, strict=True):
        for masks, same in zip(one, other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(masks, same, strict=True))


def test_a_folds_dropout_does_not_depend_on_who_trains_beside_it_or_how_long():
    alone = FoldDropout(0.3, (64,), 8, drawn_by=seeded(3, [5]), epoch_steps=11)
    beside = FoldDropout(0.3, (64,), 8, drawn_by=seeded(3, [1, 5, 2]), epoch_steps=17)
    for mine, ours in zip(masks_of(alone, 3, steps=11), masks_of(beside, 3, steps=17), strict=True):
        for (one,), (many,) in zip(mine, ours, strict=False):
            assert torch.equal(one[0], many[1])
            assert not torch.equal(one[0], many[0])


def test_dropout_is_new_at_every_step_and_epoch_and_for_every_seed():
    seen = [
        mask
        for seed in (3, 4)
        for epoch in masks_of(FoldDropout(0.3, (64,), 8, seeded(seed, [1]), epoch_steps=5), 2, steps=5)
        for (mask,) in epoch
    ]
    assert len({mask.numpy().tobytes() for mask in seen}) == 20


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    dropout = FoldDropout(share, (500,), 40, drawn_by=seeded(0, [1]), epoch_steps=10)
    dropout.next_epoch()
    kept = []
    for _ in range(10):
        dropout.next_step(CPU)
        kept.append(dropout(torch.ones(1, 40, 500), 0))
    values = torch.stack(kept)
    assert float((values == 0).float().mean()) == pytest.approx(share, abs=0.01)
    assert float(values.mean()) == pytest.approx(1.0, abs=0.02 / (1 - share))


def test_dropout_gives_the_same_values_in_place_and_through_a_gradient():
    dropout = FoldDropout(0.5, (6,), 4, drawn_by=seeded(0, [1, 2]), epoch_steps=1)
    masks_of(dropout, steps=1)
    x = torch.randn(2, 4, 6)
    through = dropout(x.clone().requires_grad_(), 0)
    assert torch.equal(dropout(x.clone(), 0), through)


def test_no_dropout_changes_nothing_and_draws_nothing():
    dropout = FoldDropout(0.0, (6,), 4, drawn_by=seeded(0, [1]), epoch_steps=1)
    masks_of(dropout, steps=1)
    x = torch.randn(1, 4, 6)
    assert dropout(x, 0) is x
    assert dropout.draws == []
