"""Runs of the time when `val_f1` was at threshold 0.5, read under today's names (`base/metrics/earlier_names.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mlflow.entities import Run

from gemma_nli.base.errors import TrackingError, did_you_mean
from gemma_nli.base.metrics.earlier_names import EARLIER, logged_as, todays_metrics


def logged_name(run: Run, metric: str) -> str:
    """The name under which the run has what is called `metric` today.

    Raises:
        TrackingError: it has no such metric, with the nearest name, or what its own metric of that name is called.
    """
    known = todays_metrics(run.data.metrics)
    if metric in known:
        return logged_as(metric, run.data.metrics)
    hint = did_you_mean(metric, known) or "; it has none yet."
    if metric in run.data.metrics:
        hint = f": {EARLIER}."
    raise TrackingError(f"run {run.info.run_id}: no metric '{metric}'{hint}")


def notes_on_earlier_runs(runs: Iterable[Run]) -> Iterator[str]:
    """A sentence that names those of these runs whose metrics have other names today."""
    earlier = [r.info.run_id for r in runs if not r.data.metrics.keys() <= todays_metrics(r.data.metrics).keys()]
    if earlier:
        yield f"run {', '.join(earlier)}: {EARLIER}; shown under today's names."
