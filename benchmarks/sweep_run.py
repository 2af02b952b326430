"""A sweep in a process of its own, as `gemma-nli sweep` runs it, and what only the driver can say of it.

    python -m benchmarks.sweep_run SWEEP.yaml

Prints one JSON object: the sweep's result; `warm_seconds`, from the first trial's start until the last one had ended
and everything of it was in MLflow, which leaves out every cold start (imports, Ray, actors); `peak_mib`, the driver's.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path

from gemma_nli.spec.spec import load_sweep
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.trial import TrialJournal


class PendingWatch:
    """When the outbox last had something to send, seen from its file, which is gone when nothing waits."""

    def __init__(self, folder: Path) -> None:
        self.pending, self.last_seen, self.ended = SweepFolder(folder).pending, 0.0, threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self.ended.wait(0.02):
            if self.pending.exists():
                self.last_seen = time.time()


def main(file: str) -> None:
    spec = load_sweep(file)
    ready = prepare(spec)
    watch = PendingWatch(ready.folder)
    result = run_sweep(spec)
    watch.ended.set()
    events = [list(TrialJournal(ready.storage, key).events()) for key in ready.cells]
    started = min(event[0]["at_ms"] for event in events) / 1000
    ended = max(event[-1]["at_ms"] for event in events) / 1000
    own = [(event[-1]["at_ms"] - event[0]["at_ms"]) / 1000 for event in events]
    facts = {
        "result": result.to_json(),
        "trials": len(events),
        "warm_seconds": max(ended, watch.last_seen) - started,
        "tuned_seconds": ended - started,
        "trial_seconds_median": statistics.median(own),
        "peak_mib": _peak_mib(),
        "mean_f1": [event[-1].get("aggregates", {}).get("cv_aggregate/mean_f1") for event in events],
    }
    print(json.dumps(facts))


def _peak_mib() -> float:
    """The most resident memory this process ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1])
