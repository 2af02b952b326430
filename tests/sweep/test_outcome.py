"""What a sweep says of its trials: which can win, which does, what failed, and with which status the command ends."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gemma_nli.spec.sweep_sections import Objective
from gemma_nli.sweep.records.outcome import Outcome, TrialOutcome
from gemma_nli.sweep.records.sweep_result import SweepResult

F1, SIZE = "cv_aggregate/mean_f1", "model/trained_parameters"


def trial(key: str, objective: float, warning: str = "", **more: Any) -> TrialOutcome:
    return TrialOutcome(
        key, more.pop("settings", {}), more.pop("state", "finished"), objective, warning=warning, **more
    )


def test_trials_whose_journals_lack_the_metric_that_decides_are_named_and_no_candidates():
    old = TrialOutcome("old", {}, "finished", float("nan"), {"cv_aggregate/mean_f1": 0.9})
    new = TrialOutcome("new", {}, "finished", 0.5, {"cv_aggregate/mean_f1": 0.6, "cv_aggregate/mean_mine": 0.5})
    found = Outcome((old, new), decided_by=("cv_aggregate/mean_mine",))
    assert found.ranked == [new]
    (note,) = found.notes()
    assert "1 of 2 finished trials lack cv_aggregate/mean_mine" in note
    assert "trials old)" in note
    assert Outcome((old, new), decided_by=("cv_aggregate/mean_f1",)).notes() == []


def test_trials_that_did_not_learn_are_counted_and_the_best_ones_reason_is_given_first():
    good, dull, worse = (
        trial("a", 0.7),
        trial("b", 0.6, "fold 1 did not learn."),
        trial("c", 0.5, "folds 1, 2 did not."),
    )
    assert Outcome((good,)).notes() == []
    assert Outcome((good, worse, dull)).notes() == [
        "2 of 3 finished trials did not learn in every fold; one of them: folds 1, 2 did not."
    ]
    assert Outcome((worse, dull)).notes() == [
        "2 of 2 finished trials did not learn in every fold; the best trial: fold 1 did not learn."
    ]


@pytest.mark.parametrize(("mode", "order"), [("max", "bca"), ("min", "acb")])
def test_trials_are_ranked_in_the_direction_that_is_asked_for(mode, order):
    trials = (trial("a", 0.1), trial("b", 0.9), trial("c", 0.5))
    found = Outcome(trials, mode)
    assert "".join(each.key for each in found.ranked) == order
    assert found.best is found.ranked[0]


def test_of_equal_trials_the_first_by_key_wins_whichever_ended_first():
    for trials in ((trial("b", 0.5), trial("a", 0.5)), (trial("a", 0.5), trial("b", 0.5))):
        for mode in ("max", "min"):
            assert [each.key for each in Outcome(trials, mode).ranked] == ["a", "b"]


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("state", ["pruned", "failed", "waiting"])
def test_only_a_finished_trial_with_a_number_can_be_the_best(state, mode):
    best = 0.99 if mode == "max" else 0.01
    other, none, endless = trial("a", best, state=state), trial("b", math.nan), trial("c", math.inf)
    assert Outcome((other, none, endless), mode).best is None
    assert [t.key for t in Outcome((other, none, endless, trial("d", 0.5)), mode).ranked] == ["d"]


def test_trials_are_counted_by_how_they_ended_and_those_without_an_end_wait():
    states = ["finished", "finished", "pruned", "failed", "waiting", "waiting", "waiting"]
    found = Outcome(tuple(trial(str(n), 0.5, state=state) for n, state in enumerate(states)))
    assert found.counts == {"finished": 2, "pruned": 1, "failed": 1}
    assert found.waiting == 3


def test_failures_are_grouped_by_their_reason_the_commonest_first():
    why = ["TrainingError: x\nTraceback", "JournalError: y", "TrainingError: x"]
    trials = [trial(str(n), 0.0, state="failed", error=error, settings={"n": n}) for n, error in enumerate(why)]
    assert Outcome((trial("z", 0.5), *trials)).failures() == [
        {"error": "TrainingError: x", "trials": 2, "settings": {"n": 0}},
        {"error": "JournalError: y", "trials": 1, "settings": {"n": 1}},
    ]


def two(f1: float, size: float, **more: Any) -> TrialOutcome:
    return trial(f"{f1}-{size}", f1, metrics={F1: f1, SIZE: size}, settings={"at": [f1, size]}, **more)


def test_the_front_holds_what_no_other_trial_beats_in_every_objective_each_in_its_own_direction():
    trials = (
        two(0.9, 100),
        two(0.8, 10),
        two(0.7, 50),
        two(0.9, 200),
        two(1.0, 1, state="pruned"),
        two(0.99, math.nan),
    )
    wanted = (Objective(metric=F1, mode="max"), Objective(metric=SIZE, mode="min"))
    front = Outcome(trials).pareto_front(wanted)
    assert [each["settings"]["at"] for each in front] == [[0.9, 100], [0.8, 10]]
    assert front[0]["values"] == {F1: 0.9, SIZE: 100}
    largest = Outcome(trials).pareto_front((wanted[0], Objective(metric=SIZE, mode="max")))
    assert [each["settings"]["at"] for each in largest] == [[0.9, 200]]
    assert Outcome(trials).pareto_front(wanted[:1]) == []


def result(**changes: Any) -> SweepResult:
    facts = {"sweep_id": "s", "sweep_run_id": None, "name": "x", "experiment": "e", "ran": 0, "best_run_id": None}
    facts |= {"trials": {"finished": 2, "pruned": 1, "failed": 0}, "best": trial("a", 0.5), "registered": None}
    return SweepResult(**{**facts, "seconds": {}, "texts": {}, **changes})


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (0, {}),
        (0, {"confirming": {"finished": 4, "failed": 0, "waiting": 0}}),
        (1, {"trials": {"finished": 2, "pruned": 0, "failed": 1}}),
        (1, {"waiting": 1}),
        (1, {"best": None}),
        (1, {"confirming": {"finished": 4, "failed": 1, "waiting": 0}}),
        (1, {"confirming": {"finished": 4, "failed": 0, "waiting": 1}}),
        (130, {"interrupted": True}),
        (130, {"interrupted": True, "waiting": 3, "best": None, "trials": {"finished": 0, "pruned": 0, "failed": 1}}),
    ],
)
def test_the_exit_status_says_whether_every_trial_came_to_a_good_end(status, changes):
    found = result(**changes)
    assert found.exit_status == found.to_json()["exit_status"] == status
