"""A trial's GPU memory: of each part what the method needs, and a share of a GPU that holds it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from safetensors.torch import load_file

from gemma_nli.config import RunConfig
from gemma_nli.sweep.forecast.gpu_memory import CONTEXT_GIB, GIB, HEADROOM, MemoryEstimate, estimate_memory, gpu_share

FULL = {"model.freeze_encoder": False}
LORA = {**FULL, "model.lora": {"rank": 4}}


@pytest.fixture
def estimate(tiny_bert):
    def of(**dotted: Any) -> MemoryEstimate:
        name = {"model.name": str(tiny_bert), "model.max_length": 64, "training.batch_size": 32}
        return estimate_memory(RunConfig().with_settings({**name, **dotted}))

    return of


def test_a_trained_encoder_holds_its_weights_their_gradients_and_adamws_two_moments(estimate, tiny_bert):
    parameters = sum(tensor.numel() for tensor in load_file(tiny_bert / "model.safetensors").values())
    found = estimate(**FULL)
    assert found.weights == pytest.approx(4 * parameters / GIB)
    assert found.gradients == pytest.approx(4 * parameters / GIB)
    assert found.optimizer == pytest.approx(8 * parameters / GIB)
    whole = found.weights + found.gradients + found.optimizer + found.activations
    assert found.total == pytest.approx(CONTEXT_GIB + HEADROOM * whole)


def test_of_adapters_and_last_layers_only_what_is_trained_has_gradients_and_moments(estimate):
    full, lora, last = estimate(**FULL), estimate(**LORA), estimate(**FULL, **{"model.unfreeze_last_n": 1})
    assert lora.gradients == pytest.approx(4 * (2 * 2 * 2 * 32 * 4) / GIB)  # A and B of query and value, two layers
    assert lora.gradients < last.gradients < full.gradients
    for found in (full, lora, last):
        assert found.optimizer == pytest.approx(2 * found.gradients)


def test_a_frozen_encoder_trains_a_head_and_nothing_else(estimate):
    frozen = estimate()
    assert (frozen.gradients, frozen.optimizer) == (0.0, 0.0)
    tokens = estimate(**{"model.pooling_strategy": "attention"})
    assert tokens.activations == pytest.approx(65 * frozen.activations)  # 64 tokens per text beside its vector


def test_layers_above_the_highest_that_is_read_are_not_there(estimate, tiny_bert):
    sizes = {name: tensor.numel() for name, tensor in load_file(tiny_bert / "model.safetensors").items()}
    above = sum(size for name, size in sizes.items() if ".layer.1." in name)
    assert above > 0
    whole, cut = estimate(**FULL), estimate(**FULL, **{"model.layers": 1})
    assert cut.weights == pytest.approx(4 * (sum(sizes.values()) - above) / GIB)
    assert cut.activations == pytest.approx(whole.activations / 2)
    assert estimate(**LORA, **{"model.layers": 1}).gradients == pytest.approx(estimate(**LORA).gradients / 2)


def test_a_frozen_trial_holds_the_vectors_of_each_layer_that_it_reads(estimate):
    one = estimate().activations
    assert estimate(**{"model.layers": [1, 2]}).activations == pytest.approx(2 * one)
    assert estimate(**{"model.layers": "mix"}).activations == pytest.approx(2 * one)
    tokens = estimate(**{"model.pooling_strategy": "attention", "model.layers": [1, 2]})
    assert tokens.activations == pytest.approx(2 * 65 * one)


@pytest.mark.parametrize(
    ("settings", "times"),
    [
        ({"training.gradient_accumulation": 4}, 0.25),
        ({"training.gradient_accumulation": 3}, 11 / 32),
        ({"training.batch_size": 64}, 2),
        ({"model.pair_encoding": "separate"}, 2),
        ({"device.mixed_precision": "none"}, 2),
    ],
)
def test_activations_are_those_of_one_micro_batch_in_its_precision(estimate, settings, times):
    assert estimate(**FULL, **settings).activations == pytest.approx(times * estimate(**FULL).activations)


def test_attention_grows_with_the_square_of_the_length_and_checkpointing_keeps_one_layer(estimate):
    short, long = (estimate(**{**FULL, "model.max_length": n}).activations for n in (64, 256))
    assert 4 * short < long < 16 * short
    assert estimate(**FULL, **{"device.gradient_checkpointing": True}).activations < short


@pytest.mark.parametrize("method", [{}, LORA, FULL])
def test_the_share_holds_the_estimate_in_twentieths_of_a_gpu_or_whole_ones(tiny_bert, estimate, method):
    settings = {"model.name": str(tiny_bert), "model.max_length": 64, "training.batch_size": 32, **method}
    config, needed = RunConfig().with_settings(settings), estimate(**method).total
    for gpu_gib in (needed / 2.5, needed / 1.01, needed, needed * 1.9, needed * 7, 1000.0):
        share = gpu_share(config, gpu_gib)
        assert share * gpu_gib >= needed - 1e-9
        assert share >= 0.05
        step = 1 if share > 1 else 0.05
        assert math.isclose(share / step, round(share / step))
        assert (share - step) * gpu_gib < needed or share == 0.05, "no more than a step too much"
