"""From a trial's journal to what MLflow should show: names, steps and times come from the record alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors

from gemma_nli.base.files import write_whole
from gemma_nli.base.masking import mask_address
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable, pair_texts
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.tracking.write.projection import DatasetFacts, MetricPoint, TrialProjection
from gemma_nli.training.learned import learning_warning
from gemma_nli.trial import TrialRecord

OUT_OF_FOLD = "out_of_fold.safetensors"
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
        "gemma_nli.attempts": str(record.attempts),
        "gemma_nli.retries": str(max(0, record.attempts - 1)),
    }
    computed_by = record.tags.get("gemma_nli.computed_by")
    if sweep_id is not None and computed_by not in (None, sweep_id):
        facts["reused_from"] = str(computed_by)
    not_learned = learning_warning(record.folds.values(), record.config)
    if not_learned:
        facts["gemma_nli.not_learned"] = not_learned
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


def artifacts_of(record: TrialRecord, corpus: Corpus, pairs: PairTable, shared: Path) -> dict[str, Path | bytes]:
    """The guide's artifacts; those of folds once they exist, the aggregates once the trial has ended."""
    artifacts: dict[str, Path | bytes] = {
        "config.yaml": config_yaml(record.config).encode(),
        "nli_pairs.csv": _pairs_file(record.config, corpus, pairs, shared),
        "nli_cv_folds_metadata.json": _folds_file(pairs, shared),
    }
    for number, fold in sorted(record.folds.items()):
        facts = {
            "fold": number,
            "status": fold.status,
            "selected_epoch": fold.selected_epoch,
            "best_epoch": fold.best_epoch,
        }
        facts |= {"threshold": fold.threshold, "metrics": fold.metrics, "history": fold.history}
        artifacts[f"fold_{number}_history.json"] = to_json(facts)
        if number in record.weights:
            artifacts[f"fold_{number}_best.safetensors"] = record.weights[number]
        elif fold.state:
            artifacts[f"fold_{number}_best.safetensors"] = save_tensors(
                {k: v.contiguous() for k, v in fold.state.items()}
            )
    if record.state == "finished":
        artifacts[OUT_OF_FOLD] = out_of_fold(record, pairs)
    if record.state in ("finished", "pruned"):
        results: dict[str, Any] = {
            "key": record.key,
            "state": record.state,
            "aggregates": record.aggregates,
            "criteria": record.criteria,
        }
        results |= {
            "eval_negative_ratio": record.config.data.eval_negative_ratio,
            "fold_fingerprint": record.fold_fingerprint,
        }
        artifacts["aggregate_results.json"] = to_json(results)
    return artifacts


def out_of_fold(record: TrialRecord, pairs: PairTable) -> bytes:
    """Each evaluation pair's probability and decision by a model that has not seen its post, as safetensors.

    rows, posts (int64: of the PairTable whose fingerprint the run is tagged with; a copy counts as the post it copies),
    folds, labels, decisions (int8), probabilities (float32): (N,) in the order of rows. Two runs of one fingerprint can
    be compared pair by pair.
    """
    folds = [fold for _, fold in sorted(record.folds.items())]
    rows = np.concatenate([fold.rows for fold in folds])
    probabilities = np.concatenate([fold.probabilities for fold in folds])
    decisions = np.concatenate([fold.probabilities.astype(np.float64) >= fold.threshold for fold in folds])
    order = np.argsort(rows, kind="stable")
    columns = {
        "rows": rows,
        "posts": pairs.group_N[rows].astype(np.int64),
        "folds": np.concatenate([np.full(len(fold.rows), fold.fold, dtype=np.int64) for fold in folds]),
        "labels": np.concatenate([fold.labels for fold in folds]).astype(np.int8),
        "decisions": decisions.astype(np.int8),
        "probabilities": probabilities.astype(np.float32),
    }
    data: bytes = save_arrays({name: np.ascontiguousarray(values[order]) for name, values in columns.items()})
    return data


def config_yaml(config: RunConfig) -> str:
    """The whole configuration, credentials masked, as `gemma-nli train --config` reads it."""
    tree = config.model_dump(mode="json")
    for name in ("tracking_uri", "artifact_location"):
        value = tree["mlflow"][name]
        if value is not None:
            masked = mask_address(value)
            tree["mlflow"][name] = value if masked == value else None
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def to_json(value: Any) -> bytes:
    """Strict JSON: a NaN becomes null."""
    return json.dumps(_plain(value), indent=1, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pairs_file(config: RunConfig, corpus: Corpus, pairs: PairTable, shared: Path) -> Path:
    """All pairs that a trial with this ratio uses: ids, label, source, fold; texts only if `data.log_text` allows
    it.
    """
    ratio, with_text = config.data.negative_ratio, config.data.log_text
    path = shared / f"nli_pairs_{ratio:g}{'_text' if with_text else ''}.csv"
    if not path.exists():
        rows = pairs.rows_used(ratio)
        frame = pairs.frame(rows)
        if with_text:
            frame["premise"], frame["hypothesis"] = pair_texts(corpus, pairs, rows)
        shared.mkdir(parents=True, exist_ok=True)
        write_whole(path, frame.to_csv(index=False).encode())
    return path


def _folds_file(pairs: PairTable, shared: Path) -> Path:
    path = shared / "nli_cv_folds_metadata.json"
    if not path.exists():
        shared.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_json(pairs.folds_metadata()))
    return path


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
        "nli_pairs.csv": _pairs_file(spec.base, corpus, pairs, shared),
        "nli_cv_folds_metadata.json": _folds_file(pairs, shared),
    }
