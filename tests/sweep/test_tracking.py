"""What a sweep leaves in MLflow beside its numbers: your tags, the dataset, the machine, a model with a role."""

from __future__ import annotations

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.sweep.engine import run_sweep
from gemma_nli.tracking.registry.registered_models import registered_versions
from gemma_nli.tracking.write.projection import KIND
from tests.commands import run_command
from tests.sweep.conftest import spec_of


@pytest.mark.usefixtures("local_ray")
def test_tags_dataset_machine_and_promotion_of_a_sweep_that_grows(sweep_tree, capsys):
    sweep_tree["base"]["mlflow"]["system_metrics_seconds"] = 0.1
    sweep_tree["space"] = {"model.pooling_strategy": {"grid": ["mean"]}}
    sweep_tree["tags"] = {"researcher": "ann", "ticket": 7, "note": "first look"}
    sweep_tree["finalize"] |= {"promote_if_better": "production", "promote_level": 0.2, "model_name": "matcher"}
    first = run_sweep(spec_of(sweep_tree))
    assert first.registered["promotion"] == {"to": "production", "promoted": True, "why": "no version was production"}
    assert "export_limit_gib" in first.registered["torch"]
    uri = sweep_tree["base"]["mlflow"]["tracking_uri"]
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("little")
    for run in client.search_runs([experiment.experiment_id]):
        assert (run.data.tags["researcher"], run.data.tags["ticket"]) == ("ann", "7")
        assert run.data.tags["mlflow.note.content"] == "first look"
        assert len(run.inputs.dataset_inputs) == 1
        if run.data.tags[KIND] == "trial":
            assert "system/cpu_utilization_percentage" in run.data.metrics
            assert run.data.tags["device"] in ("cpu", "cuda")
            assert "out_of_fold.safetensors" in {f.path for f in client.list_artifacts(run.info.run_id)}

    sweep_tree["space"] = {"model.pooling_strategy": {"grid": ["mean", "max", "cls"]}}
    second = run_sweep(spec_of(sweep_tree))
    (sweep,) = {version.sweep for version in registered_versions(uri)}
    assert sweep == "little"
    decision = second.registered["promotion"]
    versions = {version.version: version for version in registered_versions(uri)}
    if second.registered["version"] == first.registered["version"]:
        assert decision["why"] == "is production already"
    else:
        assert "paired bootstrap over posts" in decision["why"]
        assert all("level 0.2" in versions[number].decisions["production"] for number in (1, 2))
    (holder,) = [number for number, version in versions.items() if "production" in version.aliases]
    assert (holder == second.registered["version"]) == decision["promoted"]
    assert run_command("models", "matcher", "--tracking-uri", uri) == 0
    assert "production" in capsys.readouterr().out
