"""The pair classifier: its two encodings, what of the encoder is trained, and that weights go out and in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.model.adapters import has_adapters, merged_state
from gemma_nli.model.classifier import (
    PairClassifier,
    load_trainable_state,
    trainable_encoder,
    trainable_state,
)
from gemma_nli.model.encoder import load_encoder
from gemma_nli.model.heads import HEADS
from gemma_nli.model.pooling import POOLERS

CPU = DeviceConfig(device="cpu")
POSTS = ["i feel so tired and sad", "work was fine", "my sleep is broken every day and the nights are long", "", "sad"]
CRITERIA = ["depressed mood", "fatigue", "sleep", "fatigue", "depressed mood"]
LORA = {"freeze_encoder": False, "lora": {"rank": 2}}


def build(folder: Path, **settings: Any) -> tuple[PairClassifier, ModelConfig]:
    model = ModelConfig.model_validate({"name": str(folder), "max_length": 64, **settings})
    encoder = trainable_encoder(load_encoder(model, CPU), model, seed=3)
    classifier = PairClassifier(encoder, model).eval()
    classifier.reset(torch.Generator().manual_seed(1))
    return classifier, model


def trained_names(classifier: PairClassifier) -> set[str]:
    return {name for name, p in classifier.encoder.named_parameters() if p.requires_grad}


def one_step(classifier: PairClassifier) -> None:
    classifier.train()
    encoder = classifier.encoder
    optimizer = torch.optim.SGD([p for p in classifier.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # a first step moves LoRA's B alone
        optimizer.zero_grad()
        classifier(encoder.collate(encoder.tokenize(POSTS, CRITERIA))).square().sum().backward()
        optimizer.step()
    classifier.eval()


@pytest.mark.parametrize("encoding", ["joint", "separate"])
@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("pooling", sorted(POOLERS))
def test_every_pooling_and_head_gives_one_logit_a_pair(
    tiny_gemma3: Path, tiny_sentences: Path, pooling: str, head: str, encoding: str
) -> None:
    settings = {"pooling_strategy": pooling, "head": head, "head_hidden": 8, "pair_encoding": encoding}
    classifier, _ = build(
        tiny_sentences if POOLERS[pooling].of_folder else tiny_gemma3, attention="bidirectional", **settings
    )
    encoder = classifier.encoder
    if encoding == "joint":
        logit_B = classifier(encoder.collate(encoder.tokenize(POSTS, CRITERIA)))
    else:
        logit_B = classifier((encoder.collate(encoder.tokenize(POSTS)), encoder.collate(encoder.tokenize(CRITERIA))))
    assert logit_B.shape == (5,)
    assert logit_B.isfinite().all()
    predicted_N = classifier.predict(POSTS, CRITERIA, batch_tokens=24)
    np.testing.assert_allclose(predicted_N, logit_B.detach().numpy(), atol=2e-5)
    assert len(set(np.round(predicted_N[:3], 6))) > 1


def test_separate_texts_do_not_see_each_other(tiny_bert: Path) -> None:
    joint, _ = build(tiny_bert)
    alone, _ = build(tiny_bert, pair_encoding="separate")
    assert alone.head.in_features == 4 * joint.head.in_features
    assert alone.predict(POSTS, CRITERIA).shape == (5,)
    assert alone.predict([], []).shape == joint.predict([], []).shape == (0,)


def test_dropout_works_in_training_only(tiny_bert: Path) -> None:
    classifier, _ = build(tiny_bert, dropout=0.5)
    x = torch.ones(4, classifier.encoder.hidden_size)
    assert torch.equal(classifier.classify(x), classifier.classify(x))
    classifier.train()
    assert not torch.equal(classifier.classify(x), classifier.classify(x))


def test_a_frozen_encoder_has_nothing_to_train(tiny_gemma2: Path) -> None:
    classifier, _ = build(tiny_gemma2)
    assert trained_names(classifier) == set()
    assert trainable_state(classifier.encoder) == {}


@pytest.mark.parametrize(("fixture", "targets"), [("tiny_gemma2", "q_proj v_proj"), ("tiny_bert", "query value")])
def test_lora_finds_query_and_value_and_starts_at_no_change(
    fixture: str, targets: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(fixture)
    classifier, _ = build(folder, **LORA)
    names = trained_names(classifier)
    assert len(names) == 8  # A and B of two modules of two layers
    assert {n.split(".lora_")[0].rsplit(".", 1)[-1] for n in names} == set(targets.split())
    plain, _ = build(folder)
    np.testing.assert_array_equal(classifier.predict(POSTS, CRITERIA), plain.predict(POSTS, CRITERIA))
    assert has_adapters(classifier.encoder)
    torch.rand(3)  # the adapters' first values come from the seed, not from where torch's own generator stands
    again, _ = build(folder, **LORA)
    for name, tensor in trainable_state(again.encoder).items():
        assert torch.equal(tensor, trainable_state(classifier.encoder)[name])


def test_lora_takes_named_modules_and_refuses_unknown_ones(tiny_gemma2: Path, tiny_bert: Path) -> None:
    lora = {"rank": 2, "target_modules": ["o_proj", "layers.1.mlp.up_proj"]}
    named, _ = build(tiny_gemma2, freeze_encoder=False, lora=lora)
    assert len(trained_names(named)) == 6
    every, _ = build(tiny_bert, freeze_encoder=False, lora={"rank": 2, "target_modules": "all-linear"})
    assert len(trained_names(every)) == 24
    assert not any("pooler" in name for name in trained_names(every))
    with pytest.raises(EncoderError, match=r"unknown name 'q_porj'; did you mean 'q_proj'\?"):
        build(tiny_gemma2, freeze_encoder=False, lora={"target_modules": ["q_porj"]})
    with pytest.raises(EncoderError, match="already has adapters"):
        trainable_encoder(named.encoder, ModelConfig.model_validate({"name": "x", **LORA}))


def test_the_last_layers_alone_are_trained_when_asked(tiny_gemma3: Path, tiny_bert: Path) -> None:
    gemma, _ = build(tiny_gemma3, freeze_encoder=False, unfreeze_last_n=1)
    assert {n.split(".")[1] + "." + n.split(".")[2] for n in trained_names(gemma)} == {"layers.1", "norm.weight"}
    bert, _ = build(tiny_bert, freeze_encoder=False, unfreeze_last_n=1)
    assert all(n.startswith("model.encoder.layer.1.") for n in trained_names(bert))
    with pytest.raises(EncoderError, match="unfreeze_last_n: 3, but the encoder has 2 layers"):
        build(tiny_bert, freeze_encoder=False, unfreeze_last_n=3)


def test_a_full_encoder_trains_all_but_berts_unused_pooler(tiny_bert: Path) -> None:
    classifier, _ = build(tiny_bert, freeze_encoder=False)
    names = {n for n, _ in classifier.encoder.named_parameters()}
    assert {n.split(".")[1] for n in names - trained_names(classifier)} == {"pooler"}


@pytest.mark.parametrize("settings", [LORA, {"freeze_encoder": False, "unfreeze_last_n": 1}, {"freeze_encoder": False}])
def test_trained_weights_go_out_and_in(tiny_gemma2: Path, settings: dict[str, Any]) -> None:
    classifier, _ = build(tiny_gemma2, **settings)
    before = classifier.predict(POSTS, CRITERIA)
    one_step(classifier)
    after = classifier.predict(POSTS, CRITERIA)
    assert not np.allclose(before, after)
    fresh, _ = build(tiny_gemma2, **settings)
    load_trainable_state(fresh.encoder, trainable_state(classifier.encoder))
    fresh.load_head_state(classifier.head_state())
    np.testing.assert_array_equal(fresh.predict(POSTS, CRITERIA), after)
    frozen, _ = build(tiny_gemma2)
    with pytest.raises(EncoderError, match="do not fit this encoder"):
        load_trainable_state(frozen.encoder, trainable_state(classifier.encoder))
    other, _ = build(tiny_gemma2, head="mlp")
    with pytest.raises(EncoderError, match="pooling and head do not fit"):
        other.load_head_state(classifier.head_state())


def test_merged_weights_are_the_adapted_ones_and_the_encoder_stays(tiny_bert: Path) -> None:
    classifier, _ = build(tiny_bert, **LORA)
    one_step(classifier)
    expected = classifier.predict(POSTS, CRITERIA)
    state = merged_state(classifier.encoder)
    np.testing.assert_array_equal(classifier.predict(POSTS, CRITERIA), expected)
    plain, _ = build(tiny_bert)
    assert state.keys() == plain.encoder.model.state_dict().keys()
    plain.encoder.model.load_state_dict(state)
    plain.load_head_state(classifier.head_state())
    np.testing.assert_allclose(plain.predict(POSTS, CRITERIA), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoding", ["joint", "separate"])
def test_a_prediction_has_no_dropout_whatever_mode_it_is_asked_in_and_leaves_the_mode(
    tiny_bert: Path, encoding: str
) -> None:
    classifier, _ = build(tiny_bert, dropout=0.5, pair_encoding=encoding)
    wanted = classifier.predict(POSTS, CRITERIA)
    classifier.train()
    np.testing.assert_array_equal(classifier.predict(POSTS, CRITERIA), wanted)
    assert classifier.training
    assert classifier.encoder.training
    classifier.eval()
    classifier.predict(POSTS, CRITERIA)
    assert not classifier.training
