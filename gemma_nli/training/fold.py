"""A fold's pairs, and its result at the epoch that the settings choose: the same for cached vectors and fine-tuning.

Shapes: E epochs, V evaluation rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.errors import TrainingError
from gemma_nli.training.metrics import best_threshold, fold_metrics, sigmoid
from gemma_nli.training.results import DIVERGED, FINISHED, FoldResult

Rows = NDArray[np.int64]


@dataclass
class FoldPlan:
    """A fold's pairs: fitted on, chosen by (empty unless `epoch_selection: inner`), measured on."""

    fold: int
    fit: Rows
    selection: Rows
    evaluation: Rows


def plan_fold(config: RunConfig, pairs: PairTable, fold: int) -> FoldPlan:
    """The fold's pairs under the configuration; raises TrainingError when nothing is left to train on."""
    ratio = config.data.negative_ratio
    evaluation = pairs.evaluation_rows(fold)
    if config.training.epoch_selection == "inner":
        fit, selection = pairs.inner_split(fold, ratio)
    else:
        fit, selection = pairs.training_rows(fold, ratio), np.zeros(0, dtype=np.int64)
    if not len(fit) or not len(evaluation):
        raise TrainingError(
            f"fold {fold} has {len(fit)} training and {len(evaluation)} evaluation pairs; "
            "use fewer data.num_folds, or training.epoch_selection=last."
        )
    return FoldPlan(fold, fit, selection, evaluation)


def measure(
    config: RunConfig,
    pairs: PairTable,
    plan: FoldPlan,
    history: dict[str, list[float]],
    logits_EV: NDArray[np.floating],
    inner_EV: NDArray[np.floating] | None,
    best_score_epoch: int,
    status: str,
) -> FoldResult:
    """A fold's result at the epoch that `training.epoch_selection` names, and at the threshold that goes with it.

    inner: epoch and threshold of the best F1 on the inner split; last and best: threshold 0.5. `peeked_f1` is the F1
    that the same freedom (epoch; with inner, threshold too) gives when it is used on the evaluation pairs themselves.
    """
    labels = pairs.label_N[plan.evaluation]
    ran = len(history["train_loss"])
    if status != FINISHED or ran == 0:
        rows = np.zeros(0, dtype=np.int64)
        detail = f"the loss was no number in epoch {ran + 1}; lower training.learning_rate"
        blank = np.zeros(0, dtype=np.float32)
        return FoldResult(plan.fold, DIVERGED, history, 0, 0, 0.5, rows, blank, labels[:0], {}, detail=detail)
    selected = ran if config.training.epoch_selection == "last" else best_score_epoch
    threshold = 0.5
    if inner_EV is not None:
        threshold = best_threshold(sigmoid(inner_EV[selected - 1]), pairs.label_N[plan.selection])[0]
    probabilities = sigmoid(logits_EV[selected - 1]).astype(np.float32)
    metrics = fold_metrics(probabilities, labels, threshold)
    peeking = [best_threshold(sigmoid(z_V), labels)[1] for z_V in logits_EV[:ran]] if inner_EV is not None else []
    metrics["peeked_f1"] = max(peeking, default=max(history["val_f1"]))
    return FoldResult(
        fold=plan.fold,
        status=FINISHED,
        history=history,
        selected_epoch=selected,
        best_epoch=int(np.argmax(history["val_f1"])) + 1,
        threshold=threshold,
        rows=plan.evaluation,
        probabilities=probabilities,
        labels=labels,
        metrics=metrics,
    )


def positive_weight(pairs: PairTable, rows: Rows) -> float:
    """Negatives a positive among `rows`: what `loss: weighted` gives a positive."""
    positives = int(pairs.label_N[rows].sum())
    return (len(rows) - positives) / max(positives, 1)
