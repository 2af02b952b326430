"""Does one driver keep 64 GPUs busy, and what do 5,000 trials cost it?

The engine runs as it is, with trials that sleep instead of training, over 4 simulated nodes of 16 GPUs (Ray's Cluster
utility; every trial is a process that holds one GPU). Busy: sleeping seconds over slots x seconds, from the moment when
every slot had its first trial until the queue was empty: idle time there is the scheduler's. Sleeps are 20 to 40 s,
drawn by trial; a real trial is longer, so its share of idle time is smaller. The second part runs 5,000 trials that do
not sleep over 16 slots: trials a second, the driver's memory and its CPU seconds a trial.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import Workplace, spend
from tests.conftest import _write_model


def run(place: Workplace) -> Outcome:
    _write_model(place.work / "encoder", "bert")
    nodes, slots = place.size(4, 2), place.size(16, 2)
    sleepy = _measure(place, "sleepy", place.size(6 * 64, 12), nodes, slots, 20.0, 40.0)
    many = _measure(place, "many", place.size(5000, 60), place.size(1, 1), place.size(16, 2), 0.0, 0.0)
    growth = (many["driver_mib_peak"] - many["driver_mib_at_start"]) / many["trials"] * 1024
    return Outcome(
        [
            Mark(
                f"of {sleepy['slots']} slots busy while trials waited",
                sleepy["busy_while_trials_waited"],
                at_least=0.95,
            ),
            Mark("the same from the first trial's start to the last one's end", sleepy["busy_from_first_to_last"]),
            Mark("trials at once, at most (never more than slots)", sleepy["most_at_once"], at_most=sleepy["slots"]),
            Mark("driver: share of a core", sleepy["driver_cpu_seconds"] / sleepy["tune_seconds"]),
            Mark(f"{many['trials']:,} trials: trials a second", many["trials_a_second"]),
            Mark("driver: milliseconds of CPU a trial", 1000 * many["driver_cpu_seconds"] / many["trials"], unit="ms"),
            Mark("driver: peak memory", many["driver_mib_peak"], unit="MiB"),
            Mark("driver: memory a trial", growth, unit="KiB"),
        ],
        {"sleepy": sleepy, "many": many},
        ["the slots are simulated on this machine's cores, which also pay for every trial's process"],
    )


def _measure(
    place: Workplace, name: str, trials: int, nodes: int, slots: int, shortest: float, longest: float
) -> dict[str, Any]:
    words = [str(place.work / name), str(trials), str(nodes), str(slots), str(shortest), str(longest)]
    return spend([sys.executable, "-m", "benchmarks.scheduling_run", *words]).answer
