"""One optimizer step on an effective batch, in as many micro-batches as memory needs.

Shapes: B rows of a micro-batch, N rows of the PairTable. The leading 1 is the one model of a stack.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gemma_nli.base.errors import TrainingError
from gemma_nli.base.random_streams import OPTIMIZER_STEP
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.training.finetuning.adamw_groups import ScheduledAdamW
from gemma_nli.training.finetuning.pair_tokens import PairTokens
from gemma_nli.training.fold import Rows, positive_weight
from gemma_nli.training.losses import pair_losses

log = logging.getLogger(__name__)
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass
class MicroBatchWarning:
    """What has been logged about memory; the folds of a trial share one, so that each size is logged once."""

    smallest: int | None = None

    def warn(self, micro: int, batch_size: int) -> None:
        if self.smallest is None or micro < self.smallest:
            self.smallest = micro
            log.warning(
                "out of memory: continuing with %d pairs at a time; training.batch_size stays %d by accumulation. Set "
                "training.gradient_accumulation=%d to start that way.",
                micro,
                batch_size,
                -(-batch_size // micro),
            )


class Steps:
    """Trains a classifier, in place, one batch at a time.

    The gradient is that of the mean loss over the whole batch, however it is cut: each micro-batch's losses are summed
    and divided by the batch's rows. Dropout is drawn from (seed, fold, step), so a step repeated in smaller parts
    gives the same result as starting with these parts.
    """

    def __init__(
        self,
        config: RunConfig,
        pairs: PairTable,
        rows: Rows,
        fold: int,
        classifier: PairClassifier,
        tokens: PairTokens,
        precision: torch.dtype,
        total_steps: int,
        memory_warning: MicroBatchWarning | None = None,
    ) -> None:
        self.config, self.training, self.fold = config, config.training, fold
        self.classifier, self.tokens, self.memory_warning = classifier, tokens, memory_warning or MicroBatchWarning()
        self.device, self.precision = classifier.encoder.device, precision
        self.optimizer = ScheduledAdamW(classifier, config.training, total_steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)
        self.label_N = torch.from_numpy(pairs.label_N.astype(np.float32)).to(self.device)
        self.positive_weight_11 = torch.tensor([[positive_weight(pairs, rows)]], device=self.device)
        self.micro = -(-self.training.batch_size // self.training.gradient_accumulation)
        self.taken = 0

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32)

    def descend(self, rows_B: Rows) -> Tensor:
        """One step; gives the batch's mean loss, on the device.

        Raises:
            TrainingError: not even one pair at a time fits the memory, or the optimizer's own state does not.
        """
        shrunk = False
        while (loss := self._gradients(rows_B)) is None:
            longest = int(self.tokens.lengths(rows_B).max())
            if self.micro == 1:
                raise TrainingError(one_pair_too_many(self.config, longest, self.device))
            self.micro, shrunk = -(-min(self.micro, len(rows_B)) // 2), True
        if shrunk:
            self.memory_warning.warn(self.micro, self.training.batch_size)
        self._update()
        return loss

    def _gradients(self, rows_B: Rows) -> Tensor | None:
        """The batch's mean loss, its gradients in place; None if memory ran out."""
        self.classifier.train()
        self.optimizer.forget_gradients()
        torch.manual_seed(OPTIMIZER_STEP.number(self.training.seed, self.fold, self.taken))
        total = torch.zeros((), device=self.device)
        short = False
        for start in range(0, len(rows_B), self.micro):
            try:
                total += self._backward(rows_B[start : start + self.micro], len(rows_B))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                short = True
            if short:  # outside `except`, whose traceback holds the forward pass and its memory
                self.optimizer.forget_gradients()
                free_memory(self.device)
                return None
        return total

    def _backward(self, rows_B: Rows, batch: int) -> Tensor:
        with self.autocast():
            logit_B = self.tokens.logits(self.classifier, rows_B)
        label_1B = self.label_N[torch.from_numpy(rows_B).to(self.device)].unsqueeze(0)
        losses_1B = pair_losses(logit_B.float().unsqueeze(0), label_1B, self.training, self.positive_weight_11)
        loss = losses_1B.sum() / batch
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _update(self) -> None:
        self.optimizer.set_rates(self.taken)
        try:
            if self.training.max_grad_norm is not None:
                self.scaler.unscale_(self.optimizer.adamw)
                torch.nn.utils.clip_grad_norm_(self.optimizer.parameters, self.training.max_grad_norm)
            self.scaler.step(self.optimizer.adamw)
            self.scaler.update()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"AdamW's two moments of {sum(p.numel() for p in self.optimizer.parameters):,} trained weights do not "
                f"fit the memory of {self.device}; train adapters (model.lora), set model.unfreeze_last_n, or take a "
                "smaller encoder."
            ) from None
        self.taken += 1


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA's own error class, and the plain RuntimeErrors of the CPU's and other allocators."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def free_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def one_pair_too_many(config: RunConfig, tokens: int, device: torch.device) -> str:
    """What to change if one pair does not fit: only what is not already set."""
    ways = [f"lower model.max_length ({config.model.max_length})"]
    if not config.device.gradient_checkpointing:
        ways.append("set device.gradient_checkpointing=true")
    if config.model.lora is None:
        ways.append("train adapters (model.lora) in place of the encoder's own weights")
    ways.append(f"or take a smaller encoder than {config.model.name}")
    return f"one pair of {tokens} tokens does not fit the memory of {device}; {', '.join(ways)}."
