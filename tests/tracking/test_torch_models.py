"""A registered model as a torch module: by mlflow.pytorch at any batch and length, or from its bundle."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import DeviceConfig, MlflowConfig, RunConfig
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.bundles.exported import exportable
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import load_encoder
from gemma_nli.tracking.registry.model_folder import PT2, save_model_folder
from gemma_nli.tracking.registry.promotion import promote
from gemma_nli.tracking.registry.register import register_bundle
from gemma_nli.tracking.registry.registered_models import load_model
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_trial

CRITERIA = {"SLEEP_ISSUES": "my sleep is broken", "FATIGUE": "no energy"}
PAIRS = pd.DataFrame({"premise": ["i feel so sad", "fine"], "hypothesis": ["depressed mood", "fatigue"]})
TAGS = {"gemma_nli.trial_key": "k1", "gemma_nli.fold_fingerprint": "f", "gemma_nli.data_fingerprint": "d"}
TAGS |= {"gemma_nli.metric": "cv_aggregate/mean_f1", "gemma_nli.eval_negative_ratio": "1.0"}


def make_bundle(folder: Path, model: Path, seed: int = 1, **settings: object) -> Path:
    dotted = {f"model.{name}": value for name, value in settings.items()}
    config = RunConfig().with_settings({"model.name": str(model), "device.device": "cpu", **dotted})
    classifier = PairClassifier(load_encoder(config.model, config.device), config.model)
    classifier.reset(torch.Generator().manual_seed(seed))
    return save_bundle(folder, config, classifier, 0.5, {"criteria": CRITERIA})


def shapes_of(classifier: PairClassifier) -> list[tuple[torch.Tensor, ...]]:
    """Inputs of one pair, and of three of other lengths."""
    encoder, found = classifier.encoder, []
    for premises in (["work was fine"], ["a", "my sleep is broken every day and all night long", "no fun"]):
        hypotheses = [f"fatigue {'energy ' * row}" for row in range(len(premises))]
        if classifier.separate:
            sides = [encoder.collate(encoder.tokenize(texts)) for texts in (premises, hypotheses)]
            found.append(tuple(side[name] for side in sides for name in ("input_ids", "attention_mask")))
        else:
            found.append(tuple(encoder.collate(encoder.tokenize(premises, hypotheses)).values()))
    return found


KINDS = [
    ("tiny_bert", {"pooling_strategy": "mean"}),
    ("tiny_gemma2", {"pooling_strategy": "attention"}),
    ("tiny_gemma3", {"pooling_strategy": "last", "attention": "bidirectional"}),
    ("tiny_bert", {"pair_encoding": "separate", "pooling_strategy": "attention_kv", "head_norm": "standardize"}),
    ("tiny_gemma3", {"pooling_strategy": "first_k", "head": "mlp", "head_norm": "layernorm"}),
    ("tiny_gemma2", {"pooling_strategy": "last_k"}),
    ("tiny_bert", {"pooling_strategy": "max"}),
    ("tiny_gemma3", {"template": "Post: {premise} So: {hypothesis}?", "max_length": 64, "layers": "mix"}),
    ("tiny_gemma2", {"template": "{hypothesis} in {premise}", "max_length": 64, "layers": [0, 1]}),
    ("minilm", {"pair_encoding": "separate", "max_length": 128}),
]


def test_an_encoder_of_rows_of_equal_length_is_not_exported_and_its_bundle_serves(tiny_encoder, tmp_path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tiny_encoder("fnet"), max_length=64)
    reported = save_model_folder(bundle, tmp_path / "model", None, 1.0)
    assert reported.startswith("not exported: ")
    assert "gives a text different states in a batch with longer ones" in reported
    both, alone = PairScorer.from_bundle(bundle).score(PAIRS), PairScorer.from_bundle(bundle).score(PAIRS[1:])
    assert both["probability"][1] == pytest.approx(alone["probability"][1], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "settings"), KINDS)
def test_a_program_of_any_batch_and_length_gives_the_same_logits_without_pickle(
    encoder, settings, request, tmp_path, monkeypatch
):
    bundle = make_bundle(tmp_path / "bundle", request.getfixturevalue(encoder), **settings)
    assert save_model_folder(bundle, tmp_path / "model", None, 1.0) == PT2
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    program = mlflow.pytorch.load_model(str(tmp_path / "model"))
    ours = load_bundle(bundle, DeviceConfig(device="cpu")).classifier
    module, _ = exportable(ours)
    for inputs in shapes_of(ours):
        with torch.no_grad():
            torch.testing.assert_close(program(*inputs), module(*inputs), rtol=0, atol=1e-6)
    table = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert len(table.predict(PAIRS)) == 2


@pytest.fixture
def store(sqlite_uri, tiny_gemma3, tmp_path):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "torch")
    run_id = tracker.sync_trial(None, a_trial())
    bundle = make_bundle(tmp_path / "bundle", tiny_gemma3, head_norm="standardize")
    return tracker, run_id, bundle


def test_every_way_of_naming_a_version_loads_it_by_pyfunc_and_as_a_torch_module(store, sqlite_uri):
    tracker, run_id, bundle = store
    made = register_bundle(bundle, "m", tracker, run_id, TAGS)
    assert made.torch == PT2
    promote(tracker.store, "m", made.version, "production")
    ours = load_bundle(bundle, DeviceConfig(device="cpu")).classifier
    expected = ours.predict(PAIRS["premise"], PAIRS["hypothesis"])
    (one, _) = shapes_of(ours)
    mlflow.set_tracking_uri(sqlite_uri)
    try:
        for name in ("latest", "1", "Production"):
            _same(f"models:/m/{name}", expected, ours, one, sqlite_uri)
        _same("models:/m@production", expected, ours, one, sqlite_uri)
    finally:
        mlflow.set_tracking_uri(None)


def _same(uri, expected, ours, inputs, tracking_uri):
    scored = mlflow.pyfunc.load_model(uri).predict(PAIRS)
    torch.testing.assert_close(
        torch.tensor(scored["probability"]), torch.tensor(expected).double().sigmoid(), atol=1e-6, rtol=0
    )
    program = mlflow.pytorch.load_model(uri)
    with torch.no_grad():
        torch.testing.assert_close(program(*inputs), exportable(ours)[0](*inputs), atol=1e-6, rtol=0)
    loaded = load_model(uri, tracking_uri)
    assert isinstance(loaded, torch.nn.Module)
    torch.testing.assert_close(
        torch.tensor(loaded.predict(PAIRS["premise"], PAIRS["hypothesis"])), torch.tensor(expected)
    )


def test_past_the_limit_registration_says_so_and_the_bundle_gives_the_module(store, sqlite_uri):
    tracker, run_id, bundle = store
    made = register_bundle(bundle, "m", tracker, run_id, TAGS, export_limit_gib=0.00001)
    assert "export_limit_gib is 1e-05" in made.torch
    mlflow.set_tracking_uri(sqlite_uri)
    try:
        with pytest.raises(mlflow.exceptions.MlflowException, match="pytorch"):
            mlflow.pytorch.load_model("models:/m/1")
    finally:
        mlflow.set_tracking_uri(None)
    assert load_model("models:/m/1", sqlite_uri).predict(["a"], ["b"]).shape == (1,)
    assert load_model(str(bundle)).predict(["a"], ["b"]).shape == (1,)


def test_a_model_that_cannot_be_exported_is_registered_with_the_reason(store, monkeypatch):
    tracker, run_id, bundle = store

    def refuses(*_args, **_kwargs):
        raise RuntimeError("data dependent control flow")

    monkeypatch.setattr(mlflow.pytorch, "save_model", refuses)
    made = register_bundle(bundle, "m", tracker, run_id, TAGS)
    assert (made.version, made.torch) == (1, "not exported: RuntimeError: data dependent control flow")


def test_a_post_alone_gets_a_probability_and_a_label_per_criterion(store, sqlite_uri):
    tracker, run_id, bundle = store
    register_bundle(bundle, "m", tracker, run_id, TAGS, export_limit_gib=0)
    mlflow.set_tracking_uri(sqlite_uri)
    try:
        model = mlflow.pyfunc.load_model("models:/m/1")
    finally:
        mlflow.set_tracking_uri(None)
    wide = model.predict(pd.DataFrame({"premise": ["i feel so sad", "fine"]}))
    names = [name for criterion in CRITERIA for name in (criterion, f"{criterion}_label")]
    assert list(wide.columns) == [*names, "threshold"]
    for row, premise in enumerate(["i feel so sad", "fine"]):
        for name, text in CRITERIA.items():
            alone = model.predict(pd.DataFrame({"premise": [premise], "hypothesis": [text]}))
            assert wide[name][row] == pytest.approx(alone["probability"][0], abs=1e-6)


@pytest.mark.parametrize(
    ("uri", "reported"),
    [
        ("models:/nm/1", "no registered model 'nm'; did you mean 'm'"),
        ("models:/m/9", "no version 9; versions: 1"),
        ("models:/m@prod", "no version has the alias 'prod'"),
        ("models:/m/Staging", "no version is in stage 'Staging'"),
        ("elsewhere", "neither a bundle's folder"),
    ],
)
def test_a_model_that_is_not_there_is_told(store, sqlite_uri, uri, reported):
    tracker, run_id, bundle = store
    register_bundle(bundle, "m", tracker, run_id, TAGS, export_limit_gib=0)
    with pytest.raises(TrackingError, match=reported):
        load_model(uri, sqlite_uri)
