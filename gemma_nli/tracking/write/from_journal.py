"""From a trial's journal to what MLflow should show: names, steps and times come from the record alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma_nli.base.metrics.earlier_names import EARLIER
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.tracking.write.artifacts import artifacts_of
from gemma_nli.tracking.write.artifacts.nli_cv_folds_metadata import FOLDS, folds_file
from gemma_nli.tracking.write.artifacts.nli_pairs import PAIRS, pairs_file
from gemma_nli.tracking.write.projection import DatasetFacts, MetricPoint, TrialProjection
from gemma_nli.training.fallbacks import fallback_note
from gemma_nli.training.learned import learning_warning
from gemma_nli.trial import TrialRecord

_HIDDEN = ("mlflow.tracking_uri", "mlflow.artifact_location")


def project_trial(
    record: TrialRecord,
    corpus: Corpus,
    pairs: PairTable,
    shared: Path,
    sweep_id: str | None,
    tags: Mapping[str, str] | None = None,
) -> TrialProjection:
    """The MLflow run of a trial.

    Args:
        shared: a folder for files that many trials have in common (pairs by ratio, folds).
        sweep_id: the sweep that shows the trial, or None; one that another sweep computed is tagged `reused_from`.
        tags: the user's own.
    """
    facts = {
        **record.tags,
        "gemma_nli.fold_fingerprint": record.fold_fingerprint,
        "gemma_nli.encoder_fingerprint": record.encoder_fingerprint,
        "gemma_nli.data_fingerprint": corpus.fingerprint,
        "gemma_nli.eval_negative_ratio": str(record.config.data.eval_negative_ratio),
        "gemma_nli.negatives": record.config.data.negatives,
        "gemma_nli.measured": record.config.data.measured_at,
        "gemma_nli.semantics": str(record.semantics),
        "gemma_nli.attempts": str(record.attempts),
        "gemma_nli.retries": str(max(0, record.attempts - 1)),
    }
    computed_by = record.tags.get("gemma_nli.computed_by")
    if sweep_id is not None and computed_by not in (None, sweep_id):
        facts["reused_from"] = str(computed_by)
    not_learned = learning_warning(record.folds.values(), record.config)
    if not_learned:
        facts["gemma_nli.not_learned"] = not_learned
    fallback = fallback_note(fold for _, fold in sorted(record.folds.items()))
    if fallback:
        facts["gemma_nli.fell_back"] = fallback
    if record.has_earlier_curves:
        facts["gemma_nli.earlier_names"] = EARLIER
    if record.reason:
        facts["gemma_nli.reason"] = record.reason
    return TrialProjection(
        run_name=run_name(record, alone=sweep_id is None),
        named=record.config.output.run_name is not None,
        key=record.key,
        state=record.state,
        params=params_of(record.config, pairs),
        metrics=metric_points(record),
        tags={**facts, **user_tags(tags or {})},
        artifacts=artifacts_of(record, corpus, pairs, shared),
        started_ms=record.started_ms,
        ended_ms=record.ended_ms,
        error=record.traceback or record.error,
        dataset=dataset_of(record.config, corpus, pairs),
    )


def run_name(record: TrialRecord, alone: bool = False) -> str:
    """Readable at a glance in a list of runs: `mean lr=0.001 neg=2 3f0c`, or as output.run_name says."""
    config = record.config
    if config.output.run_name is not None:
        return config.output.run_name if alone else f"{config.output.run_name} {record.key[:4]}"
    parts = [
        config.model.pooling_strategy,
        f"lr={config.training.learning_rate:g}",
        f"neg={config.data.negative_ratio:g}",
    ]
    return " ".join([*parts, record.key[:4]])


def params_of(config: RunConfig, pairs: PairTable) -> dict[str, Any]:
    params: dict[str, Any] = {k: v for k, v in config.flat().items() if v is not None and k not in _HIDDEN}
    return {**params, **pairs.summary(config.data.negative_ratio)}


def metric_points(record: TrialRecord) -> list[MetricPoint]:
    """Fold metrics at step = epoch, then the summaries at step 0; an epoch's time is its fold's end plus the epoch."""
    points = []
    for number, fold in sorted(record.folds.items()):
        ended = record.fold_ms[number]
        for name, values in fold.history.items():
            points += [MetricPoint(f"fold_{number}/{name}", v, e, ended + e) for e, v in enumerate(values, start=1)]
    at = record.ended_ms or max(record.fold_ms.values(), default=record.started_ms)
    summaries = (
        record.metrics()
        if record.state != "running"
        else {k: v for k, v in record.metrics().items() if "cv_summary" in k}
    )
    for name, value in summaries.items():
        fold_end = _fold_end(name, record)
        points.append(MetricPoint(name, value, 0, fold_end if fold_end is not None else at))
    for criterion, scores in record.criteria.items():
        points += [MetricPoint(f"criterion/{criterion}_{name}", v, 0, at) for name, v in scores.items()]
    for step, (taken_at, sample) in enumerate(record.system):
        points += [MetricPoint(f"system/{name}", value, step, taken_at) for name, value in sample.items()]
    return points


def dataset_of(config: RunConfig, corpus: Corpus, pairs: PairTable) -> DatasetFacts:
    """The corpus by its folder's name; counts of its pairs are its profile."""
    profile = {"num_posts": len(corpus.posts), **pairs.summary(config.data.negative_ratio)}
    if pairs.copies[0]:
        profile["num_copied_posts"] = pairs.copies[0]
    folder = Path(config.data.data_dir)
    return DatasetFacts(folder.name or folder.absolute().name, corpus.fingerprint, str(folder), profile)


def user_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """`note` is what MLflow shows as the run's description; every other name is a tag as it is."""
    return {"mlflow.note.content" if name == "note" else name: str(value) for name, value in tags.items()}


def _fold_end(metric: str, record: TrialRecord) -> int | None:
    """The time of a fold's summary, so that it stays the same when the trial continues."""
    if not metric.startswith("cv_summary/fold_"):
        return None
    return record.fold_ms[int(metric.removeprefix("cv_summary/fold_").split("_")[0])]


def params_of_sweep(spec: SweepSpec, pairs: PairTable) -> dict[str, Any]:
    """The sweep's own settings and its base, credentials left out, for the parent run."""
    facts: dict[str, Any] = {"sweep.name": spec.name, "sweep.metric": spec.metric, "sweep.mode": spec.mode}
    facts |= {
        f"search.{k}": v
        for k, v in spec.search.model_dump(mode="json").items()
        if k in ("algorithm", "sampler", "seed")
    }
    facts["space"] = json.dumps(spec.space.tree(), sort_keys=True)
    return {**facts, **params_of(spec.base, pairs)}


def artifacts_of_sweep(spec: SweepSpec, corpus: Corpus, pairs: PairTable, shared: Path) -> dict[str, Path | bytes]:
    """The spec as run (space included), the pairs and the folds."""
    return {
        "sweep.yaml": spec.to_yaml().encode(),
        PAIRS: pairs_file(spec.base, corpus, pairs, shared),
        FOLDS: folds_file(pairs, shared),
    }
