"""Heads on any layers of an encoder: on cached vectors, out of a classifier over the encoder, and with it trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import load_encoder
from gemma_nli.training.finetuning.encoder_cache import release_shared_encoder
from gemma_nli.training.frozen.head_inputs import feature_request
from gemma_nli.training.frozen.train_folds import fit_head
from tests.training.frozen_setup import FrozenSetup, assert_same_fold
from tests.training.small_trials import LORA, NO_DROPOUT, run_fold, trial

LAYERS = [1, -1, [0, 2], "mix", {"mix": [0, 1]}]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def setup(tiny_gemma3, tmp_path_factory) -> FrozenSetup:
    return FrozenSetup.make(tmp_path_factory.mktemp("layers"), tiny_gemma3, synthetic_corpus(24, seed=3))


@pytest.mark.parametrize("pooling", ["mean", "attention_kv"])
@pytest.mark.parametrize("layers", LAYERS, ids=str)
def test_a_head_on_cached_states_says_what_the_classifier_over_the_encoder_says(setup, layers, pooling):
    encoding = "separate" if layers == [0, 2] else "joint"
    config = setup.config(model__layers=layers, model__pooling_strategy=pooling, model__pair_encoding=encoding)
    rows, inputs = setup.pairs.all_rows(1.0), setup.inputs(config)
    stack = fit_head(config, setup.pairs, rows, 2, inputs)
    if "mix" in str(layers):
        assert float(stack.pooler.weight_KL.detach().abs().max()) > 0, "the mixture is learned"
    wanted = stack(inputs.sides(stack, torch.from_numpy(rows)[None])).detach()[0].numpy()
    classifier = PairClassifier(load_encoder(config.model, config.device), config.model).eval()
    classifier.load_head_state(stack.state_of(0))
    posts, criteria, pairs = list(setup.corpus.posts.values()), list(setup.corpus.criteria.values()), setup.pairs
    found = classifier.predict([posts[p] for p in pairs.post_N[rows]], [criteria[c] for c in pairs.criterion_N[rows]])
    np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"model__layers": "mix"}, {"model__layers": [0, 1]}], ids=str)
def test_folds_together_equal_folds_one_by_one_on_several_layers(setup, settings):
    for pooling in ("mean", "attention"):
        every = {**settings, "model__pooling_strategy": pooling, "training__num_epochs": 2}
        every |= {"training__learning_rate": 0.003}
        assert_same_fold(setup.train(**every)[3], setup.train([4], **every)[0], tolerance=1e-5)


def test_token_states_past_their_budget_are_computed_again_with_the_same_numbers(setup, tmp_path):
    settings = {"model__layers": [0, 2], "model__pooling_strategy": "attention", "training__num_epochs": 1}
    kept = setup.train([1], **settings)[0]
    poor = FrozenSetup(
        setup.base.with_settings({"features.token_budget_gib": 0.0}), setup.corpus, setup.pairs, setup.store
    )
    poor.store = FeatureStore(tmp_path / "features", poor.base.features)
    assert_same_fold(kept, poor.train([1], **settings)[0], tolerance=1e-4)


def test_the_last_layer_by_number_is_what_last_is_and_needs_no_encoding_of_its_own(setup):
    rows = setup.pairs.rows_used(1.0)
    last, number = (
        feature_request(setup.config(model__layers=each), setup.corpus, setup.pairs, rows) for each in ("last", 2)
    )
    assert (last.views, last.key) == (number.views, number.key)
    assert_same_fold(setup.train([1])[0], setup.train([1], model__layers=2)[0])


@pytest.mark.parametrize("kind", ["everything", "lora"])
@pytest.mark.parametrize("layers", [1, {"mix": [0, 1]}], ids=str)
def test_a_cut_encoder_trains_to_the_numbers_of_the_whole_one(tiny_gemma3: Path, kind, layers, monkeypatch):
    settings = {**NO_DROPOUT, **(LORA if kind == "lora" else {}), "model.layers": layers}
    release_shared_encoder()
    config = trial(tiny_gemma3, **settings)
    cut = run_fold(config)
    release_shared_encoder()
    monkeypatch.setattr("gemma_nli.model.layers.layer_list", lambda network, depth: None)
    whole = run_fold(config)
    release_shared_encoder()
    assert cut.trained_parameters < whole.trained_parameters
    np.testing.assert_allclose(cut.probabilities, whole.probabilities, atol=1e-5)
    assert cut.history["train_loss"] == pytest.approx(whole.history["train_loss"], abs=1e-5)


def test_gradient_checkpointing_leaves_a_cut_encoders_numbers(tiny_gemma3: Path):
    release_shared_encoder()
    plain, checkpointed = (
        run_fold(trial(tiny_gemma3, **NO_DROPOUT, **{"model.layers": 1, "device.gradient_checkpointing": on}))
        for on in (False, True)
    )
    np.testing.assert_allclose(checkpointed.probabilities, plain.probabilities, atol=1e-5)
