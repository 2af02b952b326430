"""What is no part of a trial's key comes from the sweep that asks for it, not from the one that computed it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.config import RunConfig
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.prepare import prepare
from gemma_nli.tracking.read.queries import best_trial
from gemma_nli.trial import TrialJournal
from tests.sweep.conftest import spec_of


@pytest.mark.usefixtures("local_ray")
def test_cells_that_another_experiment_computed_are_shown_and_registered_as_the_sweeps_own(
    sweep_tree, tmp_path, small_corpus, tiny_bert
):
    """The first experiment's data, encoder and store are gone when the second asks for the same cells."""
    for name, source in (("data", small_corpus), ("encoder", tiny_bert)):
        shutil.copytree(source, tmp_path / "first" / name)
        shutil.copytree(source, tmp_path / "second" / name)

    def of(experiment: str, name: str) -> dict[str, object]:
        base = json.loads(json.dumps(sweep_tree["base"]))
        base["data"] |= {"data_dir": str(tmp_path / experiment / "data"), "log_text": experiment == "first"}
        base["model"]["name"] = str(tmp_path / experiment / "encoder")
        base["mlflow"]["tracking_uri"] = f"sqlite:///{tmp_path / experiment / 'mlflow.db'}"
        base["output"]["experiment_name"] = experiment
        tags = {"researcher": experiment}
        return {**sweep_tree, "name": name, "base": base, "tags": tags, "report": {"enabled": True}}

    space = {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}}
    run_sweep(spec_of(of("first", "one"), space=space))
    shutil.rmtree(tmp_path / "first")

    spec = spec_of(of("second", "two"), space=space)
    result = run_sweep(spec)
    assert (result.ran, result.exit_status) == (0, 0)
    assert result.registered["name"] == "gemma_nli_second"
    client = MlflowClient(spec.base.mlflow.tracking_uri)
    assert [model.name for model in client.search_registered_models()] == ["gemma_nli_second"]
    for run in client.search_runs([client.get_experiment_by_name("second").experiment_id]):
        reported = json.dumps(
            [run.data.params, run.data.tags, [i.dataset.to_dictionary() for i in run.inputs.dataset_inputs]]
        )
        assert str(tmp_path / "first") not in reported
        assert run.data.params["output.experiment_name"] == "second"
        assert run.data.params["data.log_text"] == "False"
        assert run.data.tags["researcher"] == "second"
        assert all("text" not in file.path for file in client.list_artifacts(run.info.run_id))
        pairs = Path(client.download_artifacts(run.info.run_id, "nli_pairs.csv")).read_text().splitlines()
        assert "premise" not in pairs[0]
    found = best_trial("second", tracking_uri=spec.base.mlflow.tracking_uri)
    assert found.config.data.data_dir == str(tmp_path / "second" / "data")
    version = client.get_model_version("gemma_nli_second", "1")
    bundle = next(Path(client.download_artifacts(version.run_id, ".")).rglob("bundle.json")).read_text()
    assert str(tmp_path / "first") not in bundle
    page = Path(result.report["html"]).read_text()
    assert str(tmp_path / "first") not in page
    assert str(tmp_path / "second" / "data") in page


def test_a_record_is_given_the_configuration_of_who_asks(sweep_tree):
    """Also of a cell that the sweep no longer lists; what decides the numbers stays the record's."""
    spec = spec_of(sweep_tree)
    ready = prepare(spec)
    key, cell = next(iter(ready.cells.items()))
    theirs = cell.config.with_settings(
        {
            "output.experiment_name": "other",
            "data.data_dir": "/gone",
            "device.device": "cpu",
            "data.log_text": True,
            "mlflow.tracking_uri": "sqlite:////gone/mlflow.db",
            "training.focal_gamma": 3.0,
        }
    )
    journal = TrialJournal(ready.storage, key)
    journal.start(theirs, ready.pairs.fingerprint, "", ready.pairs.num_folds)
    trial_changed = next(iter(ready.corpus.posts.values()))
    journal.stop("failed", error=f"ValueError: {trial_changed}", traceback=f"line 1\n{trial_changed}")
    record = ready.read(key)
    assert record.config == cell.config
    assert trial_changed not in f"{record.error}{record.traceback}"
    ready.cells.clear()
    assert ready.read(key).config == cell.config


def test_settings_that_decide_numbers_are_never_taken_from_who_asks():
    mine = RunConfig().with_settings(
        {"model.pooling_strategy": "max", "training.learning_rate": 1e-3, "data.fold_seed": 9}
    )
    base = RunConfig().with_settings({"output.experiment_name": "asking", "training.learning_rate": 1e-5})
    own = mine.asked_by(base)
    assert own.canonical() == mine.canonical()
    assert own.output == base.output
    lora = RunConfig().with_settings({"model.freeze_encoder": False, "model.lora.rank": 4})
    assert lora.asked_by(base).canonical() == lora.canonical()
