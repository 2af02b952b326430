"""A fold's pairs, and its result at the epoch that the settings choose: the same for cached vectors and fine-tuning.

Shapes: E epochs, V evaluation rows, I rows of the inner split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics import Counts
from gemma_nli.base.metrics.f1 import f1_of
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.model.scaling import UNSCALED, Scaling
from gemma_nli.training.calibrations import CALIBRATIONS
from gemma_nli.training.epoch_selections import EPOCH_SELECTIONS, EpochSelection
from gemma_nli.training.metrics import best_threshold, curves, fold_metrics, out_of_fold, sigmoid
from gemma_nli.training.results import DIVERGED, FINISHED, FoldResult
from gemma_nli.training.threshold_rules import AT_HALF, THRESHOLD_RULES, Thresholds

Rows = NDArray[np.int64]
REFUSED = "not calibrated: the logits of its inner split do not rise with the labels"


@dataclass
class FoldPlan:
    """A fold's pairs: fitted on, chosen by (empty unless `chosen_by` is inner), measured on.

    `chosen_by` is `training.epoch_selection`, or `last` if the inner split cannot be used; `detail` then says why.
    `threshold` and `calibration` are the settings of those names, which need the inner split.
    """

    fold: int
    fit: Rows
    selection: Rows
    evaluation: Rows
    chosen_by: str
    detail: str = ""
    threshold: str = "shared"
    calibration: str = "none"

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
            training = config.training
            rules = {"threshold": training.threshold, "calibration": training.calibration}
            return FoldPlan(fold, fit, selection, evaluation, chosen_by, **rules)
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


@dataclass(frozen=True)
class Decided:
    """How the evaluation pairs are decided at one epoch: what the inner split says of logits and thresholds."""

    scaling: Scaling
    thresholds: Thresholds
    refused: bool
    """Whether it was to be calibrated and is not."""
    probability_V: NDArray[np.float32]
    threshold_V: NDArray[np.float64]


def decide_epochs(
    pairs: PairTable, plan: FoldPlan, logits_EV: NDArray[np.floating], inner_EI: NDArray[np.floating] | None
) -> list[Decided]:
    """Each epoch's calibration and thresholds, chosen on the inner split; without one, logits as they are and 0.5.

    Where the inner split's logits do not rise with its labels, calibration is refused and they stay too.
    """
    criterion_V = pairs.criterion_N[plan.evaluation]
    found = []
    for epoch, logits_V in enumerate(logits_EV):
        scaling, thresholds, refused = UNSCALED, AT_HALF, False
        if plan.choice.inner and inner_EI is not None:
            label_I, criterion_I = pairs.label_N[plan.selection], pairs.criterion_N[plan.selection]
            fitted = CALIBRATIONS[plan.calibration](inner_EI[epoch], label_I)
            scaling, refused = fitted or UNSCALED, fitted is None
            likely_I = sigmoid(scaling.of(np.asarray(inner_EI[epoch], dtype=np.float64)))
            thresholds = THRESHOLD_RULES[plan.threshold](likely_I, label_I, criterion_I)
        probability_V = out_of_fold(scaling.of(np.asarray(logits_V, dtype=np.float64)))
        found.append(Decided(scaling, thresholds, refused, probability_V, thresholds.of(criterion_V)))
    return found


def epoch_curves(
    pairs: PairTable, plan: FoldPlan, logits_EV: NDArray[np.floating], inner_EI: NDArray[np.floating] | None
) -> dict[str, list[float]]:
    """`curves` of the epochs, each decided as it would be if it were chosen."""
    shape, decided = (len(logits_EV), len(plan.evaluation)), decide_epochs(pairs, plan, logits_EV, inner_EI)
    probability_EV = np.array([each.probability_V for each in decided], dtype=np.float32).reshape(shape)
    threshold_EV = np.array([each.threshold_V for each in decided]).reshape(shape)
    found = curves(logits_EV, pairs.label_N[plan.evaluation], probability_EV, threshold_EV)
    return {name: values.tolist() for name, values in found.items()}


def measure(
    pairs: PairTable,
    plan: FoldPlan,
    history: dict[str, list[float]],
    logits_EV: NDArray[np.floating],
    inner_EV: NDArray[np.floating] | None,
    best_score_epoch: int,
    status: str,
) -> FoldResult:
    """A fold's result at the epoch given by `plan.chosen_by`, decided as `decide_epochs` says.

    `peeked_f1` is the F1 that choosing the same (epoch; with inner, the thresholds too) on the evaluation pairs
    themselves would give.

    Args:
        history: the losses and curves of each epoch (`epoch_curves`).
    """
    labels = pairs.label_N[plan.evaluation]
    ran = len(history["train_loss"])
    if status != FINISHED or ran == 0:
        rows = np.zeros(0, dtype=np.int64)
        detail = f"the loss became NaN or infinite in epoch {ran + 1}; lower training.learning_rate"
        blank = np.zeros(0, dtype=np.float32)
        return FoldResult(plan.fold, DIVERGED, history, 0, 0, 0.5, rows, blank, labels[:0], {}, detail=detail)
    selected = best_score_epoch if plan.choice.chooses else ran
    at, tuning_EV = slice(selected - 1, selected), inner_EV if plan.choice.inner else None
    (decided,) = decide_epochs(pairs, plan, logits_EV[at], None if tuning_EV is None else tuning_EV[at])
    own = decided.thresholds.own
    metrics = fold_metrics(decided.probability_V, labels, decided.threshold_V)
    peeking = [_peeked(pairs, plan, z_V) for z_V in logits_EV[:ran]] if tuning_EV is not None else []
    metrics["peeked_f1"] = max(peeking, default=max(history["val_f1"]))
    return FoldResult(
        fold=plan.fold,
        status=FINISHED,
        history=history,
        selected_epoch=selected,
        best_epoch=int(np.argmax(history["val_f1"])) + 1,
        threshold=decided.thresholds.shared,
        rows=plan.evaluation,
        probabilities=decided.probability_V,
        labels=labels,
        metrics=metrics,
        detail=REFUSED if decided.refused else plan.detail,
        thresholds={pairs.criterion_ids[criterion]: threshold for criterion, threshold in own.items()},
        scaling=decided.scaling,
        row_thresholds=decided.threshold_V if own else None,
    )


def _peeked(pairs: PairTable, plan: FoldPlan, logits_V: NDArray[np.floating]) -> float:
    """F1 on the evaluation pairs at thresholds that are chosen on them."""
    likely_V, label_V = sigmoid(logits_V), pairs.label_N[plan.evaluation]
    criterion_V = pairs.criterion_N[plan.evaluation]
    if plan.threshold == "shared":
        return best_threshold(likely_V, label_V)[1]
    chosen_V = likely_V >= THRESHOLD_RULES[plan.threshold](likely_V, label_V, criterion_V).of(criterion_V)
    return float(f1_of(Counts.of_rows(chosen_V, label_V)))


def positive_weight(pairs: PairTable, rows: Rows) -> float:
    """Negatives a positive among `rows`: the weight of a positive with `loss: weighted`."""
    positives = int(pairs.label_N[rows].sum())
    return (len(rows) - positives) / max(positives, 1)
