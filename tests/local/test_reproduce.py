"""A recorded run trained anew from MLflow alone: equal to the last bit, or with a note on what is not the same."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from mlflow.tracking import MlflowClient

import gemma_nli
from gemma_nli.base.errors import TrackingError
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.local.reproduce import reproduce
from gemma_nli.local.train import run_here
from tests.commands import run_command


def test_every_metric_comes_out_the_same_and_nothing_is_written(config, sqlite_uri, runs_of):
    run = run_here(config)
    shutil.rmtree(run.folder.parent.parent.parent)  # the journals: MLflow alone must do
    reported = reproduce(run.run_id, sqlite_uri)
    assert reported.equal
    assert {row.metric for row in reported.rows} >= {
        "cv_aggregate/mean_f1",
        "fold_2/val_loss",
        "cv_summary/fold_1_best_f1",
    }
    assert len(runs_of("single")) == 1
    assert not [note for note in reported.notes if "differ" in note]
    assert gemma_nli.reproduce is reproduce


def test_another_corpus_is_noted_and_the_differences_shown(config, sqlite_uri, tmp_path, capsys):
    run = run_here(config)
    write_synthetic(tmp_path / "other", num_posts=60, seed=4)
    words = ["reproduce", run.run_id, f"data.data_dir={tmp_path / 'other'}", "--tracking-uri", sqlite_uri]
    assert run_command(*words, "--json") == 1
    reported = json.loads(capsys.readouterr().out)
    assert not reported["equal"]
    assert any("the corpus differs" in note for note in reported["notes"])
    assert run_command(*words) == 1
    out = capsys.readouterr().out
    assert "cv_aggregate/mean_f1" in out
    assert "the corpus differs" in out


def test_other_code_and_versions_are_noted(config, sqlite_uri):
    run = run_here(config)
    client = MlflowClient(sqlite_uri, sqlite_uri)
    client.set_tag(run.run_id, "gemma_nli.git_commit", "0" * 40)
    client.set_tag(run.run_id, "version.torch", "1.0.0")
    notes = "\n".join(reproduce(run.run_id, sqlite_uri).notes)
    assert f"the code's commit differs: {'0' * 40} then" in notes
    assert "torch differs: 1.0.0 then" in notes


def test_a_setting_that_decides_numbers_is_noted(config, sqlite_uri):
    run = run_here(config)
    reported = reproduce(run.run_id, sqlite_uri, {"training.seed": 7})
    assert any("settings changed since then: training.seed" in note for note in reported.notes)


@pytest.mark.parametrize(("kind", "reported"), [("sweep", "is a sweep"), ("trial", "no config.yaml")])
def test_runs_without_a_configuration_are_told(sqlite_uri, kind, reported):
    client = MlflowClient(sqlite_uri, sqlite_uri)
    run = client.create_run("0", tags={"gemma_nli.kind": kind})
    with pytest.raises(TrackingError, match=reported):
        reproduce(run.info.run_id, sqlite_uri)
    with pytest.raises(TrackingError, match="no run 'abc'"):
        reproduce("abc", sqlite_uri)


def test_numbers_that_moved_by_less_than_the_tolerance_are_counted_and_told(config, sqlite_uri, capsys):
    from gemma_nli.console.command_results import show_reproduction

    reported = reproduce(run_here(config).run_id, sqlite_uri)
    row = next(row for row in reported.rows if row.metric == "fold_2/val_loss")
    near = [dataclasses.replace(each, now=each.now + 1e-8) if each is row else each for each in reported.rows]
    far = [dataclasses.replace(each, now=each.now + 1e-3) if each is row else each for each in reported.rows]
    for rows, equal in ((near, True), (far, False)):
        moved = dataclasses.replace(reported, rows=rows)
        assert moved.equal == equal
        assert [each.metric for each in moved.moved] == ["fold_2/val_loss"]
        show_reproduction(moved)
        out = " ".join(capsys.readouterr().out.split())
        assert "1 differs, fold_2/val_loss most" in out
        assert ("not all within 1e-06" in out) == (not equal)
