"""The names of a trial's figures over its folds: those of every metric of the table, and the few that stand alone."""

from __future__ import annotations

from gemma_nli.base.metrics.table import METRICS, WAYS, Metric

PREFIX = "cv_aggregate/"


def aggregate_name(way: str, metric: str) -> str:
    """`cv_aggregate/mean_f1` of `mean` and `f1`."""
    return f"{PREFIX}{way}_{metric}"


MEAN_F1, STD_F1 = (aggregate_name(way, "f1") for way in ("mean", "std"))
"""What decides where nothing else is named, and its spread."""
MEAN_AUC = aggregate_name("mean", "auc")
MACRO_F1 = f"{PREFIX}macro_f1"
"""Mean over criteria of their F1, from the decisions of all folds at once."""
BEST_F1 = f"{PREFIX}mean_best_f1"
"""The guide's: each fold at the epoch that is best on the fold itself, at threshold 0.5."""
OPTIMISM_F1 = f"{PREFIX}optimism_f1"
TRAINED_PARAMETERS = "model/trained_parameters"


def deciding_names() -> tuple[str, ...]:
    """What a sweep can be decided by, and what can be an objective."""
    over_folds = (aggregate_name(way, name) for way in WAYS for name in METRICS)
    return (*over_folds, MACRO_F1, BEST_F1, TRAINED_PARAMETERS)


def headline_names() -> tuple[str, ...]:
    """What a terminal shows of a trial unasked."""
    of_metrics = (aggregate_name(way, name) for name, each in METRICS.items() for way in each.headline)
    return (*of_metrics, MACRO_F1, OPTIMISM_F1)


def metric_of(aggregate: str) -> Metric | None:
    """The metric whose mean over folds this is, so that it can be measured again on resampled posts; else None."""
    start = aggregate_name("mean", "")
    return METRICS.get(aggregate.removeprefix(start)) if aggregate.startswith(start) else None
