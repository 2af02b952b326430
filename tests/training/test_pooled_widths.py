"""A pooling may give vectors of another width than token states: stores, heads and bundles ask it how wide they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gemma_nli.config import DeviceConfig
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.model.adapters import trainable_encoder
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import load_encoder
from gemma_nli.model.pooling import POOLERS, LearnedPooler, Pooler
from gemma_nli.sweep.forecast.gpu_memory import estimate_memory
from gemma_nli.training.frozen.head_inputs import feature_request
from gemma_nli.training.frozen.train_folds import fit_head
from tests.training.frozen_setup import FrozenSetup

CPU = DeviceConfig(device="cpu", mixed_precision="none")
POSTS, CRITERIA = ["i feel so tired and sad every day", "fine"], ["fatigue", "depressed mood"]
CLS, LAST = POOLERS["cls"], POOLERS["last"]


class FirstAndLast(Pooler):
    """Twice as wide as a state."""

    @property
    def width(self) -> int:
        return 2 * self.hidden_size

    def forward(self, h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        return torch.cat([kind(self.hidden_size)(h_BTH, mask_BT) for kind in (CLS, LAST)], dim=-1)


class NarrowAttention(LearnedPooler):
    """A quarter as wide."""

    def __init__(self, hidden_size: int, k: int = 4, num_models: int = 1) -> None:
        super().__init__(hidden_size, k, num_models)
        self.query_KH = torch.nn.Parameter(torch.zeros(num_models, hidden_size))

    @property
    def width(self) -> int:
        return self.hidden_size // 4

    def look(self) -> Tensor:
        return self.query_KH

    def mix(self, x_KBH: Tensor) -> Tensor:
        return x_KBH[..., : self.width]


WIDTHS = {"cls": 64, "attention": 8}


@pytest.fixture(params=sorted(WIDTHS))
def pooling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a pooling that is wider or narrower than the tiny encoder's 32 units."""
    monkeypatch.setitem(POOLERS, "cls", FirstAndLast)
    monkeypatch.setitem(POOLERS, "attention", NarrowAttention)
    return str(request.param)


@pytest.fixture
def bench(pooling: str, tiny_bert: Path, tmp_path: Path) -> FrozenSetup:
    return FrozenSetup.make(tmp_path, tiny_bert, synthetic_corpus(24, seed=3), model__pooling_strategy=pooling)


@pytest.mark.parametrize("pair_encoding", ["joint", "separate"])
def test_a_head_trained_on_stored_vectors_says_the_same_over_the_encoder_and_out_of_a_bundle(
    bench: FrozenSetup, pooling: str, pair_encoding: str, tmp_path: Path
) -> None:
    config = bench.config(model__pair_encoding=pair_encoding)
    rows, inputs = bench.pairs.all_rows(1.0), bench.inputs(config)
    stack = fit_head(config, bench.pairs, rows, 1, inputs)
    assert stack.head.in_features == WIDTHS[pooling] * (4 if pair_encoding == "separate" else 1)
    classifier = PairClassifier(load_encoder(config.model, CPU), config.model).eval()
    classifier.load_head_state(stack.state_of(0))
    posts, criteria = list(bench.corpus.posts.values()), list(bench.corpus.criteria.values())
    pairs = bench.pairs
    found = classifier.predict([posts[p] for p in pairs.post_N[rows]], [criteria[c] for c in pairs.criterion_N[rows]])
    wanted = stack(inputs.sides(stack, torch.from_numpy(rows)[None])).detach()[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    bundle = save_bundle(tmp_path / "b", config, classifier, 0.5, {})
    again = load_bundle(bundle, CPU).classifier
    np.testing.assert_allclose(again.predict(POSTS, CRITERIA), classifier.predict(POSTS, CRITERIA), atol=1e-6)


def test_views_of_other_widths_never_pass_for_the_width_of_token_states(bench: FrozenSetup, pooling: str) -> None:
    rows = bench.pairs.all_rows(1.0)
    views_first = bench.config(model__pooling_strategy="cls")
    block = bench.store.load(feature_request(views_first, bench.corpus, bench.pairs, rows))
    assert (block.hidden_size, block.view("cls").shape[1]) == (32, 64)
    some = bench.store.load(feature_request(views_first, bench.corpus, bench.pairs, rows[:5]))
    torch.testing.assert_close(some.view("cls"), block.view("cls")[block.rows_of(some.request.digests)])
    tokens = bench.store.load(
        feature_request(bench.config(model__pooling_strategy="attention"), bench.corpus, bench.pairs, rows)
    )
    assert tokens.hidden_size == 32
    assert tokens.kept_share() == 1.0


def test_an_encoder_that_is_trained_gets_a_head_of_the_poolings_width(bench: FrozenSetup, pooling: str) -> None:
    config = bench.config(model__freeze_encoder=False, model__lora={"rank": 2})
    classifier = PairClassifier(trainable_encoder(load_encoder(config.model, CPU), config.model), config.model)
    assert classifier.head.in_features == WIDTHS[pooling]
    assert classifier.predict(POSTS, CRITERIA).shape == (2,)


def test_the_memory_of_a_frozen_trial_follows_the_poolings_width(bench: FrozenSetup, pooling: str) -> None:
    config = bench.config()
    plain = bench.config(model__pooling_strategy="mean" if pooling == "cls" else "attention_kv")
    ratio = estimate_memory(config).activations / estimate_memory(plain).activations
    assert ratio == 2.0 if pooling == "cls" else ratio < 1
