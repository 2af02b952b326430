"""A fold's pairs, and its result at the epoch that the settings choose: the same for cached vectors and fine-tuning.

Shapes: E epochs, V evaluation rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.training.epoch_selections import EPOCH_SELECTIONS, EpochSelection
from gemma_nli.training.metrics import best_threshold, fold_metrics, out_of_fold, sigmoid
from gemma_nli.training.results import DIVERGED, FINISHED, FoldResult

Rows = NDArray[np.int64]


@dataclass
class FoldPlan:
    """A fold's pairs: fitted on, chosen by (empty unless `chosen_by` is inner), measured on.

    `chosen_by` is `training.epoch_selection`, or `last` if the inner split cannot be used; `detail` then says why.
    """

    fold: int
    fit: Rows
    selection: Rows
    evaluation: Rows
    chosen_by: str
    detail: str = ""

    @property
    def choice(self) -> EpochSelection:
        return EPOCH_SELECTIONS[self.chosen_by]()


def plan_fold(config: RunConfig, pairs: PairTable, fold: int) -> FoldPlan:
    """The fold's pairs under the configuration.

    In a small corpus the inner split can lack a class on either side: the fold then does without it, as with
    `training.epoch_selection: last`.
    """
    ratio, evaluation = config.data.negative_ratio, pairs.evaluation_rows(fold)
    chosen_by, detail = config.training.epoch_selection, ""
    if EPOCH_SELECTIONS[chosen_by].inner:
        fit, selection = pairs.inner_split(fold, ratio)
        sides = {"training": pairs.label_N[fit], "selection": pairs.label_N[selection]}
        lacking = [f"{name} pairs" for name, labels in sides.items() if len(np.unique(labels)) < 2]
        if not lacking:
            return FoldPlan(fold, fit, selection, evaluation, chosen_by)
        chosen_by = "last"
        detail = f"the inner split's {' and '.join(lacking)} lack a class: measured at the last epoch, threshold 0.5"
    return FoldPlan(fold, pairs.training_rows(fold, ratio), np.zeros(0, dtype=np.int64), evaluation, chosen_by, detail)


def epoch_score(
    pairs: PairTable,
    plan: FoldPlan,
    epoch: int,
    logits_V: NDArray[np.floating],
    inner_V: NDArray[np.floating] | None,
) -> float:
    """What a fold's epochs are chosen by."""
    label_N = pairs.label_N
    return plan.choice.score(epoch, logits_V, label_N[plan.evaluation], inner_V, label_N[plan.selection])


def thresholds_of(pairs: PairTable, plan: FoldPlan, inner_EV: NDArray[np.floating]) -> NDArray[np.float64]:
    """(E,) what the fold would be decided by at each epoch: with inner, where F1 on the inner split is best; else 0.5.

    Args:
        inner_EV: logits of the inner split; of as many epochs, without rows, where there is none.
    """
    if not plan.choice.inner:
        return np.full(len(inner_EV), 0.5)
    labels = pairs.label_N[plan.selection]
    return np.array([best_threshold(sigmoid(z_V), labels)[0] for z_V in inner_EV])


def measure(
    pairs: PairTable,
    plan: FoldPlan,
    history: dict[str, list[float]],
    logits_EV: NDArray[np.floating],
    inner_EV: NDArray[np.floating] | None,
    best_score_epoch: int,
    status: str,
) -> FoldResult:
    """A fold's result at the epoch given by `plan.chosen_by`, and at its threshold (`thresholds_of`).

    `peeked_f1` is the F1 that choosing the same (epoch; with inner, the threshold too) on the evaluation pairs
    themselves would give.

    Args:
        history: the losses and curves of each epoch (`curves`, at `thresholds_of`).
    """
    labels = pairs.label_N[plan.evaluation]
    ran = len(history["train_loss"])
    if status != FINISHED or ran == 0:
        rows = np.zeros(0, dtype=np.int64)
        detail = f"the loss became NaN or infinite in epoch {ran + 1}; lower training.learning_rate"
        blank = np.zeros(0, dtype=np.float32)
        return FoldResult(plan.fold, DIVERGED, history, 0, 0, 0.5, rows, blank, labels[:0], {}, detail=detail)
    selected = best_score_epoch if plan.choice.chooses else ran
    tuning_EV = inner_EV if plan.choice.inner else None
    threshold = 0.5 if tuning_EV is None else float(thresholds_of(pairs, plan, tuning_EV[selected - 1 : selected])[0])
    probabilities = out_of_fold(logits_EV[selected - 1])
    metrics = fold_metrics(probabilities, labels, threshold)
    peeking = [best_threshold(sigmoid(z_V), labels)[1] for z_V in logits_EV[:ran]] if tuning_EV is not None else []
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
        detail=plan.detail,
    )


def positive_weight(pairs: PairTable, rows: Rows) -> float:
    """Negatives a positive among `rows`: the weight of a positive with `loss: weighted`."""
    positives = int(pairs.label_N[rows].sum())
    return (len(rows) - positives) / max(positives, 1)
