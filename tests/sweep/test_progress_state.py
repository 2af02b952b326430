"""What is shown of a sweep while it runs: the best in the direction asked for, and the time left by what has run."""

from __future__ import annotations

import math

import pytest

from gemma_nli.sweep.records.progress_state import ProgressState

METRIC = "cv_aggregate/mean_f1"


def progress(mode: str = "max", total: int = 8) -> ProgressState:
    made = ProgressState(METRIC, mode, total)
    for key in "abcdefgh"[:total]:
        made.add(key, {"n": key})
    return made


@pytest.mark.parametrize(("mode", "best"), [("max", "b"), ("min", "a")])
def test_the_best_so_far_is_a_finished_trial_with_a_number(mode, best):
    shown = progress(mode)
    for key, state, value in (("a", "finished", 0.2), ("b", "finished", 0.8), ("c", "finished", math.nan)):
        shown.update(key, state, {METRIC: value})
    for key, value in (("d", 0.99), ("e", 0.01)):
        shown.update(key, "pruned", {METRIC: value})
    assert shown.best().key == best
    assert {cell.key for cell in shown.ranked()} == {"a", "b"}


def test_the_time_left_is_reckoned_from_trials_that_ran_and_not_from_those_found(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    shown = progress()
    for key in "abc":
        shown.add(key, {}, reused=True)
        shown.update(key, "finished", {METRIC: 0.5})
    assert shown.seconds_left() is None
    shown.enter("tuning")
    now[0] += 60
    assert shown.seconds_left() is None, "none has run yet"
    shown.update("d", "finished", {METRIC: 0.5})
    shown.update("e", "failed")
    assert shown.seconds_left() == pytest.approx(3 * 30)  # three are left, at half a minute each
    for key in "fgh":
        shown.update(key, "pruned")
    assert shown.seconds_left() == 0


def test_folds_that_are_done_are_never_taken_back_and_a_watcher_hears_of_each_change():
    heard = []
    shown = progress()
    shown.observers.append(lambda: heard.append(shown.count("running")))
    shown.update("a", "running", folds_done=3)
    shown.update("a", "running", folds_done=1)
    assert (shown.cells["a"].folds_done, heard) == (3, [1, 1])
    shown.link("MLflow run", None)
    assert shown.links == {}
