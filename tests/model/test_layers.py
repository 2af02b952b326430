"""Layers of real small networks: transformers' own states, whole or cut, pooled side by side or mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig, RunConfig
from gemma_nli.model.adapters import trainable_encoder
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.bundles.exported import exportable
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import Encoder, load_encoder
from gemma_nli.model.pooling import build_pooler

CPU = DeviceConfig(device="cpu", mixed_precision="none")
POSTS = ["so tired and sad, nothing is fun", "fine", "work was fine but my sleep is broken and i cry a lot"]
CRITERIA = ["fatigue", "depressed mood", "sleep"]


def encoder(folder: Path, layers: Any, **settings: Any) -> Encoder:
    return load_encoder(
        ModelConfig.model_validate({"name": str(folder), "max_length": 64, "layers": layers, **settings}), CPU
    )


def states_of_transformers(folder: Path, ids: list[int]) -> list[Tensor]:
    """(T, H) of each layer, from the embeddings on, as plain transformers gives them for one text."""
    network = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    network = network.encoder if getattr(network.config, "is_encoder_decoder", False) else network
    with torch.no_grad():
        return [state[0] for state in network(torch.tensor([ids]), output_hidden_states=True).hidden_states]


FAMILIES = ["gemma3_text", "t5", "xlnet"]  # with a final norm, of an encoder-decoder, without a list of layers


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_has_the_states_of_transformers_in_any_batch_whether_the_encoder_is_cut_or_not(family, tiny_encoder):
    folder = tiny_encoder(family)
    for layers in (0, [1, 0], "mix"):
        own = encoder(folder, layers)
        tokens = own.tokenize(POSTS)
        with torch.no_grad():
            h_BTM = own(own.collate(tokens))
        for row, ids in enumerate(tokens.ids):
            wanted = states_of_transformers(folder, ids)
            want_TM = torch.cat([wanted[number] for number in own.choice.numbers], dim=-1)
            torch.testing.assert_close(h_BTM[row, : len(ids)], want_TM, atol=1e-5, rtol=1e-5)
    assert (encoder(folder, 1).reader.kept == 1) == (family != "xlnet")


def test_an_encoder_that_does_not_show_one_state_per_layer_and_token_is_refused(tiny_encoder):
    assert encoder(tiny_encoder("funnel"), "last").depth == 2
    with pytest.raises(EncoderError, match=r"model\.layers: .*of 2 layers does not show them.*set model\.layers=last"):
        encoder(tiny_encoder("funnel"), 1)


def test_a_cut_encoder_has_fewer_weights_and_its_last_layers_count_from_the_highest_that_is_read(tiny_gemma3):
    whole, cut = encoder(tiny_gemma3, "last"), encoder(tiny_gemma3, 1)
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())
    settings = {"name": str(tiny_gemma3), "layers": 1, "freeze_encoder": False, "unfreeze_last_n": 1}
    trained = trainable_encoder(cut, ModelConfig.model_validate(settings))
    assert {n.split(".")[2] for n, p in trained.named_parameters() if p.requires_grad} == {"0"}
    with pytest.raises(
        EncoderError, match=r"unfreeze_last_n: 2, but the encoder has 2 layers, of which .* the first 1"
    ):
        trainable_encoder(encoder(tiny_gemma3, 1), ModelConfig.model_validate({**settings, "unfreeze_last_n": 2}))


def classifier(folder: Path, **settings: Any) -> tuple[RunConfig, PairClassifier]:
    config = RunConfig().with_settings(
        {"model.name": str(folder), "model.max_length": 64} | {f"model.{k}": v for k, v in settings.items()}
    )
    made = PairClassifier(trainable_encoder(load_encoder(config.model, CPU), config.model), config.model).eval()
    made.reset(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:  # as if trained
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.02)
    return config, made


LORA = {"freeze_encoder": False, "lora": {"rank": 2}}
CASES = [
    ("tiny_gemma3", {"layers": 1}),
    ("tiny_gemma3", {"layers": 1, **LORA, "head_norm": "standardize"}),
    ("tiny_gemma3", {"layers": 1, "freeze_encoder": False, "pair_encoding": "separate"}),
    ("tiny_gemma2", {"layers": [0, 2], "pooling_strategy": "attention", "attention": "bidirectional"}),
    ("tiny_bert", {"layers": "mix", "pooling_strategy": "max"}),
    ("tiny_bert", {"layers": {"mix": [0, 1]}, "pooling_strategy": "attention_kv", "freeze_encoder": False}),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_bundle_and_its_program_give_the_logits_of_the_layers_that_were_asked_for(name, settings, request, tmp_path):
    config, made = classifier(request.getfixturevalue(name), **settings)
    logits = made.predict(POSTS, CRITERIA)
    again = load_bundle(save_bundle(tmp_path / "b", config, made, 0.5, {}), CPU).classifier
    np.testing.assert_allclose(again.predict(POSTS, CRITERIA), logits, atol=1e-6, rtol=1e-6)
    if name == "tiny_gemma3":
        module, inputs = exportable(again)
        program = torch.export.export(module, (), inputs, strict=False).module()
        torch.testing.assert_close(program(**inputs), module(**inputs), atol=1e-6, rtol=0)


def test_a_mixture_is_softmax_of_its_weights_times_its_scale_of_vectors_or_of_states(tiny_bert):
    for pooling in ("mean", "max", "attention"):
        _, made = classifier(tiny_bert, layers="mix", pooling_strategy=pooling)
        with torch.no_grad():
            made.pooler.weight_KL.copy_(torch.tensor([[0.5, -1.0]]))
            made.pooler.scale_bias_K.fill_(1.5)
        share_L = torch.tensor([0.5, -1.0]).softmax(0) * 2.5
        tokens = made.encoder.tokenize(POSTS)
        for row, ids in enumerate(tokens.ids):
            states = states_of_transformers(tiny_bert, ids)[1:]
            mask = torch.ones(1, len(ids))
            if pooling == "attention":
                mixed = sum(share * state for share, state in zip(share_L, states, strict=True))
                want = made.pooler.pool(mixed[None, None], mask[None])[0]
            else:
                pool = build_pooler(pooling, 32)
                want = sum(s * pool(state[None], mask) for s, state in zip(share_L, states, strict=True))
            found = made.vectors(made.encoder.collate(tokens, [row]))
            torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
