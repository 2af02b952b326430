from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.corpus.folds import assign_folds
from tests.growth import growth

SHARES = np.array([328, 311, 165, 124, 124, 102, 59, 44, 35]) / 1484


@st.composite
def label_tables(draw):
    num_posts, num_strata = draw(st.integers(0, 60)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return rng.random((num_posts, num_strata)) < rng.random(num_strata)


@settings(deadline=None, max_examples=150)
@given(labels_PC=label_tables(), num_folds=st.integers(1, 8), seed=st.integers(0, 2**80))
def test_each_post_has_one_fold_and_sizes_differ_by_one_at_most(labels_PC, num_folds, seed):
    fold_P = assign_folds(labels_PC, num_folds, seed)
    sizes_K = np.bincount(fold_P, minlength=num_folds + 1)[1:]
    assert len(fold_P) == len(labels_PC) == sizes_K.sum()
    assert np.ptp(sizes_K) <= 1
    np.testing.assert_array_equal(fold_P, assign_folds(labels_PC, num_folds, seed))


@settings(deadline=None, max_examples=150)
@given(labels_PC=label_tables(), num_folds=st.integers(1, 8), seed=st.integers(0, 99), data=st.data())
def test_no_fold_goes_without_a_leading_stratum_when_there_are_posts_enough(labels_PC, num_folds, seed, data):
    num_leading = data.draw(st.integers(0, labels_PC.shape[1]))
    in_leading_P = labels_PC[:, :num_leading].any(1)
    fold_P = assign_folds(labels_PC, num_folds, seed, num_leading)
    if in_leading_P.sum() >= num_folds:
        assert set(fold_P[in_leading_P]) == set(range(1, num_folds + 1))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_folds", [3, 5, 10])
def test_each_stratum_is_spread_evenly_at_the_symptoms_real_frequencies(seed, num_folds):
    labels_PC = np.random.default_rng(seed).random((1484, 9)) < SHARES
    fold_P = assign_folds(labels_PC, num_folds, seed)
    counts_KC = np.array([labels_PC[fold_P == fold].sum(0) for fold in range(1, num_folds + 1)])
    assert np.ptp(counts_KC, axis=0).max() <= 2


def test_another_seed_gives_other_folds():
    labels_PC = np.random.default_rng(0).random((100, 4)) < 0.3
    assert (assign_folds(labels_PC, 5, 1) != assign_folds(labels_PC, 5, 2)).any()


def test_a_seed_gives_the_same_folds_for_ever():
    labels_PC = np.arange(12)[:, None] % np.array([2, 3, 5]) == 0
    assert assign_folds(labels_PC, 3, 42).tolist() == [3, 3, 2, 2, 2, 2, 3, 3, 1, 1, 1, 1]


def test_dealing_posts_takes_time_by_their_number_and_not_by_its_square():
    labels_PC = np.random.default_rng(0).random((10_000, 9)) < SHARES
    assert growth(lambda posts: assign_folds(labels_PC[:posts], 5, 42), 1_250, 10_000) < 8 * 2.5
