"""All folds of a frozen encoder's configuration as one batched computation over cached vectors.

Shapes: E epochs, K folds, V rows of an evaluation set.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.training.fold import FoldPlan, Rows, measure, plan_fold
from gemma_nli.training.inputs import HeadInputs, StackedClassifier
from gemma_nli.training.metrics import best_threshold, curves, decisions, sigmoid
from gemma_nli.training.results import DIVERGED, FINISHED, FoldResult
from gemma_nli.training.stack import EvaluationSet, HeadStack


@dataclass
class _Watch:
    """Who is still training, and each fold's best epoch so far with its weights."""

    folds: int
    patience: int | None
    best_score: NDArray[np.float64] = field(init=False)
    best_epoch: NDArray[np.int64] = field(init=False)
    last_epoch: NDArray[np.int64] = field(init=False)
    going: NDArray[np.bool_] = field(init=False)
    diverged: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.best_score = np.full(self.folds, -np.inf)
        self.best_epoch = np.zeros(self.folds, dtype=np.int64)
        self.last_epoch = np.zeros(self.folds, dtype=np.int64)
        self.going = np.ones(self.folds, dtype=bool)
        self.diverged = np.zeros(self.folds, dtype=bool)

    def epoch_ended(self, epoch: int, score_K: NDArray[np.float64], finite_K: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which folds have a new best epoch; stops those out of patience or with a loss that is no number."""
        self.diverged |= self.going & ~finite_K
        self.going &= finite_K
        self.last_epoch[self.going] = epoch
        better = self.going & (score_K > self.best_score)
        self.best_score[better], self.best_epoch[better] = score_K[better], epoch
        if self.patience is not None:
            self.going &= epoch - self.best_epoch < self.patience
        return better


def train_folds(config: RunConfig, pairs: PairTable, folds: list[int], inputs: HeadInputs) -> list[FoldResult]:
    """Train and measure the heads of `folds` together.

    Returns:
        One FoldResult a fold, in the order of `folds`; a fold whose loss became NaN or inf has status `diverged`.
    """
    began = time.perf_counter()
    plans = [plan_fold(config, pairs, fold) for fold in folds]
    stack = HeadStack(config, pairs, folds, [plan.fit for plan in plans], inputs)
    evaluation = EvaluationSet([plan.evaluation for plan in plans], inputs.device)
    inner = config.training.epoch_selection == "inner"
    selection = EvaluationSet([plan.selection for plan in plans], inputs.device) if inner else None
    watch = _Watch(len(folds), config.training.patience)
    values_KP = stack.optimizer.values_KP
    kept_KP = values_KP.clone()
    told = _Told()
    for epoch in range(1, config.training.num_epochs + 1):
        told.train_loss.append(stack.run_epoch())
        told.logits.append(evaluation.logits(inputs, stack.classifier))
        finite_K = np.isfinite(told.train_loss[-1]) & EvaluationSet.finite(told.logits[-1])
        if selection is not None:
            told.inner_logits.append(selection.logits(inputs, stack.classifier))
            score_K = _tuned_f1(told.inner_logits[-1], [pairs.label_N[plan.selection] for plan in plans])
            told.inner_f1.append(score_K)
        else:
            score_K = _f1_at_half(told.logits[-1], [pairs.label_N[plan.evaluation] for plan in plans])
        better_K = watch.epoch_ended(epoch, score_K, finite_K)
        if config.training.epoch_selection == "last":
            better_K = watch.last_epoch == epoch
        if better_K.any():
            chosen = torch.from_numpy(np.flatnonzero(better_K)).to(inputs.device)
            kept_KP[chosen] = values_KP[chosen]
        if not watch.going.any():
            break
    values_KP.copy_(kept_KP)
    seconds = (time.perf_counter() - began) / len(folds)
    results = [told.result(config, pairs, plan, index, watch) for index, plan in enumerate(plans)]
    for index, result in enumerate(results):
        result.state, result.seconds = stack.classifier.state_of(index), seconds
        result.trained_parameters = sum(value.numel() for value in result.state.values())
    return results


@dataclass
class _Told:
    """What each epoch gave, for all folds: (K,) losses and scores, K arrays of logits."""

    train_loss: list[NDArray[np.float64]] = field(default_factory=list)
    logits: list[list[NDArray[np.float32]]] = field(default_factory=list)
    inner_logits: list[list[NDArray[np.float32]]] = field(default_factory=list)
    inner_f1: list[NDArray[np.float64]] = field(default_factory=list)

    def result(self, config: RunConfig, pairs: PairTable, plan: FoldPlan, index: int, watch: _Watch) -> FoldResult:
        ran = int(watch.last_epoch[index])
        z_EV = np.stack([z[index] for z in self.logits[: max(ran, 1)]])
        history = {"train_loss": [float(loss[index]) for loss in self.train_loss[:ran]]}
        for name, values in curves(z_EV, pairs.label_N[plan.evaluation]).items():
            history[name] = [float(value) for value in values[:ran]]
        inner_EV = None
        if self.inner_logits:
            history["inner_f1"] = [float(f1[index]) for f1 in self.inner_f1[:ran]]
            inner_EV = np.stack([z[index] for z in self.inner_logits[: max(ran, 1)]])
        status = DIVERGED if watch.diverged[index] else FINISHED
        return measure(config, pairs, plan, history, z_EV, inner_EV, int(watch.best_epoch[index]), status)


def _tuned_f1(logits: list[NDArray[np.float32]], labels: list[NDArray[np.int8]]) -> NDArray[np.float64]:
    return np.array([best_threshold(sigmoid(z_V), y_V)[1] for z_V, y_V in zip(logits, labels, strict=True)])


def _f1_at_half(logits: list[NDArray[np.float32]], labels: list[NDArray[np.int8]]) -> NDArray[np.float64]:
    return np.array([float(decisions(z_V >= 0, y_V)["f1"]) for z_V, y_V in zip(logits, labels, strict=True)])


def fit_head(config: RunConfig, pairs: PairTable, rows: Rows, epochs: int, inputs: HeadInputs) -> StackedClassifier:
    """One head on all of `rows` for a known number of epochs: the finalizer's refit (fold 0 in the seed's terms)."""
    stack = HeadStack(config, pairs, [0], [rows], inputs)
    for _ in range(epochs):
        stack.run_epoch()
    return stack.classifier
