from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.store.mlflow_store import resolve_store
from gemma_nli.tracking.write.projection import MetricPoint
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_sweep, a_trial, free_port


def history(tracker: MlflowTracker, run_id: str, name: str) -> list[tuple[int, float, int]]:
    return [(m.step, m.value, m.timestamp) for m in tracker.client.get_metric_history(run_id, name)]


def runs(tracker: MlflowTracker, view: int = ViewType.ACTIVE_ONLY) -> list:
    return list(tracker.client.search_runs([tracker.experiment_id], run_view_type=view))


class Calls(Counter):
    """Counts a client's calls by name."""

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> Calls:
        writes = ("create_run", "log_batch", "log_artifacts", "set_terminated", "update_run", "delete_run")
        for name in (*writes, "search_runs", "get_run"):
            monkeypatch.setattr(MlflowClient, name, self.counted(name, getattr(MlflowClient, name)))
        return self

    def counted(self, name, call):
        def counting(*args, **kwargs):
            self[name] += 1
            return call(*args, **kwargs)

        return counting


def test_a_trial_shows_its_params_metrics_tags_artifacts_times_and_parent(tracker):
    parent = tracker.sweep_run(a_sweep())
    run = tracker.client.get_run(tracker.sync_trial(parent, a_trial()))
    assert run.info.run_name == "trial-k1"
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1_700_000_000_000, 1_700_000_002_000)
    assert run.data.params == {
        "model.pooling_strategy": "mean", "training.learning_rate": "2e-05", "dataset/total_pairs": "40"
    }  # fmt: skip
    assert run.data.metrics["cv_aggregate/mean_f1"] == 0.75
    assert [step for step, *_ in history(tracker, run.info.run_id, "fold_2/val_f1")] == [1, 2, 3]
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["task"] == "nli_binary_classification"
    assert [file.path for file in tracker.client.list_artifacts(run.info.run_id)] == ["config.yaml"]


@pytest.mark.parametrize(
    ("state", "status"), [("running", "RUNNING"), ("finished", "FINISHED"), ("failed", "FAILED"), ("pruned", "KILLED")]
)
def test_the_status_is_truthful(sqlite_uri, state, status):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "status")
    run_id = tracker.sync_trial(tracker.sweep_run(a_sweep()), a_trial(state=state))
    run = tracker.client.get_run(run_id)
    assert run.info.status == status
    assert run.data.tags["gemma_nli.state"] == state


def test_delivering_again_changes_nothing_even_from_a_fresh_process(new_tracker, tracker):
    parent = tracker.sweep_run(a_sweep())
    run_id = tracker.sync_trial(parent, a_trial())
    again = new_tracker()
    assert again.sweep_run(a_sweep()) == parent
    assert again.sync_trial(parent, a_trial()) == run_id
    assert len(runs(tracker)) == 2
    assert len(history(tracker, run_id, "fold_1/val_f1")) == 3


def test_an_interrupted_delivery_is_completed_without_doubling_a_value(new_tracker, tracker):
    """The run has some points, no `delivered` tag and no end: as if its writer had been killed between two calls."""
    parent = tracker.sweep_run(a_sweep())
    run_id = tracker.sync_trial(parent, a_trial(state="running", epochs=2))
    assert "gemma_nli.delivered" not in tracker.client.get_run(run_id).data.tags
    assert new_tracker().sync_trial(parent, a_trial()) == run_id
    run = tracker.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    for name in run.data.metrics:
        steps = [step for step, *_ in history(tracker, run_id, name)]
        assert steps == ([0] if name.startswith("cv_") else [1, 2, 3]), name


def test_new_epochs_of_a_running_trial_send_only_the_new_points(sqlite_uri, monkeypatch):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "news")
    parent = tracker.sweep_run(a_sweep())
    tracker.sync_trial(parent, a_trial(state="running", epochs=2))
    sent = []

    def log_batch(client, run_id, metrics, params, tags):
        sent.append((metrics, params))

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    tracker.sync_trial(parent, a_trial(state="running", epochs=3))
    ((metrics, params),) = sent
    assert {metric.step for metric in metrics} == {3}
    assert params == []


def test_a_whole_trial_costs_one_create_one_batch_one_upload_and_one_end(sqlite_uri, monkeypatch):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "calls")
    parent = tracker.sweep_run(a_sweep())
    calls = Calls().watch(monkeypatch)
    points = [MetricPoint(f"fold_{i % 5 + 1}/m{i % 8}", i / 800, i // 40, 1_700_000_000_000 + i) for i in range(800)]
    trial = a_trial(metrics=points, params={f"a.setting_{i}": i for i in range(60)})
    tracker.sync_trial(parent, trial)
    assert calls == {"create_run": 1, "search_runs": 1, "log_batch": 1, "log_artifacts": 1, "set_terminated": 1}
    tracker.sync_trial(parent, trial)
    assert sum(calls.values()) == 5


def test_a_finished_sweep_read_by_a_fresh_process_is_not_sent_again(new_tracker, tracker, monkeypatch):
    parent = tracker.sweep_run(a_sweep())
    for key in "abc":
        tracker.sync_trial(parent, a_trial(key))
    fresh = new_tracker()
    fresh.sweep_run(a_sweep())
    calls = Calls().watch(monkeypatch)
    for key in "abc":
        fresh.sync_trial(parent, a_trial(key))
    assert calls == {"search_runs": 1}


def test_more_than_a_batch_holds_is_cut_to_the_limits(tracker):
    params = {f"p.{i}": "x" * 7000 for i in range(250)}
    points = [MetricPoint(f"m{i % 20}", i / 7, i // 20, 1_700_000_000_000) for i in range(2500)]
    trial = a_trial(params=params, metrics=points, tags={f"t{i}": "y" * 9000 for i in range(120)})
    run = tracker.client.get_run(tracker.sync_trial(tracker.sweep_run(a_sweep()), trial))
    assert len(run.data.params) == 250
    assert {len(value) for value in run.data.params.values()} == {6000}
    assert len(history(tracker, run.info.run_id, "m7")) == 125
    assert len(run.data.tags["t119"]) == 8000


def test_a_name_mlflow_refuses_is_changed_and_the_sweep_goes_on(tracker):
    odd = ["acc@5", "a//b", "../up", "f1 (macro)", "x" * 300, "ok/kept-1.0 :"]
    trial = a_trial(metrics=[MetricPoint(name, 0.5, 0, 1) for name in odd], params={"p@q": 1, "empty": ""})
    run = tracker.client.get_run(tracker.sync_trial(tracker.sweep_run(a_sweep()), trial))
    assert {"acc_5", "a/b", "__/up", "f1 _macro_", "ok/kept-1.0 :"} < set(run.data.metrics)
    assert len(run.data.metrics) == len(odd)
    assert run.data.params["p_q"] == "1"
    assert run.data.params["empty"] == ""


def test_nan_reads_back_as_nan_and_infinity_never_as_a_number(new_tracker, tracker):
    points = [
        MetricPoint("fold_1/val_auc", math.nan, 1, 5),
        MetricPoint("fold_1/train_loss", math.inf, 1, 5),
        MetricPoint("fold_1/val_loss", -math.inf, 2, 5),
    ]
    parent = tracker.sweep_run(a_sweep())
    run_id = tracker.sync_trial(parent, a_trial(metrics=points))
    new_tracker().client.delete_tag(run_id, "gemma_nli.delivered")
    assert new_tracker().sync_trial(parent, a_trial(metrics=points)) == run_id
    run = tracker.client.get_run(run_id)
    assert len(run.data.metrics) == 3
    assert all(math.isnan(value) for value in run.data.metrics.values())
    assert all(len(history(tracker, run_id, name)) == 1 for name in run.data.metrics)
    assert run.data.tags["gemma_nli.infinite_metrics"] == "fold_1/train_loss step 1: inf; fold_1/val_loss step 2: -inf"


def test_a_param_that_changed_keeps_its_first_value_and_says_so(new_tracker, tracker):
    parent = tracker.sweep_run(a_sweep())
    tracker.sync_trial(parent, a_trial(params={"data.data_dir": "here"}))
    run_id = new_tracker().sync_trial(parent, a_trial(params={"data.data_dir": "there"}))
    run = tracker.client.get_run(run_id)
    assert run.data.params["data.data_dir"] == "here"
    assert run.data.tags["changed/data.data_dir"] == "there"


def test_a_run_that_contradicts_its_journal_is_projected_anew(new_tracker, tracker):
    parent = tracker.sweep_run(a_sweep())
    stale = tracker.sync_trial(parent, a_trial(state="running", metrics=[MetricPoint("fold_1/val_f1", 0.1, 1, 5)]))
    fresh = new_tracker().sync_trial(parent, a_trial(metrics=[MetricPoint("fold_1/val_f1", 0.2, 1, 5)]))
    assert fresh != stale
    assert history(tracker, fresh, "fold_1/val_f1") == [(1, 0.2, 5)]
    assert set(tracker.known_trials(parent)) == {"k1"}


def test_a_lost_answer_to_create_leaves_one_run(tracker, monkeypatch):
    parent = tracker.sweep_run(a_sweep())
    create = MlflowClient.create_run

    def lose(*args, **kwargs):
        create(*args, **kwargs)
        raise ConnectionError("answer lost")

    monkeypatch.setattr(MlflowClient, "create_run", lose)
    with pytest.raises(TrackingError, match="answer lost"):
        tracker.sync_trial(parent, a_trial())
    monkeypatch.setattr(MlflowClient, "create_run", create)
    tracker.sync_trial(parent, a_trial())
    assert len(runs(tracker, ViewType.ALL)) == 2  # nor is a twin left in the bin
    assert next(iter(tracker.known_trials(parent).values()))[1] == "FINISHED"


def test_twins_made_by_a_retried_request_become_one(new_tracker, tracker, monkeypatch):
    create = MlflowClient.create_run

    def twice(*args, **kwargs):
        create(*args, **kwargs)
        time.sleep(0.002)
        return create(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", twice)
    parent = tracker.sweep_run(a_sweep())
    run_id = tracker.sync_trial(parent, a_trial())
    assert {run.info.run_id for run in runs(tracker)} == {parent, run_id}
    assert new_tracker().known_trials(parent) == {"k1": (run_id, "FINISHED")}


def test_two_writers_of_one_trial_end_with_one_whole_run(new_tracker, tracker):
    parent = tracker.sweep_run(a_sweep())
    writers = [new_tracker() for _ in range(3)]
    for writer in writers:
        writer.known_trials(parent)  # each now believes that no run exists

    def write(writer: MlflowTracker) -> None:
        with contextlib.suppress(TrackingError):  # an outbox would try again
            writer.sync_trial(parent, a_trial())

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    new_tracker().sync_trial(parent, a_trial())
    ((run_id, status),) = new_tracker().known_trials(parent).values()
    assert status == "FINISHED"
    assert len(history(tracker, run_id, "fold_1/val_f1")) == 3


def test_a_run_deleted_under_our_hands_is_made_again(tracker):
    parent = tracker.sweep_run(a_sweep())
    first = tracker.sync_trial(parent, a_trial(state="running", epochs=1))
    tracker.client.delete_run(first)
    second = tracker.sync_trial(parent, a_trial())
    assert second != first
    assert len(history(tracker, second, "fold_1/val_f1")) == 3


def test_a_resumed_sweep_is_the_same_run_running_again(new_tracker, tracker):
    parent = tracker.sweep_run(a_sweep())
    tracker.sync_trial(parent, a_trial())
    tracker.end_sweep(parent, "finished", {"trials/finished": 1.0}, {"gemma_nli.best": "k1"})
    assert tracker.client.get_run(parent).info.status == "FINISHED"
    later = new_tracker()
    assert later.sweep_run(a_sweep(params={"search.num_trials": 6})) == parent
    run = tracker.client.get_run(parent)
    assert run.info.status == "RUNNING"
    assert run.data.tags["changed/search.num_trials"] == "6"
    for _ in range(2):
        later.end_sweep(parent, "finished", {"trials/finished": 2.0})
    assert [value for _, value, _ in history(tracker, parent, "trials/finished")] == [1.0, 2.0]
    assert tracker.client.get_run(parent).data.tags["gemma_nli.question"] == "Which pooling?"


def test_a_deleted_sweep_run_is_replaced_by_one_new_run(new_tracker, tracker):
    first = tracker.sweep_run(a_sweep())
    tracker.client.delete_run(first)
    second = new_tracker().sweep_run(a_sweep())
    assert second != first
    assert new_tracker().sweep_run(a_sweep()) == second


def test_every_trial_is_known_past_the_first_page(sqlite_uri, monkeypatch):
    monkeypatch.setattr("gemma_nli.tracking.write.runs.search.__defaults__", ((), 3))
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "pages")
    parent = tracker.sweep_run(a_sweep())
    for i in range(8):
        tracker.sync_trial(parent, a_trial(f"k{i}", epochs=1))
    calls = Calls().watch(monkeypatch)
    assert len(tracker.known_trials(parent)) == 8
    assert calls["search_runs"] == 3


def test_a_failed_trial_shows_its_last_line_and_its_traceback_without_the_password(tracker):
    error = "Traceback (most recent call last):\n  ...\nOSError: postgresql://me:canary@db/x is away"
    run_id = tracker.sync_trial(tracker.sweep_run(a_sweep()), a_trial(state="failed", error=error))
    run = tracker.client.get_run(run_id)
    assert run.data.tags["gemma_nli.error"] == "OSError: postgresql://***@db/x is away"
    text = Path(tracker.client.download_artifacts(run_id, "traceback.txt")).read_text()
    assert text.startswith("Traceback")
    assert "canary" not in text


def test_a_trial_outside_a_sweep_is_one_run_too(new_tracker, tracker):
    run_id = tracker.sync_trial(None, a_trial())
    assert new_tracker().sync_trial(None, a_trial()) == run_id


def test_an_artifact_name_cannot_leave_the_runs_folder(tracker):
    parent = tracker.sweep_run(a_sweep())
    for name in ("../evil", "/etc/evil", ""):
        with pytest.raises(TrackingError, match="inside the run's folder"):
            tracker.sync_trial(parent, a_trial(artifacts={name: b"x"}))


def test_a_dead_server_costs_seconds_and_shows_no_password(slept):
    uri = f"http://user:canary@127.0.0.1:{free_port()}"
    tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "dead")
    with pytest.raises(TrackingError) as caught:
        tracker.sweep_run(a_sweep())
    assert sum(slept) < 10
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_deleted_experiment_tells_how_to_restore_it(sqlite_uri):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "gone")
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "gone").sweep_run(a_sweep())


def test_the_store_is_resolved_once_and_not_touched_before_use(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))
    tracker = MlflowTracker(MlflowConfig(), "lazy")
    assert not (tmp_path / "home").exists()
    assert tracker.store == resolve_store(MlflowConfig())
