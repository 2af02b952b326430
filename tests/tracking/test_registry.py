from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig, RunConfig
from gemma_nli.model.bundles.bundle import save_bundle
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import load_encoder
from gemma_nli.tracking.registry.model_folder import requirements
from gemma_nli.tracking.registry.register import bundle_digest, find_registered
from gemma_nli.tracking.registry.register import register_bundle as register_and_export
from gemma_nli.tracking.registry.registered_models import load_scorer
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_sweep, a_trial

register_bundle = partial(register_and_export, export_limit_gib=0.0)  # an export takes seconds: test_torch_models.py
TAGS = {"gemma_nli.trial_key": "k1", "gemma_nli.fold_fingerprint": "fold-print", "metric": "0.9"}
PAIRS = pd.DataFrame({"premise": ["i feel so sad", "fine"], "hypothesis": ["depressed mood", "fatigue"]})
LOAD = """
import json, sys, mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(pandas.DataFrame(json.loads(sys.argv[2])))
print("ANSWER", json.dumps(answer.to_dict("list") | {"code": sys.modules["gemma_nli"].__file__}))
"""


@pytest.fixture(scope="session")
def bundle(tiny_gemma3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle", tiny_gemma3, 1)


def make_bundle(folder: Path, model: Path, seed: int, **metadata: object) -> Path:
    config = RunConfig().with_settings({"model.name": str(model), "device.device": "cpu"})
    encoder = load_encoder(config.model, config.device)
    classifier = PairClassifier(encoder, config.model)
    classifier.reset(torch.Generator().manual_seed(seed))
    return save_bundle(folder, config, classifier, 0.5, metadata)


@pytest.fixture
def recorded(sqlite_uri: str) -> tuple[MlflowTracker, str, str]:
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "registry")
    parent = tracker.sweep_run(a_sweep())
    return tracker, parent, tracker.sync_trial(parent, a_trial())


def test_a_registered_model_answers_the_same_in_a_fresh_process_without_pickle(recorded, bundle, tmp_path, sqlite_uri):
    tracker, parent, run_id = recorded
    made = register_bundle(bundle, "matcher", tracker, run_id, TAGS, parent)
    assert (made.version, made.alias, made.created, made.uri) == (1, "candidate", True, "models:/matcher/1")
    model = tracker.client.get_model_version_by_alias("matcher", "candidate")
    assert model.tags["gemma_nli.sweep_run_id"] == parent
    assert model.run_id == model.tags["gemma_nli.source_run_id"] == run_id
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": sqlite_uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-c", LOAD, "models:/matcher@candidate", PAIRS.to_json(orient="records")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))[7:])
    assert Path(answer["code"]).parts[-3:-1] == ("code", "gemma_nli")  # the model's own copy, not the installed one
    here = PairScorer.from_bundle(bundle).score(PAIRS)
    np.testing.assert_allclose(answer["probability"], here["probability"], rtol=0, atol=1e-6)
    assert answer["label"] == here["label"].tolist()


def test_a_stored_model_is_whole_signed_pinned_and_free_of_pickle_and_posts(recorded, bundle, tmp_path):
    tracker, _, run_id = recorded
    register_bundle(bundle, "matcher", tracker, run_id, TAGS)
    (stored,) = Path(tracker.client.download_artifacts(run_id, "", str(tmp_path))).glob("model-*")
    names = [path.name for path in stored.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt", ".pyc"))]
    assert (stored / "code" / "gemma_nli" / "model" / "bundles" / "scorer.py").is_file()
    described = (stored / "MLmodel").read_text()
    for word in ("premise", "hypothesis", "probability", "label", "double", "long"):
        assert word in described
    example = json.loads((stored / "input_example.json").read_text())
    assert all(text.startswith("Invented example") for text, _ in example["data"])
    assert [line for line in requirements() if "+" in line or "@" in line] == []
    assert set(requirements()) <= set((stored / "requirements.txt").read_text().splitlines())


def test_registering_again_makes_no_new_version(recorded, bundle, tiny_gemma3, tmp_path):
    tracker, _, run_id = recorded
    first = register_bundle(bundle, "matcher", tracker, run_id, TAGS)
    again = register_bundle(bundle, "matcher", tracker, run_id, TAGS)
    assert (again.version, again.created) == (first.version, False)
    same = make_bundle(tmp_path / "same", tiny_gemma3, 1, refitted_at="later")
    assert not register_bundle(same, "matcher", tracker, run_id, TAGS).created
    assert find_registered(tracker, "matcher", "k1", "fold-print") == again
    assert find_registered(tracker, "matcher", "k1", "other folds") is None
    assert find_registered(tracker, "unknown", "k1", "fold-print") is None
    other = register_bundle(make_bundle(tmp_path / "other", tiny_gemma3, 2), "matcher", tracker, run_id, TAGS)
    assert (other.version, other.created, other.alias) == (2, True, "candidate")
    assert register_bundle(bundle, "matcher", tracker, run_id, TAGS).alias is None  # the newer one keeps it


@pytest.mark.parametrize("call", ["create_registered_model", "create_model_version", "set_registered_model_alias"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_registration_is_completed_without_an_orphan(recorded, bundle, monkeypatch, call, moment):
    tracker, _, run_id = recorded
    real = getattr(MlflowClient, call)

    def dies(*args, **kwargs):
        if moment == "after":
            real(*args, **kwargs)
        raise ConnectionError("killed")

    monkeypatch.setattr(MlflowClient, call, dies)
    with pytest.raises(TrackingError, match="killed"):
        register_bundle(bundle, "matcher", tracker, run_id, TAGS)
    monkeypatch.setattr(MlflowClient, call, real)
    made = register_bundle(bundle, "matcher", tracker, run_id, TAGS)
    assert (made.version, made.alias) == (1, "candidate")
    assert len(tracker.client.search_model_versions("name = 'matcher'")) == 1


def test_a_retried_request_leaves_one_version(recorded, bundle, monkeypatch):
    tracker, _, run_id = recorded
    create = MlflowClient.create_model_version

    def twice(*args, **kwargs):
        create(*args, **kwargs)
        return create(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", twice)
    assert register_bundle(bundle, "matcher", tracker, run_id, TAGS).version == 1
    assert len(tracker.client.search_model_versions("name = 'matcher'")) == 1


def test_every_store_takes_and_gives_back_the_model(uri, bundle):
    import mlflow

    tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "registry")
    run_id = tracker.sync_trial(None, a_trial())
    made = register_bundle(bundle, "matcher", tracker, run_id, TAGS)
    mlflow.set_tracking_uri(uri)
    try:
        answer = mlflow.pyfunc.load_model(made.uri).predict(PAIRS)
    finally:
        mlflow.set_tracking_uri(None)
    pd.testing.assert_frame_equal(answer, PairScorer.from_bundle(bundle).score(PAIRS))


@pytest.mark.parametrize("name", ["My%20Project", "a?b#c {x} 50%41", 'it\'s "q"; [ü] & $HOME *'])
def test_a_bundle_in_a_folder_of_any_name_is_registered_and_loaded(bundle, tmp_path, monkeypatch, name):
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / name))
    tracker = MlflowTracker(MlflowConfig(), "registry")
    copied = Path(shutil.copytree(bundle, tmp_path / name / "bundle"))
    registered = register_bundle(copied, "m", tracker, tracker.sync_trial(None, a_trial()), TAGS)
    found = load_scorer(f"models:/m/{registered.version}").score(PAIRS)
    pd.testing.assert_frame_equal(found, PairScorer.from_bundle(bundle).score(PAIRS))
    assert os.listdir(tmp_path) == [name]


def test_the_digest_follows_content_and_names(bundle, tmp_path):
    other = tmp_path / "b"
    other.mkdir()
    (other / "bundle.json").write_text("{}")
    before = bundle_digest(other)
    (other / "x").write_text("")
    assert bundle_digest(other) != before != bundle_digest(bundle)


def test_a_folder_that_is_no_bundle_is_refused(recorded, tmp_path):
    tracker, _, run_id = recorded
    with pytest.raises(TrackingError, match="no bundle"):
        register_bundle(tmp_path, "matcher", tracker, run_id, TAGS)
