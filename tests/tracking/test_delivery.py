"""One way from a journal to MLflow, for a single run and for a sweep's trials."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gemma_nli
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.write.delivery import MlflowDelivery
from gemma_nli.tracking.write.outbox import undelivered
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_sweep, a_trial


@pytest.fixture
def tracker(sqlite_uri):
    return MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "delivery")


@pytest.mark.parametrize(
    ("state", "unfinished", "shown"),
    [
        ("running", "running", "RUNNING"),
        ("running", "stopped", "KILLED"),
        ("finished", "stopped", "FINISHED"),
        ("failed", "stopped", "FAILED"),
    ],
)
@pytest.mark.parametrize("in_a_sweep", [True, False])
def test_a_trial_without_an_end_is_shown_as_requested_and_any_other_as_it_ended(
    tracker, tmp_path, state, unfinished, shown, in_a_sweep
):
    parent = tracker.sweep_run(a_sweep()) if in_a_sweep else None
    delivery = MlflowDelivery(tracker, tmp_path / "pending.jsonl", lambda key: a_trial(key, state), parent)
    delivery.submit("k1", unfinished)
    assert delivery.drain(60.0, away_seconds=60.0)
    run_id = delivery.run_id_of("k1")
    run = tracker.client.get_run(run_id)
    assert (run.info.status, run.data.tags.get("mlflow.parentRunId")) == (shown, parent)
    assert (run.info.end_time is None) == (shown == "RUNNING")
    assert delivery.deliver("k1", unfinished) == run_id
    delivery.close()


def test_a_trial_without_a_journal_gets_no_run(tracker, tmp_path):
    delivery = MlflowDelivery(tracker, tmp_path / "pending.jsonl", lambda key: None)
    delivery.submit("k1")
    assert delivery.drain(60.0, away_seconds=60.0)
    assert (delivery.run_id_of("k1"), delivery.deliver("k1")) == (None, None)
    delivery.close()


def test_a_store_that_does_not_answer_is_given_up_soon_and_its_trials_wait_on_the_list(tracker, tmp_path):
    def project(key):
        raise ConnectionError("no answer")

    delivery = MlflowDelivery(tracker, tmp_path / "pending.jsonl", project)
    delivery.submit("k1")
    assert not delivery.drain(600.0, away_seconds=0.1)
    delivery.close()
    assert undelivered(tmp_path / "pending.jsonl") == ["k1"]


def test_a_run_is_written_from_a_journal_in_one_place():
    root = Path(gemma_nli.__file__).parent
    callers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "sync_trial"
    }
    assert callers == {"tracking/write/delivery.py"}
