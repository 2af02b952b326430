"""The stage of the chaos: a tiny encoder, a synthetic corpus, a sweep file, and drivers that can be killed.

Everything lives under one folder and listens on loopback only; all that is started here is ended here, by its pid.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parents[2]
PHASES = {"starting": "starting Ray", "encoding": "encoding", "tuning": "running", "finalizing": "fitting"}
PHASES |= {"recording": "bringing"}
GONE_SECONDS = 75.0  # in which the processes of a killed driver end by themselves: Ray's own agents take up to a minute


class Warm:
    """Starts drivers out of `warm.py`."""

    def __init__(self) -> None:
        command = [sys.executable, "-u", "-m", "benchmarks.chaos.warm"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        env |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        env["OMP_NUM_THREADS"] = "2"
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, cwd=ROOT, start_new_session=True)
        self.ended: dict[int, int] = {}
        self._answers: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        self._answer("ready")

    def start(self, argv: list[str], env: dict[str, str], log: Path) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"argv": argv, "env": env, "log": str(log)}).encode() + b"\n")
        self.process.stdin.flush()
        return int(self._answer("pid"))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            fact = json.loads(line)
            with self._changed:
                if "ended" in fact:
                    self.ended[fact["ended"]] = fact["status"]
                else:
                    self._answers.append(fact)
                self._changed.notify_all()

    def _answer(self, key: str) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._answers), 180)
            return self._answers.pop(0)[key]


@dataclass
class Driver:
    """A running `gemma-nli` command, and every process that it was ever seen with."""

    pid: int
    log: Path
    warm: Warm
    began: float = field(default_factory=time.monotonic)
    family: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def status(self) -> int | None:
        """None while it runs, minus the signal's number where it was killed."""
        return self.warm.ended.get(self.pid)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def reached(self, phase: str) -> bool:
        return re.search(rf"^\d\d:\d\d:\d\d {re.escape(PHASES[phase])}", self.text(), re.MULTILINE) is not None

    def look(self) -> list[psutil.Process]:
        """Its processes now; they are remembered."""
        found: list[psutil.Process] = []
        with suppress(psutil.Error):
            found = psutil.Process(self.pid).children(recursive=True)
        self.family.update({process.pid: process for process in found})
        return found

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for it, False when the command ends first or time runs out."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.status is None:
            if condition():
                return True
            time.sleep(0.03)
        return False

    def wait(self, seconds: float = 240) -> int:
        deadline = time.monotonic() + seconds
        while self.status is None and time.monotonic() < deadline:
            self.look()
            time.sleep(0.2)
        if self.status is None:
            self.kill()
            raise TimeoutError(f"the command did not end in {seconds} s:\n{self.text()[-2000:]}")
        return self.status

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.look()
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        while number == signal.SIGKILL and self.status is None:
            time.sleep(0.01)

    def left(self) -> list[psutil.Process]:
        return [process for process in self.family.values() if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def orphans(drivers: list[Driver], seconds: float = GONE_SECONDS) -> int:
    """How many processes of ended drivers outlive them by that long; those are then ended."""
    deadline = time.monotonic() + seconds
    left = [process for driver in drivers for process in driver.left()]
    while left and time.monotonic() < deadline:
        time.sleep(0.3)
        left = [process for process in left if _is_alive(process)]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    return len(left)


@dataclass
class Stage:
    """One storage, one MLflow store and one sweep file."""

    folder: Path
    source: Path  # corpus and encoder, shared by stages
    warm: Warm
    tracking_uri: str | None = None
    slow: bool = False
    drivers: list[Driver] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)  # of the drivers and their workers, beside the usual

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.database = self.folder / "mlflow.db"
        self.storage = self.folder / "storage"
        self.file = self.folder / "chaos.yaml"
        self.file.write_text(yaml.safe_dump(self.tree()))

    def tree(self) -> dict[str, Any]:
        """Twelve cells; slow ones train the encoder, so that a trial lasts long enough to be hit, and end in a report.

        No pt2 export: it takes longer than the sweep and is written by one call, after everything counted here.
        """
        model = {"name": str(self.source / "tiny"), "max_length": 48}
        training: dict[str, Any] = {"num_epochs": 20, "batch_size": 32}
        if self.slow:
            model["freeze_encoder"] = False
            training["num_epochs"] = 2
        return {
            "name": "chaos",
            "question": "What is lost?",
            "base": {
                "data": {"data_dir": str(self.source / "data"), "num_folds": 3},
                "model": model,
                "training": training,
                "device": {"device": "cpu"},
                "mlflow": {"tracking_uri": self.tracking_uri or f"sqlite:///{self.database}"},
                "output": {"experiment_name": "chaos"},
            },
            "space": {
                "model.pooling_strategy": {"grid": ["mean", "cls", "max"]},
                "training.learning_rate": {"grid": ["1e-3", "3e-3", "1e-2", "3e-2"]},
            },
            "resources": {"max_failures": 3},
            "finalize": {"export_limit_gib": 0},
            "report": {"enabled": self.slow},
            "storage": str(self.storage),
        }

    def start(self, *argv: str) -> Driver:
        """The command typed: the sweep, unless other words are given."""
        words = list(argv) or ["sweep", str(self.file)]
        log = self.folder / f"driver-{len(self.drivers)}.log"
        env = {"GEMMA_NLI_HOME": str(self.folder / "home"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        env |= self.environment
        driver = Driver(self.warm.start(words, env, log), log, self.warm)
        self.drivers.append(driver)
        return driver

    def finish(self, tries: int = 1) -> Driver:
        """Type the command until it ends well."""
        for _ in range(tries):
            driver = self.start()
            if driver.wait() == 0:
                return driver
        raise RuntimeError(f"the sweep does not end well (status {driver.status}):\n{driver.text()[-3000:]}")

    @property
    def sweep_folder(self) -> Path:
        return next((self.storage / "sweeps").iterdir())

    def journals(self) -> list[Path]:
        return sorted((self.storage / "trials").rglob("journal.jsonl"))


def build_source(folder: Path) -> Path:
    """The corpus and the encoder of all stages."""
    from gemma_nli.corpus.synthetic import write_synthetic
    from tests.conftest import _write_model

    _write_model(folder / "tiny", "bert")
    write_synthetic(folder / "data", num_posts=60, seed=3)
    return folder


@dataclass
class Server:
    """An MLflow server on loopback that can be killed and started again on the same store."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or _free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.database}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(command, env=env, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.2)
        raise TimeoutError("the MLflow server does not start")

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self.process is None:
            return
        family: list[psutil.Process] = []
        with suppress(psutil.Error):
            whole = psutil.Process(self.process.pid)
            family = [whole, *whole.children(recursive=True)]
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        self.process.wait(20)
        self.process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def warm_process() -> Iterator[Warm]:
    warm = Warm()
    try:
        yield warm
    finally:
        warm.close()


def seconds_in(text: str) -> float | None:
    """The total that a command's closing line states."""
    found = re.search(r"([\d.]+) s in all", text)
    return float(found.group(1)) if found else None
