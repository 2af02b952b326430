"""Batches of like length: every row once, little padding, drawn from (seed, fold)."""

from __future__ import annotations

import numpy as np

from gemma_nli.training.finetuning.length_grouped_batches import LengthGroupedBatches

ROWS = np.arange(100, 603)
LENGTHS = np.random.default_rng(0).integers(5, 120, len(ROWS))


def batches(seed: int = 1, fold: int = 1, size: int = 8) -> LengthGroupedBatches:
    return LengthGroupedBatches(ROWS, LENGTHS, size, seed, fold)


def padded_tokens(parts: list[np.ndarray]) -> int:
    return sum(int(LENGTHS[part - 100].max()) * len(part) for part in parts)


def test_each_row_comes_once_an_epoch_and_only_one_batch_is_short() -> None:
    drawn = batches()
    for _ in range(2):
        parts = drawn.epoch()
        assert sorted(np.concatenate(parts).tolist()) == ROWS.tolist()
        assert len(parts) == drawn.steps == 63
        assert sorted({len(part) for part in parts}) == [7, 8]
        assert all((np.diff(LENGTHS[part - 100]) <= 0).all() for part in parts)


def test_little_of_a_batch_is_padding() -> None:
    shuffled = np.random.default_rng(1).permutation(ROWS)
    by_chance = padded_tokens(np.array_split(shuffled, 63))
    grouped = padded_tokens(batches().epoch())
    assert grouped < 1.12 * LENGTHS.sum() < 1.5 * LENGTHS.sum() < by_chance


def test_order_hangs_on_seed_and_fold_and_changes_each_epoch() -> None:
    def order(seed: int, fold: int, epoch: int) -> list[int]:
        drawn = batches(seed, fold)
        return np.concatenate([drawn.epoch() for _ in range(epoch)][-1]).tolist()

    assert order(1, 1, 2) == order(1, 1, 2)
    assert len({tuple(order(*key)) for key in [(1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, 2)]}) == 4


def test_batches_do_not_stand_in_order_of_length() -> None:
    longest = [LENGTHS[part - 100].max() for part in batches().epoch()]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.4
