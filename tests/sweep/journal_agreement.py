"""What a sweep says of itself in every place, read from each of them, and held against its journals."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from typing import Any

from mlflow.tracking import MlflowClient

from gemma_nli.console.command_results import show_result
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.records.sweep_result import SweepResult
from gemma_nli.trial import read_trials

STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
ENDED_AS = {0: "FINISHED", 1: "FAILED", 130: "KILLED"}


def interrupted(spec: SweepSpec, after: int = 1) -> SweepResult:
    """The sweep with a Ctrl-C once so many trials have finished."""

    def press(progress: ProgressState) -> None:
        pressed: list[bool] = []

        def at_an_end() -> None:
            if progress.count("finished") >= after and not pressed:
                pressed.append(True)
                os.kill(os.getpid(), signal.SIGINT)

        progress.observers.append(at_an_end)

    return run_sweep(spec, watch=press)


def check_agreement(spec: SweepSpec, result: SweepResult, capsys: Any) -> None:
    """The journals, the result, `--json`, the kept result, the terminal, the report and MLflow say the same."""
    reported = json.loads(json.dumps(result.to_json(), allow_nan=False))
    ready = prepare(spec)
    folder = SweepFolder(ready.folder)
    ready.take_up(folder.cells())
    journals = read_trials(ready.storage, ready.trials)
    states = Counter(record.state for record in journals.values())
    counts = {state: states[state] for state in STATUS}
    assert reported["trials"] == counts
    assert folder.result()["trials"] == counts
    assert reported["cells"] == sum(counts.values()) + reported["waiting"]
    assert reported["exit_status"] == result.exit_status
    if ready.cells:
        assert reported["cells"] == len(ready.cells)
    _check_best(spec, result, journals)
    _check_terminal(spec, result, capsys)
    _check_mlflow(spec, result, counts)
    if result.report is not None:
        assert result.report["trials"] == counts
        assert json.loads((folder.path / "report.json").read_text())["trials"] == counts
        assert result.report["winner"] == reported["best"]["key"]


def _check_best(spec: SweepSpec, result: SweepResult, journals: dict[str, Any]) -> None:
    finished = {key: record.aggregates[spec.metric] for key, record in journals.items() if record.state == "finished"}
    if not finished:
        assert result.best is None
        return
    assert result.best is not None
    assert result.best.objective == max(finished.values())
    assert [trial.key for trial in result.ranked] == sorted(finished, key=lambda key: (-finished[key], key))
    for member in result.pareto:
        values = list(member["values"])
        assert all(value in spec.objectives[place].metric for place, value in enumerate(values))


def _check_terminal(spec: SweepSpec, result: SweepResult, capsys: Any) -> None:
    capsys.readouterr()
    show_result(result, spec)
    shown = " ".join(capsys.readouterr().out.split())
    for state, count in result.trials.items():
        assert (f"{count} {state}" in shown) == (count > 0)
    assert (f"{result.waiting} of {result.cells} waiting" in shown) == (result.waiting > 0)
    if result.best is not None:
        assert re.search(rf"\b1 .*{result.best.objective:.3f}", shown)
    for failure in result.failures:
        assert " ".join(failure["error"].split())[:60] in shown


def _check_mlflow(spec: SweepSpec, result: SweepResult, counts: dict[str, int]) -> None:
    client = MlflowClient(spec.base.mlflow.tracking_uri)
    parent = client.get_run(result.sweep_run_id)
    assert parent.info.status == ENDED_AS[result.exit_status]
    metrics = parent.data.metrics
    assert {state: metrics[f"sweep/{state}"] for state in STATUS} == counts
    assert metrics["sweep/waiting"] == result.waiting
    runs = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{result.sweep_run_id}'", max_results=1000
    )
    own = [
        r for r in runs if r.data.tags["gemma_nli.fold_fingerprint"] == parent.data.tags["gemma_nli.fold_fingerprint"]
    ]
    assert len({run.data.tags["gemma_nli.trial_key"] for run in runs}) == len(runs)
    by_state = Counter(run.data.tags["gemma_nli.state"] for run in own)
    assert {state: by_state[state] for state in STATUS} == counts
    for run in own:
        wanted = STATUS.get(run.data.tags["gemma_nli.state"], "KILLED")
        assert run.info.status == wanted
    confirming = Counter(run.data.tags["gemma_nli.state"] for run in runs if run not in own)
    if result.confirming is not None:
        assert {state: result.confirming[state] for state in STATUS} == {state: confirming[state] for state in STATUS}
    if result.best is not None:
        assert parent.data.tags["gemma_nli.best_trial_key"] == result.best.key
        assert metrics["sweep/best"] == result.best.objective
        best = next(run for run in own if run.data.tags["gemma_nli.trial_key"] == result.best.key)
        assert best.info.run_id == result.best_run_id
    if result.registered:
        version = client.get_model_version(result.registered["name"], str(result.registered["version"]))
        assert result.best is not None
        assert version.tags["gemma_nli.trial_key"] == result.best.key
