"""Journals and MLflow runs of the time when `val_f1` was at threshold 0.5 are read with that meaning."""

from __future__ import annotations

import shutil

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.metrics.earlier_names import todays_metrics
from gemma_nli.local.reproduce import reproduce
from gemma_nli.local.train import run_here
from gemma_nli.tracking.read.frames import compare_runs, list_runs, metric_history
from gemma_nli.tracking.write.from_journal import metric_points
from gemma_nli.training.results import CvResult, aggregate
from gemma_nli.trial import TrialJournal, TrialRecord
from tests.trial.test_journal import KEY, fold_result, started

AT_HALF = {"train_loss": [2.0, 1.0], "val_loss": [2.0, 1.0], "val_f1": [0.2, 0.3], "val_auc": [0.6, 0.7]}
CHOSEN = {**AT_HALF, "inner_f1": [0.5, 0.6]}


def earlier_journal(folder, *histories: dict[str, list[float]], best_f1: float = 0.3) -> TrialRecord:
    """A finished trial as it was journalled then."""
    journal = started(folder, len(histories))
    folds = [fold_result(n, history=history, best_epoch=2) for n, history in enumerate(histories, start=1)]
    journal.add_folds(folds)
    journal.finish(CvResult(folds, {"cv_aggregate/mean_best_f1": best_f1, "cv_aggregate/mean_f1": 0.7}, {}))
    record = TrialJournal(folder, KEY).read()
    assert record is not None
    return record


def test_a_fold_with_a_chosen_threshold_has_its_curve_at_half_under_that_name_alone(tmp_path) -> None:
    record = earlier_journal(tmp_path, CHOSEN)
    shown = {point.name: point.value for point in metric_points(record)}
    assert (shown["fold_1/val_f1_at_half"], shown["cv_summary/fold_1_best_f1_at_half"]) == (0.3, 0.3)
    assert shown["cv_aggregate/mean_best_f1_at_half"] == 0.3
    assert shown["cv_summary/fold_1_selected_f1"] == record.folds[1].metrics["f1"]
    assert shown["fold_1/val_auc"] == 0.7, "no threshold enters it"
    gone = {"fold_1/val_f1", "cv_summary/fold_1_best_f1", "cv_summary/fold_1_best_auc", "cv_summary/fold_1_best_epoch"}
    assert not gone & shown.keys()
    assert not {"cv_summary/fold_1_last_f1", "cv_aggregate/mean_best_f1"} & shown.keys()
    assert record.has_earlier_curves


def test_where_no_threshold_was_chosen_both_names_have_the_curve(tmp_path) -> None:
    record = earlier_journal(tmp_path, AT_HALF)
    shown = {point.name: point.value for point in metric_points(record)}
    for name in ("fold_1/val_f1", "cv_summary/fold_1_best_f1", "cv_aggregate/mean_best_f1"):
        assert shown[name] == shown[f"{name}_at_half"] == 0.3
    assert shown["cv_summary/fold_1_best_epoch"] == 2
    assert not record.has_earlier_curves


def test_a_trial_that_goes_on_never_averages_the_two_meanings(tmp_path) -> None:
    """One fold of then, one of today: what both have is averaged, what one lacks is left out."""
    record = earlier_journal(tmp_path, CHOSEN, {**CHOSEN, "val_f1_at_half": [0.4, 0.5]})
    metrics = {"f1": 0.7, "auc": 0.7, "peeked_f1": 0.8}
    for fold in record.folds.values():
        fold.metrics.update(metrics)
    found = aggregate(list(record.folds.values()), {})
    assert found["cv_aggregate/mean_best_f1_at_half"] == pytest.approx(0.4)
    assert "cv_aggregate/mean_best_f1" not in found


def test_todays_metrics_are_left_as_they_are_and_mapping_twice_is_mapping_once() -> None:
    today = {"fold_1/val_f1": 0.7, "fold_1/val_f1_at_half": 0.2, "cv_summary/fold_1_best_f1": 0.8}
    assert todays_metrics(today) == today
    earlier = {"fold_1/val_f1": 0.2, "fold_1/inner_f1": 0.6, "fold_1/val_recall": 0.1, "cv_summary/fold_1_best_f1": 0.3}
    once = todays_metrics(earlier)
    assert set(once) == {
        "fold_1/val_f1_at_half",
        "fold_1/inner_f1",
        "fold_1/val_recall_at_half",
        "cv_summary/fold_1_best_f1_at_half",
    }
    assert todays_metrics(once) == once


@pytest.fixture
def then_and_now(config, sqlite_uri) -> tuple[str, str]:
    """A run as it was recorded then, and the same one recorded today."""
    config = config.with_settings({"mlflow.tracking_uri": sqlite_uri})
    run = run_here(config)
    shutil.rmtree(run.folder.parent.parent.parent)
    client = MlflowClient(sqlite_uri, sqlite_uri)
    now = client.get_run(run.run_id)
    then = client.create_run(now.info.experiment_id, tags=now.data.tags)
    for name in now.data.metrics:
        if name.endswith("_at_half") or "peeked" in name:
            continue
        at_half = f"{name}_at_half" if f"{name}_at_half" in now.data.metrics else name
        for point in client.get_metric_history(now.info.run_id, at_half):
            client.log_metric(then.info.run_id, name, point.value, point.timestamp, point.step)
    path = client.download_artifacts(now.info.run_id, "config.yaml")
    client.log_artifact(then.info.run_id, path)
    return then.info.run_id, now.info.run_id


def test_a_run_of_then_is_compared_listed_and_reproduced_under_todays_names(then_and_now, sqlite_uri) -> None:
    then, now = then_and_now
    found = compare_runs([then, now], sqlite_uri)
    assert found.folds.loc[("best_f1_at_half", 1)].nunique() == 1
    assert found.folds.loc[("best_f1", 1)].isna()[then], "its best_f1 was another figure"
    assert any("measured the curves at threshold 0.5" in note and then in note for note in found.notes)
    listed = list_runs(tracking_uri=sqlite_uri).set_index("run_id")
    assert listed["metrics.fold_1/val_f1_at_half"].nunique() == 1
    assert metric_history(then, "fold_1/val_f1_at_half", sqlite_uri)["value"].tolist() == (
        metric_history(now, "fold_1/val_f1_at_half", sqlite_uri)["value"].tolist()
    )
    with pytest.raises(TrackingError, match=r"at threshold 0\.5.*fold_K/val_f1_at_half"):
        metric_history(then, "fold_1/val_f1", sqlite_uri)
    again = reproduce(then, sqlite_uri)
    assert again.equal
    assert any("threshold 0.5" in note for note in again.notes)
