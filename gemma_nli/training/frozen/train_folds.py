"""All folds of a frozen encoder's configuration, for one training seed or several, as one batched computation over
cached vectors.

Shapes: E epochs, K models (folds, of one seed or several), V rows of an evaluation set.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.training.epoch_selections import patience_of
from gemma_nli.training.fold import FoldPlan, Rows, epoch_curves, epoch_score, measure, plan_fold
from gemma_nli.training.frozen.head_inputs import HeadInputs, StackedClassifier
from gemma_nli.training.frozen.stacked_heads import HeadStack, PaddedRows
from gemma_nli.training.results import DIVERGED, FINISHED, FoldResult


@dataclass
class _EarlyStopping:
    """Which folds are still training, and each fold's best epoch so far with its weights."""

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
        """Which folds have a new best epoch; stops those out of patience or with a loss that is NaN or infinite."""
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
        One FoldResult per fold, in the order of `folds`; a fold whose loss became NaN or inf has status `diverged`.
    """
    return train_seeds(config, [config.training.seed], pairs, folds, inputs)[0]


def train_seeds(
    config: RunConfig, seeds: Sequence[int], pairs: PairTable, folds: list[int], inputs: HeadInputs
) -> list[list[FoldResult]]:
    """The same for each training seed, all in one computation; each seed's results equal those of training it alone, to
    rounding: a batched product may sum in another order.
    """
    began = time.perf_counter()
    drawn_by = [(seed, fold) for seed in seeds for fold in folds]
    plans = [plan_fold(config, pairs, fold) for fold in folds] * len(seeds)
    stack = HeadStack(config, pairs, drawn_by, [plan.fit for plan in plans], inputs)
    evaluation = PaddedRows([plan.evaluation for plan in plans], inputs.device)
    inner = any(plan.choice.inner for plan in plans)
    selection = PaddedRows([plan.selection for plan in plans], inputs.device) if inner else None
    stopping = _EarlyStopping(len(plans), patience_of(config.training))
    values_KP = stack.optimizer.values_KP
    kept_KP = values_KP.clone()
    record = _EpochRecord(pairs, plans)
    for epoch in range(1, config.training.num_epochs + 1):
        record.train_loss.append(stack.run_epoch())
        record.logits.append(evaluation.logits(inputs, stack.classifier))
        if selection is not None:
            record.inner_logits.append(selection.logits(inputs, stack.classifier))
        record.scores.append(np.array([record.score(model) for model in range(len(plans))]))
        better_K = stopping.epoch_ended(epoch, record.scores[-1], record.finite())
        if better_K.any():
            chosen = torch.from_numpy(np.flatnonzero(better_K)).to(inputs.device)
            kept_KP[chosen] = values_KP[chosen]
        if not stopping.going.any():
            break
    values_KP.copy_(kept_KP)
    seconds = (time.perf_counter() - began) / len(plans)
    results = [record.result(index, stopping) for index in range(len(plans))]
    for index, result in enumerate(results):
        result.state, result.seconds = stack.classifier.state_of(index), seconds
        result.trained_parameters = values_KP.shape[1]
    return [results[start : start + len(folds)] for start in range(0, len(results), len(folds))]


@dataclass
class _EpochRecord:
    """The results of each epoch, for all folds: (K,) losses and scores, K arrays of logits."""

    pairs: PairTable
    plans: list[FoldPlan]
    train_loss: list[NDArray[np.float64]] = field(default_factory=list)
    logits: list[list[NDArray[np.float32]]] = field(default_factory=list)
    inner_logits: list[list[NDArray[np.float32]]] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)

    def score(self, index: int) -> float:
        inner_V = self.inner_logits[-1][index] if self.inner_logits else None
        return epoch_score(self.pairs, self.plans[index], len(self.logits), self.logits[-1][index], inner_V)

    def finite(self) -> NDArray[np.bool_]:
        """(K,) whether the latest epoch gave finite numbers only."""
        finite_K = np.isfinite(self.train_loss[-1]) & PaddedRows.finite(self.logits[-1])
        return finite_K & PaddedRows.finite(self.inner_logits[-1]) if self.inner_logits else finite_K

    def result(self, index: int, stopping: _EarlyStopping) -> FoldResult:
        ran, plan = int(stopping.last_epoch[index]), self.plans[index]
        z_EV = self._epochs(self.logits, index, ran)
        inner_EV = self._epochs(self.inner_logits, index, ran) if plan.choice.inner else None
        history = {"train_loss": [float(loss[index]) for loss in self.train_loss[:ran]]}
        history |= epoch_curves(self.pairs, plan, z_EV, inner_EV)
        if plan.choice.inner:
            history["inner_f1"] = [float(score[index]) for score in self.scores[:ran]]
        status = DIVERGED if stopping.diverged[index] else FINISHED
        return measure(self.pairs, plan, history, z_EV, inner_EV, int(stopping.best_epoch[index]), status)

    @staticmethod
    def _epochs(logits: list[list[NDArray[np.float32]]], index: int, ran: int) -> NDArray[np.float32]:
        """(E, V) of the epochs that the fold finished: none, if it diverged in the first."""
        return np.array([z[index] for z in logits[:ran]]).reshape(ran, len(logits[0][index]))


def fit_head(config: RunConfig, pairs: PairTable, rows: Rows, epochs: int, inputs: HeadInputs) -> StackedClassifier:
    """One head on all of `rows` for a known number of epochs: the finalizer's refit (fold 0 in the seed's terms)."""
    stack = HeadStack(config, pairs, [(config.training.seed, 0)], [rows], inputs)
    for _ in range(epochs):
        stack.run_epoch()
    return stack.classifier
