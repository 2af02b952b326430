"""Encoder families all the way: trained, resumed, bundled, reloaded, exported, served, equal to plain transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from gemma_nli.config import DeviceConfig, RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.local.train import run_here
from gemma_nli.model.bundles.bundle import load_bundle
from gemma_nli.model.bundles.exported import exportable
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.model.encoder import load_encoder
from gemma_nli.sweep.refit import plan_refit, refit_bundle
from gemma_nli.tracking.registry.model_folder import PT2, save_model_folder
from gemma_nli.training.listeners import IgnoreEvents
from tests.local.conftest import small_settings

CPU = DeviceConfig(device="cpu", mixed_precision="none")
POSTS = ["fine", "i feel so tired and sad every day nothing is fun anymore", "my sleep is broken", "work was fine but"]
PAIRS = pd.DataFrame({"premise": POSTS, "hypothesis": ["fatigue", "depressed mood", "sleep", "loss of interest"]})
QUICK = ["embedding_gemma2", "t5gemma2"]
SLOW = [
    "embedding_gemma2_text", "t5gemma", "t5", "mt5", "bart", "roberta", "electra", "modernbert", "gpt2", "gemma3_text",
    "qwen3", "llama", "deberta-v2",
]  # fmt: skip
NOT_EXPORTED = {"t5gemma2"}
"""Their masks cannot be written into a pt2 program; the version says so, and is served as a bundle."""


class _StopsOnce(IgnoreEvents):
    def folds_ended(self, folds) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("family", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_family_goes_all_the_way(
    family: str, tiny_encoder: Callable[..., Path], few_posts: Path, tmp_path: Path
) -> None:
    folder = tiny_encoder(family)
    settings = small_settings(few_posts, folder, None) | {"mlflow.enabled": False, "device.device": "cpu"}
    settings |= {"model.freeze_encoder": False, "model.lora.target_modules": "all-linear", "model.lora.rank": 2}
    settings |= {"training.num_epochs": 1, "model.max_length": 24}
    config = RunConfig().with_settings(settings)
    _equals_plain_transformers(config, folder)

    with pytest.raises(KeyboardInterrupt):
        run_here(config, tmp_path / "run", listeners=[_StopsOnce()])
    done = run_here(config, tmp_path / "run")
    assert done.record.state == "finished"
    assert [fold.fold for fold in done.result.folds] == [1, 2]

    corpus = load_corpus(config.data.data_dir)
    pairs = build_pairs(corpus, config.data)
    plan = plan_refit(done.record, corpus)
    bundle = refit_bundle(plan, corpus, pairs, tmp_path / "run", tmp_path / "bundle")  # compares what it reloads
    scorer = PairScorer.from_bundle(bundle, CPU)
    together = scorer.score(PAIRS)["probability"].to_numpy()
    alone = [scorer.score(PAIRS.iloc[[row]])["probability"].iloc[0] for row in range(len(PAIRS))]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(together) > 0

    reported = save_model_folder(bundle, tmp_path / "model", None, 1.0)
    served = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(PAIRS)["probability"]
    np.testing.assert_allclose(served, together, atol=1e-5)
    assert reported == PT2 if family not in NOT_EXPORTED else reported.startswith("not exported: "), reported
    if reported != PT2:
        return
    module, _ = exportable(load_bundle(bundle, CPU).classifier)
    encoder = scorer.bundle.encoder
    batch = tuple(encoder.collate(encoder.tokenize(POSTS, PAIRS["hypothesis"].tolist())).values())
    program = mlflow.pytorch.load_model(str(tmp_path / "model"))
    with torch.no_grad():
        torch.testing.assert_close(program(*batch), module(*batch), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def _equals_plain_transformers(config: RunConfig, folder: Path) -> None:
    from transformers import AutoModel

    whole = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    encoder, plain = load_encoder(config.model, CPU), whole.get_encoder() if whole.config.is_encoder_decoder else whole
    tokens = encoder.tokenize(POSTS)
    together = encoder(encoder.collate(tokens))
    assert together.shape[-1] == encoder.hidden_size
    for row, ids in enumerate(tokens.ids):
        ids_1T = torch.tensor([ids])
        wanted = plain(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T)).last_hidden_state[0]
        for found in (together[row, : len(ids)], encoder(encoder.collate(tokens, [row]))[0]):
            torch.testing.assert_close(found, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-5)
