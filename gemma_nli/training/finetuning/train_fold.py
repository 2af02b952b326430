"""One fold whose encoder is trained: all of it, its last layers, or adapters.

Shapes: E epochs, V rows of an evaluation set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma_nli.base.errors import TrainingError
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.training.epoch_selections import patience_of
from gemma_nli.training.finetuning.encoder_cache import (
    SharedEncoder,
    release_shared_encoder,
    shared_encoder,
    trial_rows,
)
from gemma_nli.training.finetuning.length_grouped_batches import LengthGroupedBatches
from gemma_nli.training.finetuning.optimizer_step import Steps, free_memory, is_out_of_memory, one_pair_too_many
from gemma_nli.training.fold import FoldPlan, Rows, epoch_curves, epoch_score, measure, plan_fold
from gemma_nli.training.results import DIVERGED, FINISHED, FoldResult

Computed = TypeVar("Computed")
_LOOK_EVERY = 32  # steps between two checks of the loss; a check waits for the GPU


def train_fold(
    config: RunConfig,
    corpus: Corpus,
    pairs: PairTable,
    fold: int,
    on_epoch: Callable[[int, Mapping[str, float]], None],
) -> FoldResult:
    """Train and measure one fold; the same settings give the same numbers, whatever folds ran before it.

    Args:
        on_epoch: called with each epoch (counted from 1) and its metrics, named as in the result's history.
    Returns:
        Its `state` is what was trained (pooling, head, adapters or encoder) at the selected epoch, on the CPU. A fold
        whose loss became NaN or inf has status `diverged` and no state.
    Raises:
        TrainingError: no pairs to train on, or one pair does not fit the device's memory.
    """
    began = time.perf_counter()
    plan = plan_fold(config, pairs, fold)
    run = _Run(config, corpus, pairs, plan.fit, fold)
    record = _EpochRecord(config, pairs, plan)
    with run.own_randomness():
        for epoch in range(1, config.training.num_epochs + 1):
            metrics = record.epoch(epoch, run)
            if metrics is None:
                break
            on_epoch(epoch, metrics)
            if record.out_of_patience(epoch):
                break
    result = record.result(run)
    result.trained_parameters = sum(p.numel() for p in run.steps.optimizer.parameters)
    result.seconds = time.perf_counter() - began
    run.steps.optimizer.forget_gradients()
    return result


def fit_all(config: RunConfig, corpus: Corpus, pairs: PairTable, rows: Rows, epochs: int) -> PairClassifier:
    """A classifier trained on all of `rows` for a known number of epochs (fold 0 in the seed's terms), in eval mode.

    Raises:
        TrainingError: its loss became NaN or inf, or one pair does not fit the device's memory.
    """
    run = _Run(config, corpus, pairs, rows, 0)
    release_shared_encoder()  # the encoder leaves with the classifier: no later fold may train it further
    with run.own_randomness():
        for epoch in range(1, epochs + 1):
            loss = run.epoch()
            if not (np.isfinite(loss) and all(bool(p.isfinite().all()) for p in run.steps.optimizer.parameters)):
                raise TrainingError(
                    f"the loss became NaN or infinite in epoch {epoch} of the refit; lower training.learning_rate."
                )
    run.steps.optimizer.forget_gradients()
    return run.steps.classifier.eval()


class _Run:
    """A classifier in training on some rows."""

    def __init__(self, config: RunConfig, corpus: Corpus, pairs: PairTable, rows: Rows, fold: int) -> None:
        shared: SharedEncoder = shared_encoder(config)
        classifier = shared.classifier(config, fold)
        self.config = config
        self.tokens = shared.tokens_of(config, corpus, pairs, trial_rows(config, pairs, rows))
        training = config.training
        self.batches = LengthGroupedBatches(rows, self.tokens.lengths(rows), training.batch_size, training.seed, fold)
        total_steps = self.batches.steps * training.num_epochs
        self.steps = Steps(
            config, pairs, rows, fold, classifier, self.tokens, shared.precision, total_steps, shared.memory_warning
        )
        self.batch_tokens = config.features.batch_tokens
        if classifier.norm.fitted:
            self._within_memory(rows, lambda: self.tokens.fit_norm(classifier, rows, self.batch_tokens))

    def epoch(self) -> float:
        """One pass over the rows; the mean of its batches' losses, or NaN or inf as soon as one is."""
        total = torch.zeros((), dtype=torch.float64, device=self.steps.device)
        for number, rows_B in enumerate(self.batches.epoch(), start=1):
            total += self.steps.descend(rows_B)
            if number % _LOOK_EVERY == 0 and not total.isfinite():
                break
        return float(total) / self.batches.steps

    def logits(self, rows: Rows) -> NDArray[np.float32]:
        """(V,) logits of rows."""
        return self._within_memory(rows, lambda: self.tokens.evaluate(self.steps.classifier, rows, self.batch_tokens))

    @torch.inference_mode()
    def _within_memory(self, rows: Rows, compute: Callable[[], Computed]) -> Computed:
        """What `compute` gives without training, in fewer tokens at a time if memory is short; raises TrainingError
        at one pair.
        """
        self.steps.classifier.eval()
        longest = int(self.tokens.lengths(rows).max(initial=1))
        while True:
            try:
                with self.steps.autocast():
                    return compute()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if self.batch_tokens <= longest:
                raise TrainingError(one_pair_too_many(self.config, longest, self.steps.device))
            free_memory(self.steps.device)
            self.batch_tokens = max(longest, self.batch_tokens // 2)

    def keep_weights(self, kept: dict[str, Tensor]) -> None:
        """Copy what is trained or fitted into `kept`, on the CPU and in place: two copies of an encoder may not fit."""
        for name, parameter in self.steps.classifier.named_parameters():
            if parameter.requires_grad or name.startswith("norm."):
                if name in kept:
                    kept[name].copy_(parameter.detach())
                else:
                    kept[name] = parameter.detach().cpu().clone()

    @contextmanager
    def own_randomness(self) -> Iterator[None]:
        """Dropout draws from torch's global generators: restore them as they were."""
        device = self.steps.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield


@dataclass
class _EpochRecord:
    """The results of each epoch of a fold, its best epoch so far, and the weights of the one that would be selected
    now.
    """

    config: RunConfig
    pairs: PairTable
    plan: FoldPlan
    history: dict[str, list[float]] = field(default_factory=lambda: {"train_loss": []})
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    inner_logits: list[NDArray[np.float32]] = field(default_factory=list)
    best_score: float = -np.inf
    best_epoch: int = 0
    status: str = FINISHED
    kept: dict[str, Tensor] = field(default_factory=dict)

    def epoch(self, epoch: int, run: _Run) -> dict[str, float] | None:
        """Train and measure one epoch; None, and the fold has diverged, if a loss or logit is NaN or infinite."""
        loss = run.epoch()
        if not np.isfinite(loss):
            self.status = DIVERGED
            return None
        self.logits.append(run.logits(self.plan.evaluation))
        if self.plan.choice.inner:
            self.inner_logits.append(run.logits(self.plan.selection))
        if not all(np.isfinite(z[-1]).all() for z in (self.logits, self.inner_logits) if z):
            self.status = DIVERGED
            return None
        metrics = {"train_loss": loss}
        inner_V = self.inner_logits[-1] if self.inner_logits else None
        found = epoch_curves(self.pairs, self.plan, self.logits[-1][None], None if inner_V is None else inner_V[None])
        metrics |= {name: value for name, (value,) in found.items()}
        score = epoch_score(self.pairs, self.plan, epoch, self.logits[-1], inner_V)
        if self.plan.choice.inner:
            metrics["inner_f1"] = score
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        if score > self.best_score:
            self.best_score, self.best_epoch = score, epoch
            if self.plan.choice.chooses:
                run.keep_weights(self.kept)
        return metrics

    def out_of_patience(self, epoch: int) -> bool:
        patience = patience_of(self.config.training)
        return patience is not None and epoch - self.best_epoch >= patience

    def result(self, run: _Run) -> FoldResult:
        ran = len(self.history["train_loss"])
        z_EV, inner_EV = np.array(self.logits[:ran]), np.array(self.inner_logits[:ran])
        inner = inner_EV if self.plan.choice.inner else None
        result = measure(self.pairs, self.plan, self.history, z_EV, inner, self.best_epoch, self.status)
        if self.status == FINISHED:
            if not self.plan.choice.chooses:
                run.keep_weights(self.kept)
            result.state = self.kept
        return result
