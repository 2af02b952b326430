"""A small corpus encoded by a tiny encoder, and folds trained on it: what tests of cached vectors stand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureStore
from gemma_nli.training.frozen.head_inputs import HeadInputs, load_inputs
from gemma_nli.training.frozen.train_folds import train_folds
from gemma_nli.training.results import FoldResult


@dataclass
class FrozenSetup:
    """Trains folds of any configuration on one corpus; texts are encoded once for all tests."""

    base: RunConfig
    corpus: Corpus
    pairs: PairTable
    store: FeatureStore
    _inputs: dict[tuple[Any, ...], HeadInputs] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, encoder: Path, corpus: Corpus, **settings: Any) -> FrozenSetup:
        base = RunConfig().with_settings(
            {
                "model.name": str(encoder),
                "model.max_length": 48,
                "model.head_hidden": 8,
                "training.num_epochs": 4,
                "training.batch_size": 8,
                "training.learning_rate": 0.02,
                "device.device": "cpu",
                **{name.replace("__", "."): value for name, value in settings.items()},
            }
        )
        return cls(base, corpus, build_pairs(corpus, base.data), FeatureStore(folder / "features", base.features))

    def config(self, **settings: Any) -> RunConfig:
        return self.base.with_settings({name.replace("__", "."): value for name, value in settings.items()})

    def inputs(self, config: RunConfig) -> HeadInputs:
        model = config.model
        pooled = (model.pooling_strategy, model.layers, model.pooling_k, model.premise_prompt, model.hypothesis_prompt)
        key = (*pooled, model.pair_encoding, config.data.negative_ratio)
        if key not in self._inputs:
            rows = self.pairs.rows_used(config.data.negative_ratio)
            self._inputs[key] = load_inputs(config, self.corpus, self.pairs, rows, self.store)
        return self._inputs[key]

    def train(
        self, folds: list[int] | None = None, pairs: PairTable | None = None, **settings: Any
    ) -> list[FoldResult]:
        config = self.config(**settings)
        folds = folds or list(range(1, self.pairs.num_folds + 1))
        return train_folds(config, pairs or self.pairs, folds, self.inputs(config))


def assert_same_fold(one: FoldResult, other: FoldResult, tolerance: float = 0.0) -> None:
    """Equal folds in everything but the time they took; `tolerance` is of the floats.

    F1, AUC and the like are steps: two pairs that swap places within the tolerance move them by a step.
    """
    close = {"rtol": tolerance, "atol": tolerance, "equal_nan": True}
    step = {**close, "atol": 0.02 if tolerance else 0.0}
    for name in ("fold", "status", "selected_epoch", "best_epoch", "detail", "trained_parameters"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.probabilities, other.probabilities, **close)
    np.testing.assert_allclose(one.threshold, other.threshold, **close)
    assert one.history.keys() == other.history.keys()
    for name, values in one.history.items():
        kind = close if name.endswith("_loss") else step
        np.testing.assert_allclose(values, other.history[name], **kind, err_msg=name)
    assert one.metrics.keys() == other.metrics.keys()
    for name, value in one.metrics.items():
        np.testing.assert_allclose(value, other.metrics[name], **step, err_msg=name)
    assert one.state.keys() == other.state.keys()
    for name, tensor in one.state.items():
        torch.testing.assert_close(tensor, other.state[name], rtol=tolerance, atol=tolerance, equal_nan=True)
