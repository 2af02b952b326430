"""Tiny folders of sentence-transformers, made and saved by the library itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
)
from torch import nn

H = 32
PROMPTS = {"query": "fatigue: ", "document": "every day i feel ", "clustering": "a post of a user "}


def _layer_norm() -> LayerNorm:
    norm = LayerNorm(H)
    nn.init.normal_(norm.norm.weight)
    nn.init.normal_(norm.norm.bias)
    return norm


KINDS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    **{mode: ([lambda mode=mode: Pooling(H, mode)], {}) for mode in Pooling.POOLING_MODES},
    "all modes side by side": ([lambda: Pooling(H, Pooling.POOLING_MODES)], {}),
    "dense tanh": ([lambda: Pooling(H), lambda: Dense(H, 12)], {}),
    "dense without bias or activation": (
        [lambda: Pooling(H), lambda: Dense(H, 48, bias=False, activation_function=nn.Identity()), Normalize],
        {},
    ),
    "two dense, residual": (
        [
            lambda: Pooling(H, ("mean", "max")),
            lambda: Dense(2 * H, 20, activation_function=nn.GELU(), use_residual=True),
            lambda: Dense(20, 20, use_residual=True),
            Normalize,
        ],
        {},
    ),
    "dense on tokens": ([lambda: Dense(H, 9, module_input_name="token_embeddings"), lambda: Pooling(9, "max")], {}),
    "layer norm and dropout": ([lambda: Pooling(H, "lasttoken"), _layer_norm, Dropout, Normalize], {}),
    "default prompt": ([lambda: Pooling(H)], {"prompts": PROMPTS, "default_prompt_name": "document"}),
    "prompt left out": (
        [lambda: Pooling(H, Pooling.POOLING_MODES, include_prompt=False), lambda: Dense(6 * H, 7), Normalize],
        {"prompts": PROMPTS, "default_prompt_name": "clustering"},
    ),
    "truncated": ([lambda: Pooling(H), Normalize], {"truncate_dim": 10}),
}


def make_folder(target: Path, transformer: Path, kind: str, **settings: Any) -> Path:
    """Save `KINDS[kind]` behind a transformer; `settings` are the Transformer module's."""
    modules, others = KINDS[kind]
    torch.manual_seed(3)
    first = Transformer(str(transformer), **settings)
    model = SentenceTransformer(modules=[first, *(make() for make in modules)], device="cpu", **others)
    model.save(str(target), create_model_card=False)
    return target


def vectors(folder: Path, texts: list[str], **how: Any) -> torch.Tensor:
    """What the library's own encode() gives."""
    return torch.from_numpy(SentenceTransformer(str(folder), device="cpu").encode(texts, **how)).float()


def change(file: Path, **settings: Any) -> None:
    """Put settings into a JSON file."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **settings}))
