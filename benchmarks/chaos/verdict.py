"""What a disturbed sweep's MLflow store holds against an undisturbed one's, read from the database itself."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

TOLERANCE = 1e-5  # a resumed sweep may encode in other batches, which rounds otherwise
Points = dict[tuple[str, int], list[float]]


@dataclass
class Run:
    run_id: str
    key: str
    status: str
    parent: str | None
    points: Points = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


@dataclass
class Snapshot:
    """The live runs of one experiment, and the model versions of its registry."""

    runs: list[Run]
    sweeps: list[tuple[str, str]]  # run id and status
    versions: int


@dataclass
class Verdict:
    """Counts over one sweep or several; all zero is the promise."""

    lost: int = 0  # trials without a run, or values without their (metric, step)
    duplicated: int = 0  # further runs of a trial, further values of a (metric, step), further sweep runs or versions
    running: int = 0  # runs left RUNNING or SCHEDULED
    wrong: int = 0  # values that differ, and runs that ended as they should not
    details: list[str] = field(default_factory=list)

    def add(self, what: str, count: int, detail: str) -> None:
        if count:
            setattr(self, what, getattr(self, what) + count)
            self.details.append(f"{what} {count}: {detail}")

    def __iadd__(self, other: Verdict) -> Verdict:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.running or self.wrong)


def snapshot(database: Path, key_tag: str = "gemma_nli.trial_key", kind: str | None = "trial") -> Snapshot:
    """Read-only, without a client: what is on disk is what counts."""
    store = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        tags: dict[str, dict[str, str]] = {}
        for run, name, value in store.execute("select run_uuid, key, value from tags"):
            tags.setdefault(run, {})[name] = value
        runs: dict[str, Run] = {}
        sweeps = []
        for run, status in store.execute("select run_uuid, status from runs where lifecycle_stage = 'active'"):
            mine = tags.get(run, {})
            if kind is not None and mine.get("gemma_nli.kind") == "sweep":
                sweeps.append((run, status))
            elif key_tag in mine:
                runs[run] = Run(run, mine[key_tag], status, mine.get("mlflow.parentRunId"))
        for run, name, step, value, is_nan in store.execute("select run_uuid, key, step, value, is_nan from metrics"):
            if run in runs:
                runs[run].points.setdefault((name, step), []).append(math.nan if is_nan else value)
        for run, name, value in store.execute("select run_uuid, key, value from params"):
            if run in runs:
                runs[run].params[name] = value
        versions = store.execute(
            "select count(*) from model_versions where current_stage != 'Deleted_Internal'"
        ).fetchone()[0]
    finally:
        store.close()
    return Snapshot(list(runs.values()), sweeps, versions)


def judge(expected: Mapping[str, Points], found: Snapshot, sweeps: int = 1, versions: int = 1) -> Verdict:
    """Every trial once, each of its numbers once and equal, nothing left open, one sweep run, one model version."""
    verdict = Verdict()
    keys = Counter(run.key for run in found.runs)
    verdict.add("lost", sum(key not in keys for key in expected), "trials without a run")
    verdict.add("duplicated", sum(keys.values()) - len(keys), "runs of a trial that has one")
    verdict.add("wrong", sum(key not in expected for key in keys), "runs of no trial of the sweep")
    verdict.add("running", sum(run.status in ("RUNNING", "SCHEDULED") for run in found.runs), "trial runs left open")
    verdict.add("wrong", sum(run.status in ("FAILED", "KILLED") for run in found.runs), "trials not FINISHED")
    verdict.add("running", sum(status == "RUNNING" for _, status in found.sweeps), "sweep runs left open")
    verdict.add("lost", max(0, sweeps - len(found.sweeps)), "no sweep run")
    verdict.add("duplicated", max(0, len(found.sweeps) - sweeps), "sweep runs")
    verdict.add("lost", max(0, versions - found.versions), "no model version")
    verdict.add("duplicated", max(0, found.versions - versions), "model versions")
    parents = {run_id for run_id, _ in found.sweeps}
    verdict.add("wrong", sum(run.parent not in parents for run in found.runs), "runs without their sweep")
    for run in found.runs:
        if run.key in expected:
            _judge_points(expected[run.key], run, verdict)
    return verdict


def _judge_points(expected: Points, run: Run, verdict: Verdict) -> None:
    """Readings of the machine (`system/...`) are no result of the trial: they have to be there once, at most."""
    expected = {point: values for point, values in expected.items() if not point[0].startswith("system/")}
    missing = [point for point in expected if point not in run.points]
    verdict.add("lost", len(missing), f"values of {run.key[:6]}, as {missing[:3]}")
    extra = [point for point in run.points if point not in expected and not point[0].startswith("system/")]
    verdict.add("wrong", len(extra), f"values of {run.key[:6]} that nobody measured, as {extra[:3]}")
    verdict.add("duplicated", sum(len(values) - 1 for values in run.points.values()), f"values of {run.key[:6]}")
    differ = [
        point for point, (value, *_) in expected.items() if any(not _same(v, value) for v in run.points.get(point, []))
    ]
    verdict.add("wrong", len(differ), f"values of {run.key[:6]}, as {differ[:3]}")


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) <= TOLERANCE * max(1.0, abs(b))


def expectation(found: Snapshot) -> dict[str, Points]:
    """What an undisturbed sweep recorded, by trial."""
    return {run.key: run.points for run in found.runs}
