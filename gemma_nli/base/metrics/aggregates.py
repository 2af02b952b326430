"""The names of a trial's figures over its folds: those of every metric of the table, and the few that stand alone."""

from __future__ import annotations

from gemma_nli.base.metrics.macro import MACRO, MacroMetric, measured_by
from gemma_nli.base.metrics.table import AT_HALF, HEADLINES, METRICS, Metric

PREFIX = "cv_aggregate/"


def aggregate_name(way: str, metric: str) -> str:
    """`cv_aggregate/mean_f1` of `mean` and `f1`."""
    return f"{PREFIX}{way}_{metric}"


MEAN_F1 = aggregate_name("mean", "f1")
"""What decides where nothing else is named, and its spread."""
MEAN_AUC = aggregate_name("mean", "auc")
MACRO_AUC = aggregate_name(MACRO, "auc")
"""Mean over criteria of the AUC within one (`macro.py`): what knowing the criterion alone does not raise."""
MACRO_CRITERIA = f"{PREFIX}macro_criteria"
"""How many criteria have enough support to be in those means."""
BEST_F1 = f"{PREFIX}mean_best_f1"
"""Each fold at the epoch that is best on the fold itself, at that epoch's threshold: the highest of its `val_f1`."""
BEST_F1_AT_HALF = f"{BEST_F1}{AT_HALF}"
"""The guide's number: the same at threshold 0.5."""
OPTIMISM_F1 = f"{PREFIX}optimism_f1"
"""What choosing epoch and threshold on the folds themselves would add: the mean of `peeked_f1`, minus MEAN_F1."""
TRAINED_PARAMETERS = "model/trained_parameters"


def deciding_names() -> tuple[str, ...]:
    """What a sweep can be decided by, and what can be an objective."""
    over_folds = (aggregate_name(way, name) for way in HEADLINES for name in METRICS)
    return (*over_folds, BEST_F1, BEST_F1_AT_HALF, TRAINED_PARAMETERS)


def headline_names() -> tuple[str, ...]:
    """What a terminal shows of a trial unasked."""
    of_metrics = (aggregate_name(way, name) for name, each in METRICS.items() for way in each.headline)
    return (*of_metrics, OPTIMISM_F1)


def aggregate_of(measure: str) -> str:
    """Where a trial's score stands: `cv_aggregate/mean_f1` of `f1`, `cv_aggregate/macro_f1` of `macro_f1`."""
    return PREFIX + (measure if measure.startswith(f"{MACRO}_") else f"mean_{measure}")


def metric_of(aggregate: str) -> Metric | MacroMetric | None:
    """The metric whose mean over folds or over criteria this is, so that it can be measured again on resampled posts;
    else None.
    """
    for way in ("mean", MACRO):
        name = aggregate.removeprefix(aggregate_name(way, ""))
        if name != aggregate and name in METRICS:
            return METRICS[name] if way == "mean" else measured_by(f"{MACRO}_{name}")
    return None
