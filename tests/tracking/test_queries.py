from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest
import yaml

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig, RunConfig, load_config
from gemma_nli.tracking.read.queries import best_trial, list_trials
from gemma_nli.tracking.write.projection import MetricPoint
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_sweep, a_trial

F1 = "cv_aggregate/mean_f1"


def scored(key: str, f1: float, folds: str = "folds-a", at: int = 1_700_000_000_000, **changes):
    config = RunConfig().with_settings({"training.learning_rate": 1e-3, "model.name": f"folder of {key}"})
    return a_trial(
        key,
        metrics=[MetricPoint(F1, f1, 0, at), MetricPoint("cv_aggregate/std_f1", 0.1 - f1 / 100, 0, at)],
        artifacts={"config.yaml": yaml.safe_dump(config.model_dump(mode="json")).encode()},
        tags={"gemma_nli.fold_fingerprint": folds},
        started_ms=at,
        **changes,
    )


@pytest.fixture
def filled(tracker, request) -> MlflowTracker:
    parent = tracker.sweep_run(a_sweep())
    for key, f1 in (("low", 0.5), ("high", 0.9), ("undefined", math.nan), ("middle", 0.7)):
        tracker.sync_trial(parent, scored(key, f1))
    tracker.sync_trial(parent, scored("stopped", 0.99, state="pruned"))
    tracker.sync_trial(parent, scored("going", 0.98, state="running", ended_ms=None))
    return tracker


def test_the_best_finished_trial_comes_with_all_to_run_it_again(filled, uri):
    best = best_trial(filled.experiment, tracking_uri=uri)
    assert best.run_name == "trial-high"
    assert best.value == best.metrics[F1] == 0.9
    assert best.config.model.name == "folder of high"
    assert best.params["model.pooling_strategy"] == "mean"
    command, verb, flag, path = shlex.split(best.command)
    assert (Path(command).name, verb, flag) == ("gemma-nli", "train", "--config")
    assert load_config(Path(path)) == best.config
    assert best.notes == ()


def test_min_takes_the_least_and_nan_is_never_best(filled, uri):
    assert best_trial(filled.experiment, mode="min", tracking_uri=uri).run_name == "trial-low"
    assert best_trial(filled.experiment, "cv_aggregate/std_f1", "min", uri).run_name == "trial-high"


def test_of_equals_the_earliest_wins(sqlite_uri):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "ties")
    parent = tracker.sweep_run(a_sweep())
    for key, at in (("late", 300), ("early", 100), ("middle", 200)):
        tracker.sync_trial(parent, scored(key, 0.5, at=at))
    assert best_trial("ties", tracking_uri=sqlite_uri).run_name == "trial-early"


def test_trials_on_other_folds_are_not_ranked_against_these(sqlite_uri):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "folds")
    tracker.sync_trial(tracker.sweep_run(a_sweep("old")), scored("easy", 0.99, "folds-easy", at=2_000_000_000_000))
    tracker.sync_trial(tracker.sweep_run(a_sweep("new")), scored("hard", 0.6, "folds-hard", at=1_000))
    best = best_trial("folds", tracking_uri=sqlite_uri)
    assert best.run_name == "trial-hard"
    assert "different folds" in best.notes[0]
    assert "folds-hard" in best.notes[0]
    assert best_trial("folds", tracking_uri=sqlite_uri, fold_fingerprint="folds-easy").run_name == "trial-easy"
    alone = best_trial("folds", tracking_uri=sqlite_uri, sweep_id="old")
    assert (alone.run_name, alone.notes) == ("trial-easy", ())


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"experiment": "experiance"}, "no experiment 'experiance'; did you mean 'experience'"),
        ({"metric": "cv_agregate/mean_f1"}, "did you mean 'cv_aggregate/mean_f1'"),
        ({"sweep_id": "pooling-2"}, "no sweep 'pooling-2'; did you mean 'pooling-1'"),
        ({"fold_fingerprint": "nowhere"}, "no finished trial on folds nowhere"),
        ({"mode": "best"}, "must be max or min"),
        ({"metric": "x`; drop table runs"}, "no finished trial has metric"),
        ({"sweep_id": "it's"}, "no sweep"),
    ],
)
def test_a_question_without_an_answer_says_what_is_near(sqlite_uri, question, answer):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "experience")
    tracker.sync_trial(tracker.sweep_run(a_sweep()), scored("one", 0.5))
    with pytest.raises(TrackingError, match=answer):
        best_trial(**{"experiment": "experience", "tracking_uri": sqlite_uri, **question})


def test_a_sweep_without_a_usable_trial_says_so(sqlite_uri):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "empty")
    parent = tracker.sweep_run(a_sweep())
    with pytest.raises(TrackingError, match="no trial has finished yet"):
        best_trial("empty", tracking_uri=sqlite_uri)
    tracker.sync_trial(parent, scored("undefined", math.nan))
    with pytest.raises(TrackingError, match="NaN in every finished trial"):
        best_trial("empty", tracking_uri=sqlite_uri)


def test_asking_creates_no_store(tmp_path):
    with pytest.raises(TrackingError, match="there is no MLflow store yet"):
        best_trial("any")
    assert not (tmp_path / "gemma_nli_home").exists()


def test_a_masked_tracking_uri_gives_way_to_the_environments(sqlite_uri):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "masked")
    trial = a_trial(artifacts={"config.yaml": b"mlflow: {tracking_uri: 'https://***@host/'}\n"})
    tracker.sync_trial(tracker.sweep_run(a_sweep()), trial)
    assert best_trial("masked", tracking_uri=sqlite_uri).command.endswith(" mlflow.tracking_uri=null")


def test_a_leaderboard_lists_every_trial_in_order_of_start(filled, uri, monkeypatch):
    rows = list_trials("pooling-1", filled.experiment, uri)
    assert len(rows) == 6
    assert {row.key: row.state for row in rows}["stopped"] == "pruned"
    assert {row.key: row.metrics[F1] for row in rows}["middle"] == 0.7
    with pytest.raises(TrackingError, match="did you mean 'pooling-1'"):
        list_trials("pooling-9", filled.experiment, uri)
