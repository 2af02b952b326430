"""Seconds a report of 40 metrics: what Ray's MLflowLoggerCallback spends on it, and what our tracker does.

A trial that reports 20 times, 40 metrics each, from its start to its end, to a SQLite store and to an `mlflow server`
on loopback. Stock: `log_trial_start`, `log_trial_result` for each report, `log_trial_end`, as Tune calls them in the
driver's loop. Ours: `MlflowTracker.sync_trial` of the ended trial's projection, as the outbox calls it in its thread:
a trial on cached vectors is told once, with all its epochs. Seconds are the whole trial's over its reports; the median
of several trials. A second row has ours told after each report too, as with a trial that is shown while it goes on.
Afterwards all runs must hold the same values at the same steps.
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
from gemma_nli.tracking.write.projection import MetricPoint, SweepProjection, TrialProjection
from gemma_nli.tracking.write.tracker import MlflowTracker

METRICS = 40


def run(place: Workplace) -> Outcome:
    reports, trials = place.size(20, 4), place.size(5, 2)
    marks, figures = [], {}
    for name, opened in (("SQLite", _sqlite(place)), ("HTTP", _server(place))):
        with opened as uri:
            stock = _stock(uri, reports, trials)
            ours = _ours(uri, reports, trials)
            live = _ours_live(uri, reports)
            _same_numbers(uri, reports, {"stock": trials, "ours": trials, "live": 1})
        each = [statistics.median(seconds) for seconds in (stock, ours, live)]
        marks.append(Mark(f"times faster a report of {METRICS} metrics, {name}", each[0] / each[1], at_least=20))
        marks.append(Mark("the same, told after each report", each[0] / each[2]))
        marks.append(Mark("stock: milliseconds a report", 1000 * each[0], unit="ms"))
        marks.append(Mark("ours: milliseconds a report", 1000 * each[1], unit="ms"))
        figures[name] = {"stock_seconds": stock, "ours_seconds": ours, "live_seconds": live}
    return Outcome(marks, figures)


class _Trial:
    """All that the stock callback asks of Tune's Trial."""

    config: ClassVar[dict[str, float]] = {"learning_rate": 1e-3}


def _values(step: int) -> dict[str, float]:
    return {f"fold_{number % 5 + 1}/metric_{number}": step + number / 100 for number in range(METRICS)}


def _stock(uri: str, reports: int, trials: int) -> list[float]:
    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock")
    callback.setup()
    seconds = []
    for _ in range(trials):
        trial: Any = _Trial()
        began = time.perf_counter()
        callback.log_trial_start(trial)
        for step in range(1, reports + 1):
            callback.log_trial_result(step, trial, {**_values(step), "training_iteration": step})
        callback.log_trial_end(trial)
        seconds.append((time.perf_counter() - began) / reports)
    return seconds


def _ours(uri: str, reports: int, trials: int) -> list[float]:
    tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "ours")
    sweep_run = tracker.sweep_run(SweepProjection("s" * 16, "bench"))
    seconds = []
    for number in range(trials):
        began_ms = int(time.time() * 1000)
        points = [point for step in range(1, reports + 1) for point in _points(step, began_ms)]
        began = time.perf_counter()
        tracker.sync_trial(sweep_run, _projection(f"{number:032x}", "finished", points, began_ms))
        seconds.append((time.perf_counter() - began) / reports)
    tracker.close()
    return seconds


def _ours_live(uri: str, reports: int) -> list[float]:
    """Seconds of each report but the first, which opens the run."""
    tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "live")
    sweep_run = tracker.sweep_run(SweepProjection("t" * 16, "bench"))
    began_ms = int(time.time() * 1000)
    points: list[MetricPoint] = []
    seconds = []
    for step in range(1, reports + 1):
        points += _points(step, began_ms)
        began = time.perf_counter()
        tracker.sync_trial(sweep_run, _projection("0" * 32, "running", list(points), began_ms))
        seconds.append(time.perf_counter() - began)
    tracker.close()
    return seconds[1:]


def _points(step: int, began_ms: int) -> list[MetricPoint]:
    return [MetricPoint(name, value, step, began_ms + step) for name, value in _values(step).items()]


def _projection(key: str, state: str, points: list[MetricPoint], began_ms: int) -> TrialProjection:
    ended_ms = None if state == "running" else began_ms + 1000
    return TrialProjection("ours", key, state, {"learning_rate": 1e-3}, points, started_ms=began_ms, ended_ms=ended_ms)


def _same_numbers(uri: str, reports: int, trials: dict[str, int]) -> None:
    """Raises AssertionError where the runs do not hold the same values at the same steps."""
    client = MlflowClient(tracking_uri=uri)
    held = []
    for experiment, count in trials.items():
        found = client.get_experiment_by_name(experiment)
        runs = [run for run in client.search_runs([found.experiment_id]) if _first() in run.data.metrics]
        assert len(runs) == count, f"{experiment}: {count} runs are expected to hold the metrics, {len(runs)} do"
        for run in runs:
            history = {name: client.get_metric_history(run.info.run_id, name) for name in _values(1)}
            held.append({name: sorted((m.step, m.value) for m in points) for name, points in history.items()})
    assert all(numbers == held[0] for numbers in held), "all runs have to hold the same numbers"
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
