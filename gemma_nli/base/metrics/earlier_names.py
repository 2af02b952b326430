"""Names that meant something else in earlier journals and MLflow runs, read with the meaning that they had.

Until curves were measured at the thresholds that folds are decided by, every `val_NAME` of a metric of decisions was at
threshold 0.5, and with it the best and the last epoch's. Such a record has `val_f1` and no `val_f1_at_half`. What it
calls `val_f1` is `val_f1_at_half` today; where no threshold was chosen (no `inner_f1`) it is both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from gemma_nli.base.metrics.aggregates import BEST_F1, BEST_F1_AT_HALF
from gemma_nli.base.metrics.table import AT_HALF, METRICS, CountedMetric

_Value = TypeVar("_Value")
CURVE, CURVE_AT_HALF, INNER_CURVE = "val_f1", f"val_f1{AT_HALF}", "inner_f1"
_OF_FOLD = re.compile(r"(cv_summary/)?fold_(\d+)[/_](.+)")
EARLIER = (
    "an earlier version measured the curves at threshold 0.5: what it logged as fold_K/val_f1 is called "
    "fold_K/val_f1_at_half today, and its cv_summary/fold_K_best_f1 is fold_K_best_f1_at_half"
)


def is_earlier(curves: Collection[str]) -> bool:
    """Whether a fold's curves, by name, are of the time when `val_f1` was at threshold 0.5."""
    return CURVE in curves and CURVE_AT_HALF not in curves


def todays_curves(curves: Mapping[str, _Value]) -> dict[str, _Value]:
    """A fold's curves under today's names."""
    if not is_earlier(curves):
        return dict(curves)
    chose = INNER_CURVE in curves
    return {today: values for name, values in curves.items() for today in _names_today(name, chose)}


def todays_aggregates(aggregates: Mapping[str, float], chose_threshold: bool) -> dict[str, float]:
    """`cv_aggregate/*` of a trial under today's names; those of today as they are.

    Args:
        chose_threshold: whether any of its folds did.
    """
    found = dict(aggregates)
    if BEST_F1 in found and BEST_F1_AT_HALF not in found:
        found[BEST_F1_AT_HALF] = found.pop(BEST_F1) if chose_threshold else found[BEST_F1]
    return found


def todays_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """All metrics of an MLflow run under today's names; those of a run of today as they are.

    What was at the epoch with the best F1 at 0.5 and has no name today (`fold_K_best_auc`) is left out.
    """
    of_fold = {name: match for name in metrics if (match := _OF_FOLD.fullmatch(name))}
    curves: dict[str, set[str]] = {}
    for match in of_fold.values():
        if match[1] is None:
            curves.setdefault(match[2], set()).add(match[3])
    earlier = {fold for fold, names in curves.items() if is_earlier(names)}
    if not earlier:
        return dict(metrics)
    chose = {fold for fold in earlier if INNER_CURVE in curves[fold]}
    found = todays_aggregates({n: value for n, value in metrics.items() if n not in of_fold}, bool(chose))
    for name, match in of_fold.items():
        fold, what = match[2], match[3]
        for today in _names_today(what, fold in chose) if fold in earlier else (what,):
            found[name[: match.start(3)] + today] = metrics[name]
    return found


def logged_as(name: str, metrics: Collection[str]) -> str:
    """The name under which an MLflow run with these metrics has the metric that is called `name` today."""
    return name if name in metrics else name.removesuffix(AT_HALF)


def _names_today(name: str, chose_threshold: bool) -> tuple[str, ...]:
    """What an earlier fold's `val_f1`, `best_f1`, `last_recall` ... is called today: one name, two or none."""
    if name in (CURVE, "best_f1"):
        return (f"{name}{AT_HALF}",) if chose_threshold else (name, f"{name}{AT_HALF}")
    if not chose_threshold:
        return (name,)
    kind, _, metric = name.partition("_")
    at_half = isinstance(METRICS.get(metric), CountedMetric)
    if kind == "best" or (kind == "last" and at_half):
        return ()
    return (f"{name}{AT_HALF}",) if kind == "val" and at_half else (name,)
