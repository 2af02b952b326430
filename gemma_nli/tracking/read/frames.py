"""MLflow's contents as pandas tables: experiments, runs, models, runs side by side. Public functions of gemma_nli."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError, did_you_mean
from gemma_nli.base.metrics import MEAN_AUC, MEAN_F1
from gemma_nli.base.metrics.earlier_names import todays_metrics
from gemma_nli.base.what_was_measured import measured_at_by_tags
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.read.earlier_runs import logged_name, notes_on_earlier_runs
from gemma_nli.tracking.read.run_filters import filter_of
from gemma_nli.tracking.read.run_ids import get_run
from gemma_nli.tracking.registry.registered_models import registered_versions
from gemma_nli.tracking.store.mlflow_store import Store, connect_existing, deleted_experiment, resolve_store, talking
from gemma_nli.tracking.write.projection import KIND, STANDALONE, STATE, SWEEP_ID

PAGE = 200
COUNTED = 1000  # runs beyond the limit of a list that are counted


def list_experiments(tracking_uri: str | None = None) -> pd.DataFrame:
    """One row per experiment: name, runs (active ones), best_f1 (the highest mean_f1 of its runs), last start,
    artifacts.

    Raises:
        TrackingError: the store cannot be reached.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, "list experiments"):
        client = connect_existing(store)
        rows = []
        for experiment in pages(client.search_experiments, view_type=ViewType.ACTIVE_ONLY):
            own = list(pages(client.search_runs, experiment_ids=[experiment.experiment_id]))
            scored = [run for run in own if not math.isnan(run.data.metrics.get(MEAN_F1, math.nan))]
            best = max(scored, key=lambda run: run.data.metrics[MEAN_F1], default=None)
            rows.append(
                {
                    "experiment": experiment.name,
                    "runs": len(own),
                    "best_f1": best.data.metrics[MEAN_F1] if best is not None else math.nan,
                    "measured_at": measured_at_by_tags(best.data.tags) if best is not None else "",
                    "last_start": _when(max((run.info.start_time or 0 for run in own), default=0)),
                    "artifacts": experiment.artifact_location,
                    "id": experiment.experiment_id,
                }
            )
    columns = ["experiment", "runs", "best_f1", "measured_at", "last_start", "artifacts", "id"]
    return pd.DataFrame(rows, columns=columns).sort_values("last_start", ascending=False, ignore_index=True)


def list_runs(
    experiment: str | None = None,
    where: str | None = None,
    since: str | None = None,
    tracking_uri: str | None = None,
    kind: str | None = "trial",
    limit: int | None = None,
) -> pd.DataFrame:
    """One row per run, best F1 first; runs without one come last, newest first.

    Args:
        experiment: its name; None for all.
        where: MLflow's filter, e.g. "params.model.pooling_strategy = 'mean' and metrics.cv_aggregate/mean_f1 > 0.6";
            names with dots and slashes need no backticks here.
        since: `2026-11-01`, `2026-11-01 12:00` (UTC), or an age: `90m`, `12h`, `7d`, `2w`.
        kind: `trial` (of a sweep or alone, and an ExperimentTracker's), `sweep`, or None for both and for runs of other
            programs.
        limit: most rows to show to give.
    Returns:
        run_id, name, experiment, status, state, by, f1, auc, measured_at, start, then every `params.*`, `metrics.*` and
        `tags.*`.
        `by` says what made the run: `sweep`, `train` (alone), `tracker`, or nothing for other programs'. In `attrs` is
        `matching`: how many runs match, counted up to COUNTED beyond the limit, and None beyond that.
    Raises:
        TrackingError: no such experiment, a filter that MLflow does not accept, or the store cannot be reached.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    query = filter_of(kind, where, since)
    with talking(store, f"search runs{f' where {where}' if where else ''}"):
        client = connect_existing(store)
        names = experiments_named(client, store, experiment)
        order = [f"metrics.`{MEAN_F1}` DESC", "attributes.start_time DESC"]
        found, matching = [], 0
        if names:
            search = pages(client.search_runs, experiment_ids=list(names), filter_string=query, order_by=order)
            for run in search:
                matching += 1
                if limit is None or matching <= limit:
                    found.append(_run_row(run, names))
                elif matching > limit + COUNTED:
                    break
    first = ["run_id", "name", "experiment", "status", "state", "by", "f1", "auc", "measured_at", "start"]
    table = pd.DataFrame(found)
    table = table.reindex(columns=[*first, *(c for c in table.columns if c not in first)])
    table.attrs["matching"] = matching if limit is None or matching <= limit + COUNTED else None
    return table


def list_models(tracking_uri: str | None = None, name: str | None = None) -> pd.DataFrame:
    """One row per registered version: name, version, aliases, stage, metric, value, measured_at, sweep, torch, run_id,
    created.

    Raises:
        TrackingError: no model of that name (with the nearest), or the store cannot be reached.
    """
    rows = registered_versions(tracking_uri, name)
    if name is not None and not rows:
        known = {row.name for row in registered_versions(tracking_uri)}
        raise TrackingError(
            f"no registered model '{name}'{did_you_mean(name, known) or '; nothing is registered yet.'}"
        )
    columns = [
        "name",
        "version",
        "aliases",
        "stage",
        "metric",
        "value",
        "measured_at",
        "sweep",
        "torch",
        "run_id",
        "created",
    ]
    facts = [{**asdict(row), "created": _when(row.created_ms), "aliases": ", ".join(row.aliases)} for row in rows]
    return pd.DataFrame(facts, columns=columns)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, one column per run. `folds` has a row per (metric, fold), e.g. (selected_f1, 3)."""

    runs: pd.DataFrame
    params: pd.DataFrame  # only those that differ
    metrics: pd.DataFrame
    folds: pd.DataFrame
    notes: tuple[str, ...]


def compare_runs(run_ids: Sequence[str], tracking_uri: str | None = None) -> Comparison:
    """Two or more runs: the params that differ, the aggregate metrics, and fold by fold.

    `notes` says where figures cannot be compared: other folds, another corpus or evaluation ratio, an unfinished run.

    Raises:
        TrackingError: fewer than two runs, an unknown run, or the store cannot be reached.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, "compare runs"):
        client = connect_existing(store)
        found = list({run.info.run_id: run for run in (get_run(client, store, each) for each in run_ids)}.values())
    if len(found) < 2:
        raise TrackingError(f"compare: name at least two runs; list them with: {store.line('runs')}")
    ids = [run.info.run_id for run in found]
    about = [
        [
            run.info.run_name,
            run.info.status,
            run.data.tags.get(STATE, ""),
            _when(run.info.start_time),
            measured_at_by_tags(run.data.tags),
        ]
        for run in found
    ]
    table = pd.DataFrame(about, index=ids, columns=["name", "status", "state", "start", "measured_at"]).T
    params = pd.DataFrame({run.info.run_id: run.data.params for run in found}, columns=ids).sort_index()
    params = params[params.apply(lambda row: len(set(map(str, row))) > 1, axis=1)] if len(params) else params
    measured = {run.info.run_id: todays_metrics(run.data.metrics) for run in found}
    metrics = pd.DataFrame(measured, columns=ids).sort_index()
    chosen = metrics[metrics.index.str.startswith(("cv_aggregate/", "criterion/", "model/", "test_", "best_val"))]
    return Comparison(table, params, chosen, _folds(metrics), tuple(_notes(found)))


def metric_history(run_id: str, metric: str, tracking_uri: str | None = None) -> pd.DataFrame:
    """step, value and time of every point of a metric, in order of step.

    A run of an earlier version is asked by today's names too (`base/metrics/earlier_names.py`).

    Raises:
        TrackingError: an unknown run or metric (with the nearest name), or the store cannot be reached.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, f"read metric '{metric}'"):
        client = connect_existing(store)
        run = get_run(client, store, run_id)
        logged = logged_name(run, metric)
        points = sorted(
            client.get_metric_history(run.info.run_id, logged), key=lambda point: (point.step, point.timestamp)
        )
    rows = [(point.step, point.value, _when(point.timestamp)) for point in points]
    return pd.DataFrame(rows, columns=["step", "value", "time"])


def pages(call: Any, **words: Any) -> Iterator[Any]:
    token = None
    while True:
        page = call(max_results=PAGE, page_token=token, **words)
        yield from page
        token = page.token
        if not token:
            return


def experiments_named(client: MlflowClient, store: Store, wanted: str | None) -> dict[str, str]:
    """Experiment id to name."""
    there = {e.experiment_id: e.name for e in pages(client.search_experiments, view_type=ViewType.ACTIVE_ONLY)}
    if wanted is None:
        return there
    chosen = {number: name for number, name in there.items() if name == wanted}
    if not chosen:
        deleted = client.get_experiment_by_name(wanted)
        if deleted is not None and deleted.lifecycle_stage != "active":
            raise deleted_experiment(store, deleted)
        hint = did_you_mean(wanted, [n for n in there.values() if n != "Default"]) or "; it has no experiments yet."
        raise TrackingError(f"{store.shown}: no experiment '{wanted}'{hint}")
    return chosen


def _run_row(run: Run, names: dict[str, str]) -> dict[str, Any]:
    metrics, tags = todays_metrics(run.data.metrics), run.data.tags
    row: dict[str, Any] = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "experiment": names[run.info.experiment_id],
        "status": run.info.status,
        "state": tags.get(STATE, run.info.status.lower()),
        "by": _maker(tags),
        "f1": metrics.get(MEAN_F1, metrics.get("test_f1", math.nan)),
        "auc": metrics.get(MEAN_AUC, metrics.get("test_auc", math.nan)),
        "measured_at": measured_at_by_tags(tags),
        "start": _when(run.info.start_time),
    }
    row |= {f"params.{k}": v for k, v in run.data.params.items()}
    row |= {f"metrics.{k}": v for k, v in metrics.items()}
    return row | {f"tags.{k}": v for k, v in tags.items() if not k.startswith("mlflow.")}


def _maker(tags: Mapping[str, str]) -> str:
    """What made a run: a single `train` can have the key and the numbers of a sweep's trial, and is not a second
    result.
    """
    if tags.get(KIND) == "trial":
        return "train" if tags.get(SWEEP_ID) == STANDALONE else "sweep"
    return {"single": "tracker", "sweep": "sweep"}.get(tags.get(KIND, ""), "")


def _folds(metrics: pd.DataFrame) -> pd.DataFrame:
    """`cv_summary/fold_K_NAME` as rows (NAME, K)."""
    parts = metrics.index.str.extract(r"^cv_summary/fold_(?P<fold>\d+)_(?P<metric>.+)$")
    kept = parts["fold"].notna().to_numpy()
    folds = metrics[kept].copy()
    keys = [parts["metric"][kept], parts["fold"][kept].astype(int)]
    folds.index = pd.MultiIndex.from_arrays(keys, names=["metric", "fold"])
    return folds.sort_index()


def _notes(found: list[Run]) -> Iterator[str]:
    named = {
        "fold_fingerprint": "evaluation pairs",
        "data_fingerprint": "corpora",
        "eval_negative_ratio": "evaluation ratios",
        "negatives": "negatives (data.negatives)",
    }
    for tag, name in named.items():
        before = "pooled" if tag == "negatives" else ""
        values = {run.data.tags.get(f"gemma_nli.{tag}", before) for run in found}
        if len(values) > 1:
            yield f"their {name} differ: the figures cannot be compared."
    yield from notes_on_earlier_runs(found)
    for run in found:
        if MEAN_F1 not in run.data.metrics and "test_f1" not in run.data.metrics:
            state = run.data.tags.get(STATE, run.info.status.lower())
            yield f"run {run.info.run_id} has no aggregates: it is {state}; they appear when the last fold has ended."


def _when(milliseconds: int | None) -> pd.Timestamp:
    return pd.to_datetime(milliseconds, unit="ms", utc=True) if milliseconds else pd.NaT  # type: ignore[return-value]
