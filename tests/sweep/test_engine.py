"""A sweep, from spec to registered model, on a real local Ray and a real MLflow store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import SweepBusyError
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.records.sweep_result import SweepResult
from gemma_nli.tracking.read.queries import best_trial
from gemma_nli.training.cross_validation import cross_validate
from gemma_nli.trial import TrialJournal
from tests.sweep.conftest import spec_of

pytestmark = pytest.mark.usefixtures("local_ray")


def runs_of(tree: dict[str, Any], kind: str = "trial") -> list[Run]:
    client = MlflowClient(tree["base"]["mlflow"]["tracking_uri"])
    experiment = client.get_experiment_by_name("little")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`gemma_nli.kind` = '{kind}'", max_results=1000))


def check_whole(tree: dict[str, Any], result: SweepResult, cells: int) -> list[Run]:
    """One parent, each cell once under it, each number once, nothing left running."""
    runs = runs_of(tree)
    assert len({run.data.tags["gemma_nli.trial_key"] for run in runs}) == len(runs) == cells
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {result.sweep_run_id}
    client = MlflowClient(tree["base"]["mlflow"]["tracking_uri"])
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "fold_1/val_f1")
        assert [metric.step for metric in history] == [1, 2, 3]
    return runs


def test_a_sweep_runs_records_and_registers_and_again_runs_nothing(sweep_tree, tiny_bert):
    first = run_sweep(spec_of(sweep_tree))
    assert first.trials == {"finished": 4, "pruned": 0, "failed": 0}
    assert (first.ran, first.exit_status) == (4, 0)
    assert first.registered is not None
    assert (first.registered["name"], first.registered["version"]) == ("gemma_nli_little", 1)
    assert first.registered["alias"] == "candidate"
    assert first.texts["encoded"] > 0
    check_whole(sweep_tree, first, cells=4)

    again = run_sweep(spec_of(sweep_tree))
    assert (again.ran, again.texts) == (0, {"encoded": 0, "reused": 0})
    assert (again.sweep_run_id, again.best_run_id) == (first.sweep_run_id, first.best_run_id)
    assert again.registered == {**first.registered, "created": False}
    check_whole(sweep_tree, again, cells=4)

    longer = {**sweep_tree["space"], "training.learning_rate": {"grid": ["1e-3", "1e-2", "3e-3"]}}
    extended = run_sweep(spec_of(sweep_tree, space=longer))
    assert (extended.ran, extended.sweep_run_id) == (2, first.sweep_run_id)
    assert extended.texts["encoded"] == 0
    check_whole(sweep_tree, extended, cells=6)

    other = run_sweep(spec_of(sweep_tree, name="another"))
    assert other.ran == 0
    assert other.sweep_run_id != first.sweep_run_id
    shown = [run for run in runs_of(sweep_tree) if run.data.tags["mlflow.parentRunId"] == other.sweep_run_id]
    assert len(shown) == 4
    assert {run.data.tags["reused_from"] for run in shown} == {first.sweep_id}
    json.dumps(other.to_json(), allow_nan=False)


def test_a_sweep_leaves_no_variable_of_rays_in_the_environment(finished_sweep):
    assert "TUNE_MAX_PENDING_TRIALS_PG" not in os.environ


def test_the_runs_have_the_names_that_users_know(finished_sweep):
    sweep_tree, result = finished_sweep
    client = MlflowClient(sweep_tree["base"]["mlflow"]["tracking_uri"])
    run = client.get_run(result.best_run_id)
    metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
    measured = ("loss", "f1", "auc", "accuracy", "precision", "recall", "ap")
    assert {"fold_3/train_loss", *(f"fold_3/val_{name}" for name in measured)} <= set(metrics)
    for name in ("mean_f1", "std_f1", "median_f1", "mean_auc", "std_auc", "macro_f1", "optimism_f1"):
        assert f"cv_aggregate/{name}" in metrics
    assert {"cv_summary/fold_1_best_f1", "cv_summary/fold_1_best_auc"} <= set(metrics)
    assert {"trial_id", "pid", "config/seed"}.isdisjoint(metrics)
    assert params["model.pooling_strategy"] in ("mean", "cls")
    total, positive, negative = (int(params[f"dataset/{name}_pairs"]) for name in ("total", "positive", "negative"))
    assert total == positive + negative > 0
    assert tags["task"] == "nli_binary_classification"
    assert {"has_gpu", "gpu_name", "supports_bfloat16", "version.torch", "gemma_nli.fold_fingerprint"} <= set(tags)
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    wanted = {"config.yaml", "aggregate_results.json", "nli_pairs.csv", "nli_cv_folds_metadata.json"}
    wanted |= {f"fold_{k}_{what}" for k in (1, 2, 3) for what in ("best.safetensors", "history.json")}
    assert wanted <= names
    pairs = pd.read_csv(client.download_artifacts(run.info.run_id, "nli_pairs.csv"))
    assert {"premise", "text"}.isdisjoint(pairs.columns)
    parent = client.get_run(result.sweep_run_id)
    assert {"gemma_nli.data_fingerprint", "gemma_nli.fold_fingerprint"} <= set(parent.data.tags)
    assert "sweep.yaml" in {file.path for file in client.list_artifacts(parent.info.run_id)}


def test_the_best_trial_is_found_and_gives_its_numbers_again(finished_sweep):
    sweep_tree, result = finished_sweep
    found = best_trial("little", tracking_uri=sweep_tree["base"]["mlflow"]["tracking_uri"])
    assert found.run_id == result.best_run_id
    corpus = load_corpus(found.config.data.data_dir)
    pairs = build_pairs(corpus, found.config.data)
    again = cross_validate(found.config, corpus, pairs, FeatureStore(Path(sweep_tree["storage"]) / "features"))
    for name, value in again.aggregates.items():
        np.testing.assert_allclose(found.metrics[name], value, atol=1e-6, err_msg=name)


def test_the_registered_model_answers_without_pickle(finished_sweep, monkeypatch):
    sweep_tree, result = finished_sweep
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(sweep_tree["base"]["mlflow"]["tracking_uri"])
    model = mlflow.pyfunc.load_model(f"models:/{result.registered['name']}@candidate")
    answer = model.predict(pd.DataFrame({"premise": ["i cannot sleep"], "hypothesis": ["Sleep is broken."]}))
    assert 0 <= answer["probability"][0] <= 1
    assert answer["label"][0] in (0, 1)
    version = MlflowClient().get_model_version(result.registered["name"], str(result.registered["version"]))
    assert version.tags["gemma_nli.trial_run_id"] == result.best_run_id
    assert version.tags["gemma_nli.sweep_run_id"] == result.sweep_run_id
    assert {"gemma_nli.data_fingerprint", "gemma_nli.metric"} <= set(version.tags)


def test_failed_and_cut_off_cells_run_again_and_the_others_do_not(sweep_tree):
    spec = spec_of(sweep_tree)
    run_sweep(spec)
    ready = prepare(spec)
    keys = list(ready.cells)
    TrialJournal(ready.storage, keys[0]).stop("failed", error="a node was lost")
    journal = TrialJournal(ready.storage, keys[1])
    journal.path.write_bytes(journal.path.read_bytes()[:-40])
    result = run_sweep(spec)
    assert (result.ran, result.trials["finished"], result.trials["failed"]) == (2, 4, 0)
    check_whole(sweep_tree, result, cells=4)


def test_a_trial_that_cannot_work_fails_alone_and_says_why(sweep_tree):
    sweep_tree["space"] = {"model.lora.target_modules": {"grid": [["query"], ["querry"]]}}
    sweep_tree["base"]["model"]["freeze_encoder"] = False
    sweep_tree["base"]["training"]["num_epochs"] = 1
    result = run_sweep(spec_of(sweep_tree))
    assert result.trials == {"finished": 1, "pruned": 0, "failed": 1}
    assert result.exit_status == 1
    failed = [run for run in runs_of(sweep_tree) if run.info.status == "FAILED"]
    assert len(failed) == 1
    assert "querry" in failed[0].data.tags["gemma_nli.error"]
    client = MlflowClient(sweep_tree["base"]["mlflow"]["tracking_uri"])
    assert "traceback.txt" in {file.path for file in client.list_artifacts(failed[0].info.run_id)}


def test_two_commands_at_once_are_refused_with_the_holder(sweep_tree):
    spec = spec_of(sweep_tree)
    ready = prepare(spec)
    with SweepFolder(ready.folder).held(spec.name), pytest.raises(SweepBusyError, match="process"):
        run_sweep(spec)


def test_optuna_searches_a_conditional_space_and_goes_on_where_it_was(sweep_tree):
    sweep_tree["space"] = {
        "model.pooling_strategy": {"choice": ["mean", "last_k"]},
        "model.pooling_k": {"int": [1, 3], "when": {"model.pooling_strategy": "last_k"}},
        "training.learning_rate": {"loguniform": ["1e-4", "1e-1"]},
        "model.dropout": {"uniform": [0, 0.5]},
        "training.batch_size": {"choice": [16, 32]},
    }
    search = {"algorithm": "optuna", "sampler": "tpe", "num_trials": 3, "seed": 1}
    first = run_sweep(spec_of(sweep_tree, search=search))
    assert (first.ran, first.trials["finished"]) == (3, 3)
    more = run_sweep(spec_of(sweep_tree, search={**search, "num_trials": 5}))
    assert more.ran == 2
    assert more.sweep_run_id == first.sweep_run_id
    assert len(runs_of(sweep_tree)) == 5
