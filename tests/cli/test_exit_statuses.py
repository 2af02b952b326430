"""A command's exit status is what it found: 0 for a good end, 1 for a bad one, 2 for a mistake, 130 interrupted.

What a command runs is tested where it lies; here it is ended in each way that it can end, and the command asked.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import SweepError
from gemma_nli.local.train import run_here
from tests.commands import run_command
from tests.local.conftest import config, corpus_folder
from tests.sweep.test_outcome import result
from tests.tracking.conftest import empty_database, sqlite_uri

__all__ = ["config", "corpus_folder", "empty_database", "sqlite_uri"]


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nspace: {training.seed: {grid: [1, 2]}}\nbase: {mlflow: {enabled: false}}\n")
    return str(path)


@pytest.mark.parametrize(
    ("status", "changes"),
    [(0, {}), (1, {"waiting": 2}), (1, {"best": None}), (130, {"interrupted": True})],
)
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_sweep_ends_with_the_status_of_its_result(sweep_file, monkeypatch, status, changes, more):
    found = result(seconds={"total": 1.0}, texts={"encoded": 0, "reused": 0}, **changes)
    monkeypatch.setattr("gemma_nli.sweep.engine.run_sweep", lambda spec, watch: found)
    assert run_command("sweep", sweep_file, *more) == status


@pytest.mark.parametrize(
    ("status", "error"),
    [(2, SweepError("a mistake")), (130, KeyboardInterrupt()), (1, ZeroDivisionError("a fault of ours"))],
)
def test_what_a_sweep_raises_decides_the_status(sweep_file, monkeypatch, capsys, status, error):
    def raising(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("gemma_nli.sweep.engine.run_sweep", raising)
    assert run_command("sweep", sweep_file) == status
    assert ("Traceback" in capsys.readouterr().err) == (status == 1)


@pytest.mark.parametrize(("waiting", "status"), [(0, 0), (2, 1)])
def test_flush_ends_with_1_while_trials_wait(monkeypatch, capsys, waiting, status):
    monkeypatch.setattr("gemma_nli.sweep.resume.flush_sweep", lambda name: (5, waiting))
    assert run_command("flush", "x") == status
    said = capsys.readouterr().out
    assert all(number in said for number in ("5", str(waiting)))


def test_a_run_that_failed_ends_with_1_however_it_is_printed(config, monkeypatch):
    done = run_here(config.with_settings({"mlflow.enabled": False}))
    failed = dataclasses.replace(done, record=dataclasses.replace(done.record, state="failed", error="fold 1 diverged"))
    for run, status in ((done, 0), (failed, 1)):
        monkeypatch.setattr("gemma_nli.local.train.run_here", lambda *_, run=run: run)
        assert run_command("train") == run_command("train", "--json") == status


@pytest.mark.parametrize(
    "tag", ["mlflow.user=me", "gemma_nli.trial_key=x", "version.torch=1", "=x", "nothing", "a\nb=c"]
)
def test_a_tag_that_is_none_or_not_the_users_is_a_mistake(sweep_file, monkeypatch, capsys, tag):
    monkeypatch.setattr("gemma_nli.sweep.engine.run_sweep", lambda spec, watch: pytest.fail("it ran"))
    assert run_command("sweep", sweep_file, "--tag", tag) == 2
    assert "--tag" in capsys.readouterr().err


def test_no_message_of_a_mistake_holds_a_password(sweep_file, monkeypatch, capsys):
    def raising(*_: Any, **__: Any) -> None:
        raise SweepError("postgresql://ann:pass-canary@db/x: cannot be reached")

    monkeypatch.setattr("gemma_nli.sweep.engine.run_sweep", raising)
    assert run_command("sweep", sweep_file) == 2
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert "canary" not in said


@pytest.mark.parametrize(("typed", "kept"), [("\n", True), ("n\n", True), ("y\n", False)])
def test_only_a_yes_deletes_runs_for_good(sqlite_uri, monkeypatch, capsys, typed, kept):
    """What Enter alone means is the answer that can be taken back."""
    client = MlflowClient(sqlite_uri, sqlite_uri)
    run = client.create_run(client.create_experiment("old"))
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    monkeypatch.setattr("gemma_nli.tracking.store.clean_and_export.clean", lambda plan: f"{len(plan.runs)} gone")
    assert run_command("clean", "--experiment", "old", "--tracking-uri", sqlite_uri) == int(kept)
    assert ("1 gone" in capsys.readouterr().out) != kept
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"
