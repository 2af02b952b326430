"""A sweep of sleeping trials over simulated GPU nodes, in a process of its own, so that its memory is the driver's.

    python -m benchmarks.scheduling_run FOLDER TRIALS NODES SLOTS SHORTEST LONGEST

Everything of the engine but the trial is real: spec, keys, searcher, Ray Tune, callback, board. Each trial asks for one
CPU and one GPU of the NODES * SLOTS that the nodes of a Ray `Cluster` say they have. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks import sleeping_trial
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep import engine
from gemma_nli.sweep.ray import tuner as tuning
from gemma_nli.sweep.records.progress_state import ProgressState


class Driver:
    """This process's CPU seconds and memory while the board says `tuning`."""

    def __init__(self) -> None:
        self.process, self.marks = psutil.Process(), dict[str, tuple[float, float]]()
        self.peak_mib, self.at_start_mib = 0.0, 0.0

    def watch(self, progress: ProgressState) -> None:
        threading.Thread(target=self._sample, daemon=True).start()
        progress.observers.append(lambda: self._mark(progress.phase))

    def _mark(self, phase: str) -> None:
        if phase not in self.marks:
            cpu = self.process.cpu_times()
            self.marks[phase] = (time.time(), cpu.user + cpu.system)
            if phase == "tuning":
                self.at_start_mib = self.process.memory_info().rss / 2**20

    def _sample(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, self.process.memory_info().rss / 2**20)
            time.sleep(0.2)

    def cpu(self) -> tuple[float, float]:
        """(seconds of tuning, CPU seconds in them)."""
        (began, before), (ended, after) = self.marks["tuning"], self.marks["recording"]
        return ended - began, after - before


def main(folder: Path, trials: int, nodes: int, slots: int, shortest: float, longest: float) -> None:
    spans = folder / "spans"
    spans.mkdir(parents=True)
    os.environ |= {
        sleeping_trial.SPANS: str(spans),
        sleeping_trial.SHORTEST: str(shortest),
        sleeping_trial.LONGEST: str(longest),
    }
    write_synthetic(folder / "data", num_posts=40, seed=0)
    for name, stand_in in (("CvTrial", sleeping_trial.SleepingTrial), ("TrialContext", lambda **facts: None)):
        assert hasattr(tuning, name), f"the engine takes {name} from elsewhere now: real trials would run"
        setattr(tuning, name, stand_in)
    scratch = tempfile.mkdtemp(prefix="ray")
    head = {"num_cpus": 0, "object_store_memory": 10**8, "temp_dir": scratch}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes):
        cluster.add_node(num_cpus=slots, num_gpus=slots, object_store_memory=10**8)
    os.environ["RAY_ADDRESS"] = cluster.address
    ray.init(address=cluster.address, log_to_driver=False)
    driver = Driver()
    try:
        result = engine.run_sweep(_spec(folder, trials), watch=driver.watch)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
    assert result.trials["finished"] == trials, result.trials
    seconds, cpu = driver.cpu()
    measured = {"trials": trials, "slots": nodes * slots, "tune_seconds": seconds, "driver_cpu_seconds": cpu}
    measured |= {"driver_mib_at_start": driver.at_start_mib, "driver_mib_peak": driver.peak_mib}
    print(json.dumps({**measured, **utilisation(_read(spans), nodes * slots)}))


def _spec(folder: Path, trials: int) -> SweepSpec:
    """A grid of seeds over a trained encoder: nothing to encode, and no trial that looks at it."""
    encoder = folder.parent / "encoder"
    base: dict[str, Any] = {
        "data": {"data_dir": str(folder / "data"), "num_folds": 2},
        "model": {"name": str(encoder), "freeze_encoder": False, "max_length": 32},
        "mlflow": {"enabled": False},
    }
    tree = {"name": "sleep", "base": base, "space": {"training.seed": {"grid": list(range(trials))}}}
    tree |= {"resources": {"cpu": 1, "gpu": 1}, "storage": str(folder / "storage")}
    return SweepSpec.from_mapping(tree)


def _read(spans: Path) -> list[tuple[float, float]]:
    lines = [line.split() for file in spans.iterdir() for line in file.read_text().splitlines()]
    return [(float(began), float(ended)) for began, ended in lines]


def utilisation(spans: list[tuple[float, float]], slots: int) -> dict[str, float]:
    """How busy the slots were: while trials waited and every slot had been filled once; and from first to last.

    The first window leaves out what the machine, not the scheduler, costs: `slots` processes started on a few cores.
    """
    begins = sorted(began for began, _ in spans)
    filled, emptied = begins[min(slots, len(begins)) - 1], begins[-1]
    window = max(emptied - filled, 1e-9)
    busy = sum(max(0.0, min(ended, emptied) - max(began, filled)) for began, ended in spans)
    first, last = begins[0], max(ended for _, ended in spans)
    whole = sum(ended - began for began, ended in spans)
    return {
        "busy_while_trials_waited": busy / (slots * window),
        "busy_from_first_to_last": whole / (slots * (last - first)),
        "fill_seconds": filled - first,
        "most_at_once": float(most_at_once(spans)),
        "trials_a_second": len(spans) / (last - first),
    }


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """How many slept at the same time at most."""
    changes = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


if __name__ == "__main__":
    words = sys.argv[1:]
    main(Path(words[0]), int(words[1]), int(words[2]), int(words[3]), float(words[4]), float(words[5]))
