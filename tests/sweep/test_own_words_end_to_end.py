"""Templates, wordings and layers from training to serving: the same texts and layers are read at every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gemma_nli.config import DeviceConfig
from gemma_nli.corpus.pairs import build_pairs, pair_texts
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.local.reproduce import reproduce
from gemma_nli.local.train import run_here
from gemma_nli.model.bundles.bundle import load_bundle
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.sweep.refit import plan_refit, refit_bundle
from gemma_nli.training.finetuning.encoder_cache import release_shared_encoder
from gemma_nli.training.metrics import sigmoid
from tests.training.small_trials import LORA, NO_DROPOUT, corpus, run_fold, trial

CPU = DeviceConfig(device="cpu")

POST_FIRST = {"model.template": "Post: {premise} Is it so: {hypothesis}?"}
CRITERION_FIRST = {"model.template": "{hypothesis} Shown in: {premise} Yes or no:"}
APART = {
    "model.pair_encoding": "separate",
    "model.premise_template": "post: {premise}",
    "model.hypothesis_template": "sign | {hypothesis}",
}
FROZEN = {"model.freeze_encoder": True}
WAYS: dict[str, dict[str, Any]] = {
    "adapters, post first, layers side by side": {**POST_FIRST, **LORA, "model.layers": [0, 1]},
    "last layer of a cut encoder, criterion first": {**CRITERION_FIRST, "model.layers": 1, "model.unfreeze_last_n": 1},
    "everything, apart, a mixture of layers": {**APART, "model.layers": "mix"},
    "adapters, another wording, attention": {**LORA, "data.wording": "question", "model.pooling_strategy": "attention"},
    "frozen, criterion first, a mixture": {**FROZEN, **CRITERION_FIRST, "model.layers": "mix"},
    "frozen, apart, learned pooling of two layers": {
        **FROZEN,
        **APART,
        "model.layers": [1, 2],
        "model.pooling_strategy": "attention",
    },
}


@pytest.fixture(autouse=True)
def _no_encoder_left() -> None:
    release_shared_encoder()
    torch.set_num_threads(1)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_trained_is_what_is_run_again_and_what_serves(way: str, tiny_gemma3: Path, tmp_path: Path) -> None:
    sqlite_uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    write_synthetic(tmp_path / "data", num_posts=60, seed=3)
    places = {"data.data_dir": str(tmp_path / "data"), "mlflow.tracking_uri": sqlite_uri}
    sizes = {"data.num_folds": 2, "model.max_length": 128, "training.num_epochs": 1}
    config = trial(tiny_gemma3, **places, **sizes, **WAYS[way])
    pairs, words = build_pairs(corpus(), config.data), corpus().in_words(config.data.wording)
    done = run_here(config, tmp_path / "runs", tmp_path / "storage")
    assert reproduce(done.run_id, sqlite_uri, storage=tmp_path / "storage").equal

    plan = plan_refit(done.record, corpus())
    bundle = refit_bundle(plan, corpus(), pairs, tmp_path / "storage", tmp_path / "bundle")
    scorer, loaded = PairScorer.from_bundle(bundle, CPU), load_bundle(bundle, CPU)
    assert loaded.config.canonical() == config.canonical()
    assert scorer.criteria == words.criteria
    premises, hypotheses = pair_texts(words, pairs, pairs.evaluation_rows(1)[:6])
    expected = sigmoid(loaded.classifier.predict(premises, hypotheses))
    found = scorer.score(pd.DataFrame({"premise": premises, "hypothesis": hypotheses}))["probability"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    posts = scorer.score_posts(pd.DataFrame({"premise": premises}))
    named = {text: name for name, text in words.criteria.items()}
    crossed = [posts[named[text]][row] for row, text in enumerate(hypotheses)]
    np.testing.assert_allclose(crossed, found, atol=1e-5)


@pytest.mark.slow
def test_a_cut_encoder_in_a_template_trains_compiled_to_the_same_numbers(tiny_gemma3: Path) -> None:
    settings = {**NO_DROPOUT, **CRITERION_FIRST, **LORA, "model.layers": 1, "model.max_length": 128}
    plain = run_fold(trial(tiny_gemma3, **settings))
    compiled = run_fold(trial(tiny_gemma3, **settings, **{"device.compile": True}))
    np.testing.assert_allclose(compiled.probabilities, plain.probabilities, atol=1e-4)
