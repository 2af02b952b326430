"""A space that changes has a study of its own, which knows what was found before as far as the space holds it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from gemma_nli.search.carry_trials import EarlierTrial, carry
from gemma_nli.search.study import SweepStudy
from gemma_nli.search.study_storage import SPACE
from gemma_nli.spec.spec import SweepSpec
from tests.search.test_study import TWO, opened, run, spec, states, worth

SEARCH = {"algorithm": "optuna", "num_trials": 6}
RATE, HEAD = "training.learning_rate", "model.head"
BEFORE = {RATE: {"loguniform": [1e-5, 1e-2]}, HEAD: {"choice": ["linear", "mlp"]}}
AFTER: dict[str, dict[str, Any]] = {
    "a choice gains a value": {**BEFORE, "data.negative_ratio": {"choice": [1, 2, 3]}},
    "a choice loses a value": {**BEFORE, "data.negative_ratio": {"choice": [1]}},
    "a choice is put in another order": {**BEFORE, "data.negative_ratio": {"choice": [2, 1]}},
    "a choice becomes a range": {**BEFORE, "data.negative_ratio": {"int": [1, 4]}},
    "a logarithmic range becomes a plain one": {**BEFORE, RATE: {"uniform": [1e-5, 1e-2]}},
    "a range becomes wider": {**BEFORE, RATE: {"loguniform": [1e-6, 1e-1]}},
    "a range becomes narrower": {**BEFORE, RATE: {"loguniform": [1e-4, 1e-3]}},
    "a range becomes a choice": {**BEFORE, RATE: {"choice": [1e-4, 1e-3, 3e-3]}},
    "a condition is added": {
        **BEFORE,
        "model.head_hidden": {"int": {"low": 8, "high": 64, "log": True}, "when": {HEAD: "mlp"}},
    },
}
AFTER = {name: {"data.negative_ratio": {"choice": [1, 2]}, **space} for name, space in AFTER.items()}
BEFORE = {"data.negative_ratio": {"choice": [1, 2]}, **BEFORE}


def carried_over(old: list[dict[str, Any]], study: SweepStudy) -> list[dict[str, Any]]:
    """What of the old trials the study's space holds, told to it as a sweep does from its journals."""
    fit = [settings for settings in old if study.space.params_of(settings) is not None]
    carry(study, [EarlierTrial(settings, worth(settings)) for settings in fit])
    return fit


@pytest.mark.parametrize("change", AFTER)
@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_changed_space_goes_on_with_what_it_holds_and_leaves_no_failure(tmp_path, change, sampler):
    old = [p.settings for p in run(opened(tmp_path, spec(BEFORE, num_trials=6, sampler=sampler)))]
    changed = spec(AFTER[change], num_trials=9, sampler=sampler)
    study = opened(tmp_path, changed)
    fit = carried_over(old, study)
    new = run(study)
    assert len(fit) + len(new) == 9
    assert states(study).count("COMPLETE") == len(states(study)), "none failed, none left open"
    again = opened(tmp_path, changed)
    assert carried_over(old, again) == fit
    assert run(again) == [], "carried once, counted once"
    assert len(again.study.trials) == len(study.study.trials)
    first = opened(tmp_path, spec(BEFORE, num_trials=6, sampler=sampler))
    assert len(first.study.trials) == 6, "the first space's study is as it was, and is found again"
    assert run(first) == []


def test_what_was_stopped_early_stays_so_and_what_failed_is_tried_first(tmp_path):
    study = opened(tmp_path, spec(BEFORE, num_trials=4))
    good, stopped, bad = (
        {RATE: 1e-3, HEAD: head, "data.negative_ratio": ratio}
        for head, ratio in (("mlp", 1), ("linear", 1), ("mlp", 2))
    )
    pruned_at = EarlierTrial(stopped, means={1: 0.4, 2: 0.5})
    reported = carry(study, [EarlierTrial(good, worth(good)), pruned_at, EarlierTrial(bad)])
    assert reported == 2
    pruned = study.study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    assert [trial.intermediate_values for trial in pruned] == [{1: 0.4, 2: 0.5}]
    proposal = study.propose()
    assert proposal.settings == bad
    study.finish(proposal.number, worth(bad))
    assert len(run(study)) == 1, "three of four are there already"


def test_a_study_from_before_spaces_were_noted_is_taken_up(tmp_path):
    study = opened(tmp_path, spec(BEFORE, num_trials=3))
    run(study)
    with_database(tmp_path, f"delete from study_user_attributes where key = '{SPACE}'")
    again = opened(tmp_path, spec(BEFORE, num_trials=3))
    assert (again.study.study_name, run(again)) == ("sweep", [])
    with_database(tmp_path, f"delete from study_user_attributes where key = '{SPACE}'")
    other = opened(tmp_path, spec(AFTER["a choice gains a value"], num_trials=3))
    assert other.study.study_name != "sweep"
    assert other.study.trials == []


def test_another_metric_is_another_study(tmp_path):
    """Its values are told anew from the journals: an F1 among AUCs would mislead the sampler."""
    opened(tmp_path, spec(BEFORE))
    asked = spec(BEFORE)
    other = type(asked).model_validate({**dict(asked), "metric": "cv_aggregate/mean_auc"})
    assert opened(tmp_path, other).study.study_name != "sweep"


@pytest.mark.parametrize("changes", [{"search": {**SEARCH, "objectives": TWO}}, {"mode": "min"}])
def test_other_objectives_are_another_study_that_knows_the_same_trials(tmp_path, changes):
    tree = {"name": "t", "space": BEFORE, "search": SEARCH}
    asked = SweepSpec.from_mapping(tree | changes)
    old = [p.settings for p in run(opened(tmp_path, spec(BEFORE, num_trials=4)))]
    study = opened(tmp_path, asked)
    carry(study, [EarlierTrial({**old[0], RATE: 2e-3}, means={1: 0.4}), *(EarlierTrial(s, worth(s)) for s in old)])
    assert len(run(study)) == 1, "five of six are there already"
    assert states(study).count("COMPLETE") == 5
    assert run(opened(tmp_path, spec(BEFORE, num_trials=4))) == [], "the first objectives' study is found again"


def test_two_drivers_carry_their_own_into_one_study_of_the_new_space(tmp_path):
    changed = spec(AFTER["a choice gains a value"], num_trials=6)
    a, b = (opened(tmp_path, changed, owner=owner) for owner in "ab")
    assert a.study.study_name == b.study.study_name
    mine, theirs = ({RATE: rate, HEAD: "mlp", "data.negative_ratio": 1} for rate in (1e-3, 1e-4))
    carry(a, [EarlierTrial(mine, worth(mine))])
    carry(b, [EarlierTrial(theirs, worth(theirs)), EarlierTrial(mine, worth(mine))])
    assert a.counted == b.counted == 2
    assert len(run(a, limit=2)) + len(run(b)) == 4


def with_database(folder: Path, statement: str) -> None:

    database = sqlite3.connect(folder / "optuna.db")
    with database:
        database.execute(statement)
    database.close()
