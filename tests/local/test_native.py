"""A trial with native pooling from training to serving: folds, bundle, export, and a sweep that compares it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.local.train import run_here
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.forecast.gpu_memory import estimate_memory
from gemma_nli.sweep.prepare import feature_requests, prepare
from gemma_nli.sweep.refit import plan_refit, refit_bundle
from gemma_nli.tracking.registry.model_folder import PT2, save_model_folder
from tests.local.conftest import small_settings
from tests.model.sentence_folders import make_folder

CPU = DeviceConfig(device="cpu", mixed_precision="none")
POSTS = ["fine", "i feel so tired and sad every day nothing is fun anymore", "my sleep is broken", "work was fine but"]
PAIRS = pd.DataFrame({"premise": POSTS, "hypothesis": ["fatigue", "depressed mood", "sleep", "loss of interest"]})
TRAINED: dict[str, dict[str, Any]] = {
    "frozen": {},
    "LoRA": {"model.freeze_encoder": False, "model.lora.rank": 2},
    "whole": {"model.freeze_encoder": False},
}


def config_of(folder: Path, corpus: Path, **settings: Any) -> RunConfig:
    tree = small_settings(corpus, folder, None) | {"mlflow.enabled": False, "device.device": "cpu"}
    tree |= {"training.num_epochs": 1, "model.max_length": 24, "model.pooling_strategy": "native"}
    return RunConfig().with_settings(tree | settings)


SLOW = [("LoRA", "joint"), ("LoRA", "separate"), ("frozen", "joint"), ("whole", "joint")]


@pytest.mark.parametrize(
    ("trained", "encoding"),
    [
        ("frozen", "separate"),
        *(pytest.param(*way, marks=pytest.mark.slow) for way in SLOW),
    ],
)
def test_a_native_trial_is_trained_bundled_served_and_exported(
    tiny_bert: Path, few_posts: Path, tmp_path: Path, trained: str, encoding: str
) -> None:
    folder = make_folder(tmp_path / "sentences", tiny_bert, "prompt left out")
    settings = {**TRAINED[trained], "model.pair_encoding": encoding, "model.hypothesis_prompt": "query"}
    config = config_of(folder, few_posts, **settings)
    done = run_here(config, tmp_path / "run")
    assert done.record.state == "finished"
    corpus = load_corpus(config.data.data_dir)
    plan = plan_refit(done.record, corpus)
    pairs = build_pairs(corpus, config.data)
    bundle = refit_bundle(plan, corpus, pairs, tmp_path / "run", tmp_path / "bundle")  # compares what it reloads
    folder.rename(tmp_path / "elsewhere")
    scorer = PairScorer.from_bundle(bundle, CPU)
    together = scorer.score(PAIRS)["probability"].to_numpy()
    assert np.ptp(together) > 0
    alone = [scorer.score(PAIRS.iloc[[row]])["probability"].iloc[0] for row in range(len(PAIRS))]
    np.testing.assert_allclose(together, alone, atol=1e-5)

    assert save_model_folder(bundle, tmp_path / "model", None, 1.0) == PT2
    served = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(PAIRS)["probability"]
    np.testing.assert_allclose(served, together, atol=1e-5)
    encoder = scorer.bundle.encoder
    if encoding == "joint":
        batches = [encoder.collate(encoder.tokenize(*encoder.prompts.pairs(POSTS, PAIRS["hypothesis"].tolist())))]
    else:
        tokens = encoder.tokenize(*encoder.prompts.alone(POSTS, PAIRS["hypothesis"].tolist()))
        batches = [encoder.collate(tokens, range(4)), encoder.collate(tokens, range(4, 8))]
    names = (
        ("input_ids", "attention_mask", "token_type_ids") if encoding == "joint" else ("input_ids", "attention_mask")
    )
    program = mlflow.pytorch.load_model(str(tmp_path / "model"))
    exported = program(*(batch[name] for batch in batches for name in names))
    np.testing.assert_allclose(torch.sigmoid(exported).detach().numpy(), together, atol=1e-5)


def test_a_sweep_encodes_native_pooling_apart_and_another_dense_makes_another_trial(
    tiny_sentences: Path, few_posts: Path, tmp_path: Path
) -> None:
    base = config_of(tiny_sentences, few_posts)
    space = {"model.pooling_strategy": {"grid": ["mean", "max", "native"]}}
    spec = SweepSpec.from_mapping(
        {"name": "native", "base": base.given(), "space": space, "storage": str(tmp_path / "storage")}
    )
    ready = prepare(spec)
    assert len(ready.cells) == 3
    assert sorted(request.views for request in feature_requests(ready)) == [("max", "mean"), ("native",)]
    assert (
        estimate_memory(base).activations
        < estimate_memory(base.with_settings({"model.pooling_strategy": "mean"})).activations
    )


def test_a_sweep_over_a_plain_encoder_is_refused_before_it_begins(
    tiny_bert: Path, few_posts: Path, tmp_path: Path
) -> None:
    space = {"model.pooling_strategy": {"grid": ["mean", "native"]}}
    base = config_of(tiny_bert, few_posts, **{"model.pooling_strategy": "mean"})
    spec = SweepSpec.from_mapping(
        {"name": "plain", "base": base.given(), "space": space, "storage": str(tmp_path / "storage")}
    )
    with pytest.raises(EncoderError, match="native does what a folder of sentence-transformers says"):
        prepare(spec)
