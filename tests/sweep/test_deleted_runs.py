"""Whatever is deleted in MLflow: after one more run of the command it is whole, each trial under its sweep, once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.records.sweep_result import SweepResult
from gemma_nli.tracking.registry.registered_models import load_model
from gemma_nli.tracking.write.projection import KIND, TRIAL_KEY
from tests.sweep.conftest import spec_of


def purge(client: MlflowClient, run_id: str) -> None:
    """As `mlflow gc` does: the run's rows and its files."""
    folder = Path(client.get_run(run_id).info.artifact_uri)
    client.delete_run(run_id)
    client._tracking_client.store._hard_delete_run(run_id)
    shutil.rmtree(folder)


def delete_the_sweeps_run(client: MlflowClient, last: SweepResult) -> None:
    client.delete_run(last.sweep_run_id)


def purge_the_sweeps_run(client: MlflowClient, last: SweepResult) -> None:
    purge(client, last.sweep_run_id)


def delete_every_trial(client: MlflowClient, last: SweepResult) -> None:
    for run in active(client):
        if run.data.tags[KIND] == "trial":
            client.delete_run(run.info.run_id)


def purge_the_models_run(client: MlflowClient, last: SweepResult) -> None:
    purge(client, last.best_run_id)


def delete_all(client: MlflowClient, last: SweepResult) -> None:
    for run in active(client):
        client.delete_run(run.info.run_id)


def orphan_a_trial(client: MlflowClient, last: SweepResult) -> None:
    client.set_tag(last.best_run_id, "mlflow.parentRunId", "0" * 32)


DAMAGES = (
    delete_the_sweeps_run,
    purge_the_sweeps_run,
    delete_every_trial,
    purge_the_models_run,
    delete_all,
    orphan_a_trial,
)


def active(client: MlflowClient) -> list:
    experiment = client.get_experiment_by_name("little")
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.usefixtures("local_ray")
def test_a_store_that_lost_runs_is_whole_after_the_same_command(sweep_tree):
    sweep_tree["space"] = {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}}
    sweep_tree["base"]["training"]["num_epochs"] = 1
    spec = spec_of(sweep_tree)
    uri = sweep_tree["base"]["mlflow"]["tracking_uri"]
    last = run_sweep(spec)
    client = MlflowClient(uri, uri)
    for harm in DAMAGES:
        harm(client, last)
        last = run_sweep(spec)
        assert (last.ran, last.exit_status, last.undelivered) == (0, 0, 0), harm.__name__
        check_whole(client, last, harm)
        load_model(f"models:/{last.registered['name']}@candidate", uri)


def check_whole(client: MlflowClient, last: SweepResult, harm: Callable[..., None]) -> None:
    runs = active(client)
    trials = [run for run in runs if run.data.tags[KIND] == "trial"]
    (sweep,) = [run for run in runs if run.data.tags[KIND] == "sweep"]
    assert sweep.info.run_id == last.sweep_run_id, harm.__name__
    assert len({run.data.tags[TRIAL_KEY] for run in trials}) == len(trials) == 2, harm.__name__
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {last.sweep_run_id}, harm.__name__
    assert {run.info.status for run in runs} == {"FINISHED"}, harm.__name__
    version = client.get_model_version(last.registered["name"], str(last.registered["version"]))
    ids = {run.info.run_id for run in runs}
    assert {version.run_id, version.tags["gemma_nli.sweep_run_id"], last.best_run_id} <= ids, harm.__name__


@pytest.mark.usefixtures("local_ray")
def test_two_sweeps_that_share_a_trial_each_keep_their_own_runs(sweep_tree):
    sweep_tree["space"] = {"training.learning_rate": {"grid": ["1e-3"]}}
    sweep_tree["base"]["training"]["num_epochs"] = 1
    other = {**sweep_tree, "name": "other", "finalize": {"enabled": False}}
    uri = sweep_tree["base"]["mlflow"]["tracking_uri"]
    one, two = run_sweep(spec_of(sweep_tree)), run_sweep(spec_of(other))
    client = MlflowClient(uri, uri)
    client.delete_run(one.sweep_run_id)
    one = run_sweep(spec_of(sweep_tree))
    parents = sorted(r.data.tags["mlflow.parentRunId"] for r in active(client) if r.data.tags[KIND] == "trial")
    assert parents == sorted([one.sweep_run_id, two.sweep_run_id])
