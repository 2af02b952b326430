"""What a sweep and a trial look like in MLflow, and how that is shortened to MLflow's limits. Does not import mlflow.

A projection is made from journals and can be made again at any time; equal journals give equal projections, to the
timestamps, so that delivering one twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SWEEP_ID = "gemma_nli.sweep_id"
STANDALONE = "standalone"  # the sweep id of a run of `gemma-nli train`
TRIAL_KEY = "gemma_nli.trial_key"
KIND = "gemma_nli.kind"  # sweep | trial | single (an ExperimentTracker's)
STATE = "gemma_nli.state"
TASK_TAG = {"task": "nli_binary_classification"}
FOLD_FINGERPRINT = "gemma_nli.fold_fingerprint"
DELIVERED = "gemma_nli.delivered"  # digest of the projection that this run shows in full
CREATED = "gemma_nli.created_ms"
PARENT = "mlflow.parentRunId"
ERROR = "gemma_nli.error"
INFINITE = "gemma_nli.infinite_metrics"
CUT = "... [cut]"
CHANGED = "changed/"  # a param that was logged before with another value: MLflow keeps the first, this tag has the last

STATUS = {"queued": "SCHEDULED", "running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
STATUS |= {"killed": "KILLED", "stopped": "KILLED"}

MAX_BATCH, MAX_PARAMS, MAX_TAGS, MAX_METRICS = 1000, 100, 100, 1000
MAX_PARAM, MAX_TAG, MAX_KEY, MAX_BATCH_BYTES = 6000, 8000, 250, 900_000
MAX_DIGEST = 36


@dataclass(frozen=True)
class MetricPoint:
    name: str
    value: float
    step: int = 0
    timestamp_ms: int = 0  # from the journal, never from the clock: (name, step) must be the same each time


@dataclass(frozen=True)
class DatasetFacts:
    """The corpus as MLflow's dataset input shows it; no text of it."""

    name: str
    fingerprint: str  # all of it; MLflow's digest has 36 characters of it
    source: str  # the folder
    profile: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return self.fingerprint[:MAX_DIGEST]


@dataclass(frozen=True)
class TrialProjection:
    """One trial as its MLflow run shows it."""

    run_name: str
    key: str
    state: str  # running | finished | failed | pruned
    params: Mapping[str, Any] = field(default_factory=dict)  # dotted settings and dataset/*
    metrics: Sequence[MetricPoint] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path | bytes] = field(default_factory=dict)  # relative name -> file or content
    started_ms: int = 0
    ended_ms: int | None = None
    error: str | None = None  # traceback or message of a failed trial
    dataset: DatasetFacts | None = None
    named: bool = False  # whether run_name is the user's choice, which an existing run takes over

    def digest(self) -> str:
        """Digest of everything the run should show; files count by size and modification time."""
        content = {
            "params": {k: param_text(v) for k, v in self.params.items()},
            "metrics": sorted((p.name, p.step, repr(p.value), p.timestamp_ms) for p in self.metrics),
            "tags": dict(self.tags),
            "artifacts": {name: artifact_signature(source) for name, source in self.artifacts.items()},
            "rest": [self.run_name, self.state, self.started_ms, self.ended_ms, self.error],
            **({"dataset": [self.dataset.name, self.dataset.digest]} if self.dataset else {}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class SweepProjection:
    """One sweep as its MLflow run, the parent of its trials' runs, shows it."""

    sweep_id: str
    name: str
    question: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path | bytes] = field(default_factory=dict)
    dataset: DatasetFacts | None = None


def artifact_signature(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    stat = source.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def safe_name(name: str) -> str:
    """The name MLflow takes for a metric, param or tag: `acc@5` is `acc_5`, `a//../b` is `a/_/b`.

    Names that MLflow takes stay as they are. A name over 250 characters keeps its beginning and a hash of all of it.
    """
    legal = re.sub(r"[^/\w.\- :]", "_", name)
    parts = [part if part.strip(".") else "_" * len(part) for part in legal.split("/") if part]
    legal = "/".join(parts) or "_"
    assert posixpath.normpath(legal) == legal
    return legal if len(legal) <= MAX_KEY else f"{legal[: MAX_KEY - 9]}-{_short(name)}"


def _short(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """Each name's MLflow name; a changed one that collides with another gets a hash, so that no two numbers are
    mixed.
    """
    unique = list(dict.fromkeys(names))
    owners: dict[str, str] = {name: name for name in unique if safe_name(name) == name}
    for name in sorted(unique):
        if safe_name(name) != name:
            legal = safe_name(name)
            owners[name] = legal if legal not in owners.values() else f"{legal[: MAX_KEY - 9]}-{_short(name)}"
    return {name: owners[name] for name in unique}


def metric_rows(points: Iterable[MetricPoint]) -> tuple[list[MetricPoint], str]:
    """Points as MLflow should store them, one per (name, step), and the value of the tag that names infinite ones.

    NaN stays NaN: MLflow stores it, sorts it last and never lets a filter match it. MLflow would store an infinity as
    1.797e308, a number that was never measured, so it becomes NaN and is named in the tag.
    """
    points = list(points)
    names = safe_names(point.name for point in points)
    rows: dict[tuple[str, int], MetricPoint] = {}
    infinite: list[str] = []
    for point in points:
        value = float(point.value)
        if math.isinf(value):
            infinite.append(f"{names[point.name]} step {point.step}: {value}")
            value = math.nan
        row = MetricPoint(names[point.name], value, int(point.step), max(int(point.timestamp_ms), 0))
        rows[row.name, row.step] = row
    return list(rows.values()), cut("; ".join(infinite), MAX_TAG)


def param_text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, (list, tuple, dict)) else str(value)


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT


@dataclass
class Batch:
    """One log_batch call."""

    params: dict[str, str] = field(default_factory=dict)
    metrics: list[MetricPoint] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.params) + len(self.metrics) + len(self.tags)


def batches(params: Mapping[str, str], metrics: Sequence[MetricPoint], tags: Mapping[str, str]) -> Iterator[Batch]:
    """Batches within MLflow's limits, one for a typical trial; tags come last, so a `delivered` tag never comes too
    early.
    """
    batch, room = Batch(), MAX_BATCH_BYTES
    items: list[tuple[str, str | MetricPoint, str, int]] = [
        *(("params", k, v, len((k + v).encode())) for k, v in params.items()),
        *(("metrics", point, "", len(point.name.encode())) for point in metrics),
        *(("tags", k, v, len((k + v).encode())) for k, v in tags.items()),
    ]
    for kind, key, value, size in items:
        size += 120  # JSON around a row
        full = len(batch.params) == MAX_PARAMS if kind == "params" else len(batch.tags) == MAX_TAGS and kind == "tags"
        if len(batch) == MAX_BATCH or full or size > room:
            yield batch
            batch, room = Batch(), MAX_BATCH_BYTES
        room -= size
        if isinstance(key, MetricPoint):
            batch.metrics.append(key)
        elif kind == "params":
            batch.params[key] = value
        else:
            batch.tags[key] = value
    if len(batch):
        yield batch
