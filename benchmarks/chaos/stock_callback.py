"""The same kills for stock Ray Tune with its MLflowLoggerCallback and Tuner.restore: what a user has without us.

Twelve trials of four reported steps with a checkpoint each, resumed as Ray's guide says. As a script it is the driver.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.chaos.damage import damage
from benchmarks.chaos.stage import ROOT, Server
from benchmarks.chaos.verdict import Points, Verdict, judge, snapshot

STEPS, CELLS = 4, 12


def expected() -> dict[str, Points]:
    cells = [str(cell) for cell in range(CELLS)]
    return {cell: {("score", step): [int(cell) + step / 10] for step in range(1, STEPS + 1)} for cell in cells}


def drive(folder: Path, uri: str) -> None:
    """Start or restore the experiment; ends when all its trials have."""
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    storage = folder / "tune"
    if tune.Tuner.can_restore(str(storage / "stock")):
        tuner = tune.Tuner.restore(
            str(storage / "stock"), trainable=trial, resume_unfinished=True, restart_errored=True
        )
    else:
        callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock", tags={"kind": "stock"})
        tuner = tune.Tuner(
            trial,
            param_space={"cell": tune.grid_search(list(range(CELLS)))},
            run_config=tune.RunConfig(
                name="stock",
                storage_path=str(storage),
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=3),
                verbose=0,
            ),
        )
    tuner.fit()


def trial(config: dict[str, int]) -> None:
    import json
    import tempfile

    from ray import tune

    first, before = 1, tune.get_checkpoint()
    if before is not None:
        with before.as_directory() as folder:
            first = json.loads((Path(folder) / "step.json").read_text())["step"] + 1
    for step in range(first, STEPS + 1):
        time.sleep(0.3)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step.json").write_text(json.dumps({"step": step}))
            facts = {"score": config["cell"] + step / 10, "training_iteration": step}
            tune.report(facts, checkpoint=tune.Checkpoint.from_directory(folder))


def run_stock(
    folder: Path, rng: random.Random, drivers: int, workers: int, outages: int, files: int
) -> list[tuple[str, int, Verdict]]:
    """(what was done, how often, losses) for each kind of harm, each on an experiment of its own."""
    rows = []
    if drivers:
        rows.append(("driver killed", drivers, _with_kills(folder / "drivers", rng, drivers, _kill_driver)))
    if workers:
        rows.append(("worker killed", workers, _with_kills(folder / "workers", rng, workers, _kill_worker)))
    if outages:
        rows.append(("server away", outages, _with_outage(folder / "server", rng)))
    if files:
        rows.append(("file damaged", files, _with_damage(folder / "files", rng, files)))
    return rows


def _with_kills(folder: Path, rng: random.Random, kills: int, kill) -> Verdict:  # type: ignore[no-untyped-def]
    folder.mkdir(parents=True)
    done = 0
    for _ in range(4 * kills):
        process = _start(folder, f"sqlite:///{folder / 'mlflow.db'}")
        if done < kills:
            done += kill(process, rng)
        if process.wait(180) == 0:
            break
    return _judge(folder / "mlflow.db")


def _kill_driver(process: subprocess.Popen[bytes], rng: random.Random) -> int:
    with suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(8.0, 20.0))
        return 0
    process.kill()
    return 1


def _kill_worker(process: subprocess.Popen[bytes], rng: random.Random) -> int:
    while process.poll() is None:
        with suppress(psutil.Error):
            family = psutil.Process(process.pid).children(recursive=True)
            trials = [child for child in family if "ImplicitFunc" in child.name() or "trial" in child.name()]
            if trials:
                time.sleep(rng.uniform(0.2, 1.0))
                rng.choice(trials).send_signal(signal.SIGKILL)
                return 1
        time.sleep(0.1)
    return 0


def _with_outage(folder: Path, rng: random.Random) -> Verdict:
    server = Server(folder)
    server.start()
    try:
        process = _start(folder, server.uri)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(folder.rglob("step.json")):
            time.sleep(0.1)
        server.kill()
        time.sleep(rng.uniform(1.0, 3.0))
        server.start()
        status = process.wait(300)
        if status:  # the outage ended the sweep; its user restores it
            _start(folder, server.uri).wait(300)
    finally:
        server.kill()
    return _judge(folder / "mlflow.db")


def _with_damage(folder: Path, rng: random.Random, files: int) -> Verdict:
    folder.mkdir(parents=True)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    _start(folder, uri).wait(180)
    states = sorted((folder / "tune" / "stock").glob("*state*.json")) + sorted(folder.rglob("tuner.pkl"))
    for number in range(files):
        damage(states[number % len(states)], rng)
    _start(folder, uri).wait(180)
    return _judge(folder / "mlflow.db")


def _judge(database: Path) -> Verdict:
    found = snapshot(database, key_tag="trial_name", kind=None)
    for run in found.runs:  # a trial's cell is its identity; Ray's own fields are no metrics of ours
        run.key = run.params.get("cell", run.key)
        run.points = {point: values for point, values in run.points.items() if point[0] == "score"}
        run.parent = None
    found.sweeps = [("none", "FINISHED")]
    for run in found.runs:
        run.parent = "none"
    return judge(expected(), found, versions=0)


def _start(folder: Path, uri: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    env |= {"RAY_TRAIN_V2_ENABLED": "0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    log = (folder / "stock.log").open("ab")
    command = [sys.executable, "-m", "benchmarks.chaos.stock_callback", str(folder), uri]
    return subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True)


if __name__ == "__main__":
    drive(Path(sys.argv[1]), sys.argv[2])
