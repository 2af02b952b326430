"""Metrics: a file each. Another one is another file, and every room knows it."""

from gemma_nli.base.metrics.aggregates import (
    BEST_F1,
    BEST_F1_AT_HALF,
    MACRO_AUC,
    MACRO_CRITERIA,
    MEAN_AUC,
    MEAN_F1,
    OPTIMISM_F1,
    PREFIX,
    TRAINED_PARAMETERS,
    aggregate_name,
    aggregate_of,
    deciding_names,
    headline_names,
    metric_of,
)
from gemma_nli.base.metrics.macro import MacroMetric, measured_by
from gemma_nli.base.metrics.table import (
    AT_HALF,
    METRICS,
    WAYS,
    CountedMetric,
    Counts,
    Metric,
    RankedMetric,
    metric,
    scores_of,
)
from gemma_nli.base.part_registry import import_parts

import_parts(__name__)

__all__ = [
    "AT_HALF",
    "BEST_F1",
    "BEST_F1_AT_HALF",
    "MACRO_AUC",
    "MACRO_CRITERIA",
    "MEAN_AUC",
    "MEAN_F1",
    "METRICS",
    "OPTIMISM_F1",
    "PREFIX",
    "TRAINED_PARAMETERS",
    "WAYS",
    "CountedMetric",
    "Counts",
    "MacroMetric",
    "Metric",
    "RankedMetric",
    "aggregate_name",
    "aggregate_of",
    "deciding_names",
    "headline_names",
    "measured_by",
    "metric",
    "metric_of",
    "scores_of",
]
