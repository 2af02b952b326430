"""Which trial is best, and a sweep's trials as rows: asked of MLflow, so that it works on any machine that reaches
it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import TrackingError, did_you_mean
from gemma_nli.base.masking import MASK
from gemma_nli.base.metrics import MEAN_F1, aggregate_of
from gemma_nli.config import MlflowConfig, RunConfig
from gemma_nli.tracking.read.recorded import config_of
from gemma_nli.tracking.store.mlflow_store import Store, connect_existing, deleted_experiment, resolve_store, talking
from gemma_nli.tracking.write.projection import FOLD_FINGERPRINT, KIND, STATE, SWEEP_ID, TRIAL_KEY, safe_name
from gemma_nli.tracking.write.runs import search, tags_filter

FINISHED = "attributes.status = 'FINISHED'"
NAMED = 5
SAMPLE = 50  # runs read to find out which metrics exist


@dataclass(frozen=True)
class BestTrial:
    """The best finished trial of an experiment, and everything needed to run it again."""

    run_id: str
    run_name: str
    experiment: str
    metric: str
    value: float
    metrics: dict[str, float]  # the last value of each
    params: dict[str, str]
    tags: dict[str, str]
    config: RunConfig
    config_path: Path
    command: str  # a shell line that runs it again
    notes: tuple[str, ...] = ()  # what a reader of the number should know
    honest: dict[str, Any] | None = None  # value, low, high, candidates: corrected for the choice of the best


@dataclass(frozen=True)
class TrialRow:
    """One trial of a sweep for a leaderboard."""

    run_id: str
    run_name: str
    key: str
    state: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str] = field(default_factory=dict)
    started_ms: int | None = None
    ended_ms: int | None = None


@dataclass(frozen=True)
class _Place:
    """An experiment of a store, being asked."""

    store: Store
    client: MlflowClient
    name: str
    experiment_id: str

    def runs(self, query: str, order_by: Sequence[str] = (), page: int = 200) -> Iterator[Run]:
        return search(self.client, self.experiment_id, query, order_by, page)

    def first(self, query: str, order_by: Sequence[str] = ("attributes.start_time DESC",)) -> Run | None:
        return next(self.runs(query, order_by, page=1), None)


def best_trial(
    experiment: str,
    metric: str = MEAN_F1,
    mode: Literal["max", "min"] = "max",
    tracking_uri: str | None = None,
    sweep_id: str | None = None,
    fold_fingerprint: str | None = None,
) -> BestTrial:
    """The finished trial with the best `metric`; NaN is never best, and ties go to the earliest.

    Numbers measured on different folds cannot be ranked. Without `fold_fingerprint` the folds of the newest sweep (of
    `sweep_id`, if given) are taken; `notes` say so if the experiment has others.

    Raises:
        TrackingError: no such experiment, sweep or metric (with the nearest name), or no trial has finished.
    """
    if mode not in ("max", "min"):
        raise TrackingError(f"mode: must be max or min, got {mode!r}.")
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, f"ask for the best trial of experiment '{experiment}'"):
        place = _open(store, experiment)
        scope = {KIND: "trial"} | ({SWEEP_ID: sweep_id} if sweep_id else {})
        newest = _newest_finished(place, scope, sweep_id)
        chosen = fold_fingerprint or newest.data.tags.get(FOLD_FINGERPRINT)
        notes = []
        query = f"{tags_filter(scope)} and {FINISHED}"
        if chosen:
            others = place.first(f"{query} and tags.`{FOLD_FINGERPRINT}` != '{safe_name(chosen)}'")
            if others is not None:
                which = "the chosen" if fold_fingerprint else "the newest sweep's"
                notes.append(
                    f"the experiment has trials measured on different folds; only those on {which} folds "
                    f"({chosen[:12]}) are ranked."
                )
            query += f" and tags.`{FOLD_FINGERPRINT}` = '{safe_name(chosen)}'"
        name = safe_name(metric)
        way = "DESC" if mode == "max" else "ASC"
        best = place.first(query, (f"metrics.`{name}` {way}", "attributes.start_time ASC"))
        if best is None:
            raise TrackingError(f"experiment '{experiment}': no finished trial on folds {str(chosen)[:12]}.")
        if name not in best.data.metrics:
            raise _unknown_metric(place, query, metric)
        value = best.data.metrics[name]
        if math.isnan(value):
            raise TrackingError(f"experiment '{experiment}': metric '{metric}' is NaN in every finished trial.")
        if name != MEAN_F1:
            lacking = [run.info.run_name for run in place.runs(query) if name not in run.data.metrics]
            if lacking:
                named = ", ".join(lacking[:NAMED]) + (", ..." if len(lacking) > NAMED else "")
                notes.append(f"{len(lacking)} finished trials lack {metric} and are not ranked: {named}.")
        config, path = config_of(place.client, best)
        honest = _honest(place.client, best, name)
    return BestTrial(
        run_id=best.info.run_id,
        run_name=best.info.run_name,
        experiment=experiment,
        metric=name,
        value=value,
        metrics=dict(best.data.metrics),
        params=dict(best.data.params),
        tags=dict(best.data.tags),
        config=config,
        config_path=path,
        command=_command(config, path),
        notes=tuple(notes),
        honest=honest,
    )


def _honest(client: MlflowClient, best: Run, metric: str) -> dict[str, Any] | None:
    """The best trial's honest score from its sweep's report; None without one, or for another metric or trial."""
    parent = best.data.tags.get("mlflow.parentRunId")
    tags = client.get_run(parent).data.tags if parent else {}
    if tags.get("gemma_nli.honest_trial_key") != best.data.tags.get(TRIAL_KEY):
        return None
    if metric != safe_name(aggregate_of(tags["gemma_nli.honest_metric"])):
        return None
    numbers = {name: float(tags[f"gemma_nli.honest_{name}"]) for name in ("value", "low", "high")}
    return {**numbers, "candidates": int(tags["gemma_nli.honest_candidates"])}


def list_trials(
    sweep_id: str, experiment: str, tracking_uri: str | None = None, config: MlflowConfig | None = None
) -> list[TrialRow]:
    """Every trial run of a sweep, whatever its state, in order of start.

    Raises:
        TrackingError: no such experiment, or no such sweep in it (with the nearest id).
    """
    store = resolve_store(config or MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, f"list the trials of sweep '{sweep_id}'"):
        place = _open(store, experiment)
        scope = {KIND: "trial", SWEEP_ID: sweep_id}
        rows = [_row(run) for run in place.runs(tags_filter(scope), ("attributes.start_time ASC",))]
        if not rows and place.first(tags_filter({KIND: "sweep", SWEEP_ID: sweep_id})) is None:
            raise _unknown_sweep(place, sweep_id)
    return rows


def _row(run: Run) -> TrialRow:
    tags = dict(run.data.tags)
    return TrialRow(
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        key=tags.get(TRIAL_KEY, ""),
        state=tags.get(STATE, run.info.status.lower()),
        status=run.info.status,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=tags,
        started_ms=run.info.start_time,
        ended_ms=run.info.end_time,
    )


def _open(store: Store, experiment: str) -> _Place:
    client = connect_existing(store)
    found = client.get_experiment_by_name(experiment)
    if found is not None and found.lifecycle_stage != "active":
        raise deleted_experiment(store, found)
    if found is None:
        names = [other.name for other in client.search_experiments() if other.name != "Default"]
        hint = did_you_mean(experiment, names) or "; it has no experiments yet."
        raise TrackingError(f"{store.shown}: no experiment '{experiment}'{hint}")
    return _Place(store, client, experiment, str(found.experiment_id))


def _newest_finished(place: _Place, scope: dict[str, str], sweep_id: str | None) -> Run:
    """A finished trial of the newest sweep that has one; else the newest finished trial."""
    trials = f"{tags_filter(scope)} and {FINISHED}"
    newest = place.first(trials)
    if newest is None:
        if sweep_id and place.first(tags_filter({KIND: "sweep", SWEEP_ID: sweep_id})) is None:
            raise _unknown_sweep(place, sweep_id)
        raise TrackingError(f"experiment '{place.name}': no trial has finished yet.")
    wanted = {KIND: "sweep"} | ({SWEEP_ID: sweep_id} if sweep_id else {})
    for sweep in place.runs(tags_filter(wanted), ("attributes.start_time DESC",), page=20):
        own = scope | {SWEEP_ID: sweep.data.tags.get(SWEEP_ID, "")}
        if FOLD_FINGERPRINT in sweep.data.tags:  # its confirming trials are on other folds, and not candidates
            own[FOLD_FINGERPRINT] = sweep.data.tags[FOLD_FINGERPRINT]
        trial = place.first(f"{tags_filter(own)} and {FINISHED}")
        if trial is not None:
            return trial
    return newest


def _unknown_sweep(place: _Place, sweep_id: str) -> TrackingError:
    ids = {run.data.tags.get(SWEEP_ID, "") for run in place.runs(tags_filter({KIND: "sweep"}))}
    hint = did_you_mean(sweep_id, ids) or "; it has no sweep yet."
    return TrackingError(f"experiment '{place.name}': no sweep '{sweep_id}'{hint}")


def _unknown_metric(place: _Place, query: str, metric: str) -> TrackingError:
    seen: set[str] = set()
    for count, run in enumerate(place.runs(query, page=SAMPLE)):
        seen.update(run.data.metrics)
        if count + 1 == SAMPLE:
            break
    hint = did_you_mean(metric, seen) or "; no finished trial has a metric."
    return TrackingError(f"experiment '{place.name}': no finished trial has metric '{metric}'{hint}")


def _command(config: RunConfig, path: Path) -> str:
    """The shell line; a tracking URI with masked credentials is left to the environment."""
    masked = MASK in (config.mlflow.tracking_uri or "")
    return command_line("gemma-nli", "train", "--config", path, *(["mlflow.tracking_uri=null"] if masked else []))


def finished_runs(
    experiment: str, config: MlflowConfig, fold_fingerprint: str
) -> Iterator[tuple[dict[str, str], dict[str, float]]]:
    """(params, metrics) of an experiment's finished trials measured on these folds.

    Raises:
        TrackingError: no such experiment (with the nearest name), or the store is unreachable.
    """
    store = resolve_store(config)
    with talking(store, f"read experiment '{experiment}'"):
        place = _open(store, experiment)
        wanted = tags_filter({KIND: "trial", FOLD_FINGERPRINT: fold_fingerprint})
        for run in place.runs(f"{wanted} and {FINISHED}"):
            yield dict(run.data.params), dict(run.data.metrics)
