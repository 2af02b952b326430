"""The leaders run again on fresh folds with fresh training seeds, each repeat the same for all of them."""

from __future__ import annotations

import pytest

from gemma_nli.sweep.confirm_leaders import confirmed, confirming_rounds
from gemma_nli.sweep.prepare import is_confirming, prepare
from gemma_nli.sweep.records.outcome import TrialOutcome
from tests.sweep.conftest import spec_of


@pytest.fixture
def ready(sweep_tree):
    return prepare(spec_of(sweep_tree, finalize={"confirm": {"top": 2, "repeats": 3}}))


def ranked(ready):
    """The sweep's cells as if they had finished, the last of them first."""
    cells = reversed(ready.cells.items())
    return [TrialOutcome(key, cell.settings, "finished", 0.9 - n / 10) for n, (key, cell) in enumerate(cells)]


def test_each_repeat_holds_the_leaders_and_no_other_on_folds_of_its_own(ready):
    rounds, leaders = confirming_rounds(ready, ranked(ready)), ranked(ready)[:2]
    assert len(rounds) == 3
    assert len({each.pairs.fingerprint for each in [ready, *rounds]}) == 4
    for each in rounds:
        assert len(each.cells) == 2
        for cell, leader in zip(each.cells.values(), leaders, strict=True):
            assert {key: cell.settings[key] for key in leader.settings} == leader.settings
            assert is_confirming(cell.settings)
            assert cell.config.data.fold_seed == each.pairs.fold_seed
        assert each.spec.scheduler.kind == "none"
        assert each.spec.search.time_budget is None


def test_no_confirming_trial_has_its_leaders_training_seed_or_another_repeats(ready):
    seeds = [
        {cell.config.training.seed for cell in each.cells.values()} for each in confirming_rounds(ready, ranked(ready))
    ]
    assert all(len(found) == 1 for found in seeds), "one fresh seed per repeat, the same for all leaders"
    assert len(set.union(*seeds)) == 3
    assert ready.spec.base.training.seed not in set.union(*seeds)


def test_their_keys_are_their_own_and_they_wait_until_they_run(ready):
    rounds = confirming_rounds(ready, ranked(ready))
    keys = [key for each in rounds for key in each.cells]
    assert len({*keys, *ready.cells}) == 6 + 4
    outcome = confirmed(rounds)
    assert (outcome.waiting, sum(outcome.counts.values())) == (6, 0)


def test_none_is_asked_for_without_the_setting_or_a_leader(ready, sweep_tree):
    assert confirming_rounds(ready, []) == []
    plain = prepare(spec_of(sweep_tree))
    assert confirming_rounds(plain, ranked(plain)) == []
    assert len(confirming_rounds(ready, ranked(ready)[:1])[0].cells) == 1
