"""How much GPU memory a trial needs, estimated from the encoder's files before anything runs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from gemma_nli.config import ModelConfig, RunConfig
from gemma_nli.config.chosen_layers import choose_layers
from gemma_nli.model.layers import build_layers_pooler, is_learned
from gemma_nli.model.loading.folder_files import read_header
from gemma_nli.model.loading.identity import encoder_folder, weight_files
from gemma_nli.model.loading.network import sizes
from gemma_nli.model.loading.sentence_modules import is_native, native_modules

GIB = 2**30
CONTEXT_GIB = 0.6
"""A CUDA context with its libraries, whatever runs in it."""
HEADROOM = 1.15
"""Fragmentation of the caching allocator."""


@dataclass(frozen=True)
class MemoryEstimate:
    """GiB of each part. `activations` are those of one micro-batch at full `model.max_length`."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        return CONTEXT_GIB + HEADROOM * (self.weights + self.gradients + self.optimizer + self.activations)


@dataclass(frozen=True)
class _Shape:
    """`of_layer`: how many of the parameters each layer has, where the weights' names tell."""

    parameters: int
    hidden: int
    layers: int
    heads: int
    of_layer: tuple[int, ...] = ()

    def cut_above(self, highest: int) -> _Shape:
        parameters = self.parameters - sum(self.of_layer[highest:])
        return replace(self, parameters=parameters, layers=highest, of_layer=self.of_layer[:highest])


def estimate_memory(config: RunConfig) -> MemoryEstimate:
    """A trial's GPU memory.

    Frozen encoders train heads on cached vectors: the encoder itself is not loaded in the trial, except to recompute
    token states past their budget. Trained encoders hold weights, gradients and two moments of what is trained, and
    the activations of a micro-batch: 34 bytes per token and hidden unit and 5 per token pair and head, in each layer,
    at 16 bits; twice that at 32; with gradient checkpointing only each layer's input and one layer in full.
    Layers above the highest that `model.layers` reads are not there.

    Source of the activation count: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1.
    """
    model = config.model
    whole = _shape(model.name, model.revision)
    choice = choose_layers(model.layers, whole.layers, model.name)
    shape = whole.cut_above(choice.highest)
    half = config.device.mixed_precision in ("auto", "bf16", "fp16")
    if model.freeze_encoder:
        modules = native_modules(model, encoder_folder(model)) if is_native(model) else None
        with torch.device("meta"):
            pooler = build_layers_pooler(model, choice, shape.hidden, modules=modules)
        numbers = config.training.batch_size * config.data.num_folds * 4 * 8
        learned, read = is_learned(model), len(choice.numbers)
        vectors = numbers * pooler.width * (read if choice.mixed and not learned else 1)  # those that it mixes
        tokens = numbers * shape.hidden * read * model.max_length if learned else 0
        return MemoryEstimate(0.05, 0.0, 0.0, (vectors + tokens) / GIB)
    trained = _trained_parameters(model, shape)
    own_weights = shape.parameters * (2 if half and model.lora else 4)
    micro = math.ceil(config.training.batch_size / config.training.gradient_accumulation)
    texts = 2 if model.pair_encoding == "separate" else 1
    per_layer = micro * texts * model.max_length * (34 * shape.hidden + 5 * shape.heads * model.max_length)
    layer_bytes = per_layer * (1 if half else 2)
    if config.device.gradient_checkpointing:
        inputs = micro * texts * model.max_length * shape.hidden * (2 if half else 4)
        activations = shape.layers * inputs + layer_bytes
    else:
        activations = shape.layers * layer_bytes
    return MemoryEstimate(own_weights / GIB, trained * 4 / GIB, trained * 8 / GIB, activations / GIB)


def gpu_share(config: RunConfig, gpu_gib: float) -> float:
    """The share of a GPU of `gpu_gib` that a trial requests: the estimate in steps of 0.05, whole GPUs above one."""
    share = estimate_memory(config).total / gpu_gib
    return float(math.ceil(share)) if share > 1 else max(0.05, math.ceil(share * 20) / 20)


def _trained_parameters(model: ModelConfig, shape: _Shape) -> float:
    if model.lora is not None:
        modules = 2 if model.lora.target_modules == "auto" else 7
        return modules * shape.layers * 2 * shape.hidden * model.lora.rank
    if model.unfreeze_last_n is not None:
        return shape.parameters * min(1.0, model.unfreeze_last_n / shape.layers)
    return shape.parameters


@lru_cache(maxsize=64)
def _shape(name: str, revision: str | None) -> _Shape:
    folder = encoder_folder(ModelConfig(name=name, revision=revision))
    hidden, layers, heads = sizes(name, folder)
    tensors = [tensor for file in weight_files(folder) for tensor in _tensor_sizes(file).items()]
    of_layer = [0] * layers
    for name_of, size in tensors:
        numbered = re.search(r"\.(\d+)\.", name_of)  # the first number in a weight's name is its layer's
        if numbered is not None and int(numbered[1]) < layers:
            of_layer[int(numbered[1])] += size
    return _Shape(sum(size for _, size in tensors), hidden, layers, heads, tuple(of_layer))


def _tensor_sizes(path: Path) -> dict[str, int]:
    """How many numbers each tensor of a safetensors file has, read from its header alone."""
    return {name: math.prod(entry["shape"]) for name, entry in read_header(path).items()}
