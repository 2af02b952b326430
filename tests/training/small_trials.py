"""Trials of a second: a made-up corpus of 60 posts, two-layer encoders, three folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gemma_nli.config import DataConfig, RunConfig, build_config
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.training.finetuning.train_fold import train_fold
from gemma_nli.training.results import FoldResult

LORA = {"model.lora.rank": 2}
NO_DROPOUT = {"model.dropout": 0.0}  # with a Gemma: BERT has some of its own


@cache
def corpus() -> Corpus:
    return synthetic_corpus(60, seed=3)


def trial(folder: Path, **settings: Any) -> RunConfig:
    """A configuration that trains the encoder in `folder`; settings by dotted names."""
    model = {"name": str(folder), "max_length": 48, "freeze_encoder": False}
    training = {"num_epochs": 2, "learning_rate": 1e-3, "batch_size": 16}
    tree = {"model": model, "training": training, "data": {"num_folds": 3}, "device": {"device": "cpu"}}
    return build_config(tree, "test").with_settings(settings)


@cache
def pairs_for(data: DataConfig) -> PairTable:
    return build_pairs(corpus(), data)


def run_fold(config: RunConfig, fold: int = 1) -> FoldResult:
    return train_fold(config, corpus(), pairs_for(config.data), fold, lambda epoch, metrics: None)


def same_numbers(one: FoldResult, other: FoldResult) -> bool:
    """To the last bit: history, probabilities and weights."""
    return (
        one.history == other.history
        and bool((one.probabilities == other.probabilities).all())
        and one.state.keys() == other.state.keys()
        and all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())
    )


class LimitedMemory:
    """Makes a real network run out of memory, for real on a CPU, whenever `too_big(rows, tokens, training)` says so."""

    def __init__(self, network: nn.Module, too_big: Callable[[int, int, bool], bool], where: str = "forward") -> None:
        self.too_big, self.where = too_big, where
        self.seen: list[int] = []
        self.handle = network.register_forward_hook(self._after, with_kwargs=True)

    def _after(self, network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Tensor], output: Any) -> None:
        rows, tokens = kwargs["input_ids"].shape
        self.seen.append(rows)
        if not self.too_big(rows, tokens, network.training):
            return
        if self.where == "backward":
            output.last_hidden_state.register_hook(lambda gradient: allocate_too_much())
        elif self.where == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        else:
            allocate_too_much()


def allocate_too_much() -> Tensor:
    return torch.empty(1 << 55, dtype=torch.uint8)
