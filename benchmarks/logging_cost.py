"""Seconds a report of 40 metrics: what Ray's MLflowLoggerCallback spends on it, and what our tracker does.

A trial that reports 20 times, 40 metrics each, to a SQLite store and to an `mlflow server` on loopback. Stock:
`log_trial_result`, as Tune calls it in the driver's loop. Ours: `MlflowTracker.sync_trial` of the trial's projection
as it stands after each report, as the outbox calls it in its thread: one call a report, nothing saved up for later
ones. The first report of each side, which opens the run, is not counted. Afterwards both runs must hold the same
values at the same steps.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from mlflow.tracking import MlflowClient
from ray.air.integrations.mlflow import MLflowLoggerCallback

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import ROOT, Workplace
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.projection import MetricPoint, SweepProjection, TrialProjection
from gemma_nli.tracking.tracker import MlflowTracker

METRICS = 40
KEY = "0" * 32


def run(place: Workplace) -> Outcome:
    reports = place.size(20, 4)
    marks, figures = [], {}
    for name, opened in (("SQLite", _sqlite(place)), ("HTTP", _server(place))):
        with opened as uri:
            stock = _stock(uri, reports)
            ours = _ours(uri, reports)
            _same_numbers(uri, reports)
        ratio = statistics.median(stock) / statistics.median(ours)
        marks.append(Mark(f"times faster a report of {METRICS} metrics, {name}", ratio, at_least=20))
        figures[name] = {"stock_seconds": stock, "ours_seconds": ours}
        marks.append(Mark("stock: milliseconds a report", 1000 * statistics.median(stock), unit="ms"))
        marks.append(Mark("ours: milliseconds a report", 1000 * statistics.median(ours), unit="ms"))
    return Outcome(marks, figures)


class _Trial:
    """All that the stock callback asks of Tune's Trial."""

    config: ClassVar[dict[str, float]] = {"learning_rate": 1e-3}


def _values(step: int) -> dict[str, float]:
    return {f"fold_{number % 5 + 1}/metric_{number}": step + number / 100 for number in range(METRICS)}


def _stock(uri: str, reports: int) -> list[float]:
    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock")
    callback.setup()
    trial: Any = _Trial()
    callback.log_trial_start(trial)
    seconds = []
    for step in range(1, reports + 1):
        began = time.perf_counter()
        callback.log_trial_result(step, trial, {**_values(step), "training_iteration": step})
        seconds.append(time.perf_counter() - began)
    callback.log_trial_end(trial)
    return seconds[1:]


def _ours(uri: str, reports: int) -> list[float]:
    tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "ours")
    sweep_run = tracker.sweep_run(SweepProjection("s" * 16, "bench"))
    began_ms = int(time.time() * 1000)
    points: list[MetricPoint] = []
    seconds = []
    for step in range(1, reports + 1):
        points += [MetricPoint(name, value, step, began_ms + step) for name, value in _values(step).items()]
        began = time.perf_counter()
        trial = TrialProjection("ours", KEY, "running", {"learning_rate": 1e-3}, list(points), started_ms=began_ms)
        tracker.sync_trial(sweep_run, trial)
        seconds.append(time.perf_counter() - began)
    tracker.close()
    return seconds[1:]


def _same_numbers(uri: str, reports: int) -> None:
    """Raises AssertionError where the two runs do not hold the same values at the same steps."""
    client = MlflowClient(tracking_uri=uri)
    held = []
    for experiment in ("stock", "ours"):
        found = client.get_experiment_by_name(experiment)
        runs = [run for run in client.search_runs([found.experiment_id]) if _first() in run.data.metrics]
        assert len(runs) == 1, f"{experiment}: one run is expected to hold the metrics, {len(runs)} do"
        history = {name: client.get_metric_history(runs[0].info.run_id, name) for name in _values(1)}
        held.append({name: sorted((m.step, m.value) for m in points) for name, points in history.items()})
    assert held[0] == held[1], "both runs have to hold the same numbers"
    assert all(len(points) == reports for points in held[0].values())


def _first() -> str:
    return next(iter(_values(1)))


@contextmanager
def _sqlite(place: Workplace) -> Iterator[str]:
    yield f"sqlite:///{place.work / 'logging.db'}"


@contextmanager
def _server(place: Workplace) -> Iterator[str]:
    """An MLflow server of its own on loopback, ended by its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = place.work / "server"
    folder.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen[bytes], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{url}: the MLflow server did not answer")
