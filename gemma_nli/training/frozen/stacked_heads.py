"""K heads in training: their weights, batches, dropout and optimizer, one epoch at a time in one batched computation.

Equal, to rounding, to training one after the other: each fold has its own initial weights, batches, dropout and
optimizer step count, all drawn from (seed, fold). The folds of several training seeds train together in the same way.
Shapes: S steps, K models (folds, of one seed or several), B rows, V rows of an evaluation set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.model.head_norms import head_input
from gemma_nli.training.fold import Rows, positive_weight
from gemma_nli.training.frozen.fold_batches import FoldBatches, FoldDropout
from gemma_nli.training.frozen.head_inputs import HeadInputs, StackedClassifier
from gemma_nli.training.frozen.stacked_adamw import StackedAdamW
from gemma_nli.training.losses import pair_losses
from gemma_nli.training.rate_schedules import rate_factors

_FITTED_NUMBERS = 4_000_000
"""Numbers of heads' inputs that a norm is fitted to at a time."""


class HeadStack:
    """A head for each (training seed, fold) of `drawn_by`, fitted on its own rows of the PairTable."""

    def __init__(
        self,
        config: RunConfig,
        pairs: PairTable,
        drawn_by: Sequence[tuple[int, int]],
        rows: list[Rows],
        inputs: HeadInputs,
    ) -> None:
        training = config.training
        self.training, self.inputs, self.device = training, inputs, inputs.device
        self.classifier = StackedClassifier(config, inputs.width, len(drawn_by))
        for index, (seed, fold) in enumerate(drawn_by):
            self.classifier.reset(index, seed, fold)
        self.classifier.to(self.device)
        if self.classifier.norm.fitted:
            PaddedRows(rows, self.device).fit_norm(inputs, self.classifier)
        widths = self.classifier.head.drop_widths()
        self.batches = FoldBatches(rows, training.batch_size, drawn_by)
        self.dropout = FoldDropout(config.model.dropout, widths, training.batch_size, drawn_by, self.batches.max_steps)
        self.optimizer = StackedAdamW(
            self.classifier, _rates(config, self.batches), training.weight_decay, training.max_grad_norm
        )
        self.label_N = torch.from_numpy(pairs.label_N.astype(np.float32)).to(self.device)
        self.positive_weight_K1 = torch.tensor([[positive_weight(pairs, r)] for r in rows], device=self.device)
        self.steps_K = np.array(self.batches.steps)

    def run_epoch(self) -> NDArray[np.float64]:
        """One pass of every fold over its rows; gives the folds' mean training loss."""
        rows_SKB, weight_SKB = self.batches.epoch(self.device)
        self.dropout.next_epoch()
        label_SKB = self.label_N[rows_SKB]
        total_K = torch.zeros(len(self.steps_K), device=self.device)
        for step in range(self.batches.max_steps):
            self.dropout.next_step(self.device)
            logit_KB = self.classifier(self.inputs.sides(self.classifier, rows_SKB[step]), self.dropout)
            losses_KB = pair_losses(logit_KB, label_SKB[step], self.training, self.positive_weight_K1)
            loss_K = (losses_KB * weight_SKB[step]).sum(1)
            self.optimizer.descend(loss_K.sum(), self.batches.asleep(step, self.device))
            total_K += loss_K.detach()
        return np.asarray(total_K.cpu().numpy() / self.steps_K, dtype=np.float64)


def _rates(config: RunConfig, batches: FoldBatches) -> Tensor:
    """(K, S) learning rate of each fold at each of its own steps."""
    training = config.training
    longest = batches.max_steps * training.num_epochs
    rates_KS = torch.zeros(len(batches.steps), longest, dtype=torch.float64)
    for fold, steps in enumerate(batches.steps):
        factors = rate_factors(steps * training.num_epochs, training.warmup_ratio, training.schedule)
        rates_KS[fold, : len(factors)] = training.learning_rate * factors
    return rates_KS


class PaddedRows:
    """Rows of K folds as one padded (K, V) tensor, so that all folds are measured, or fitted to, in one call."""

    def __init__(self, rows: list[Rows], device: torch.device) -> None:
        self.lengths = [len(fold_rows) for fold_rows in rows]
        longest = max(rows, key=len)  # a fold without rows borrows these: they always have vectors
        rows_KV = np.stack([np.resize(r if len(r) else longest, len(longest)) for r in rows])
        self.rows_KV = torch.from_numpy(rows_KV).to(device)

    @torch.no_grad()
    def logits(self, inputs: HeadInputs, classifier: StackedClassifier) -> list[NDArray[np.float32]]:
        parts = torch.split(self.rows_KV, inputs.chunk or self.rows_KV.shape[1], dim=1)
        found = [classifier(inputs.sides(classifier, part_KB)) for part_KB in parts]
        z_KV = torch.cat(found, dim=1).float().cpu().numpy()
        return [z_KV[fold, :length] for fold, length in enumerate(self.lengths)]

    @torch.no_grad()
    def fit_norm(self, inputs: HeadInputs, classifier: StackedClassifier) -> None:
        """Fit the folds' norms, each to its own rows, with the pooling as it is now."""
        classifier.norm.fit(self._inputs(inputs, classifier))

    def _inputs(self, inputs: HeadInputs, classifier: StackedClassifier) -> Iterator[tuple[Tensor, Tensor]]:
        size = inputs.chunk or max(1, _FITTED_NUMBERS // (len(self.lengths) * classifier.norm.in_features))
        lengths_K1 = torch.tensor(self.lengths).unsqueeze(1)
        for start in range(0, self.rows_KV.shape[1], size):
            part_KB = self.rows_KV[:, start : start + size]
            real_KB = start + torch.arange(part_KB.shape[1]) < lengths_K1
            yield head_input(classifier.norm, inputs.sides(classifier, part_KB)), real_KB

    @staticmethod
    def finite(logits: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
        return np.array([bool(np.isfinite(z).all()) for z in logits])
