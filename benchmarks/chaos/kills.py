"""Kills: of the driver at random moments and in every phase, and of trials' workers."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

import psutil

from benchmarks.chaos.rig import Driver, Stage, orphans
from benchmarks.chaos.verdict import Points, Verdict, judge, snapshot

AIMS = ("any", "encoding", "tuning", "tuning", "finalizing", "recording")


def kill_drivers(
    stage: Stage, kills: int, rng: random.Random, expected: Mapping[str, Points]
) -> tuple[int, Verdict, int]:
    """Type the command and kill it, until it is killed often enough or nothing is left to kill; then let it end.

    Returns:
        Kills that hit a running command, the verdict on the store, processes that outlived their driver.
    """
    done = 0
    for turn in range(3 * kills):
        if done == kills or (stage.drivers and stage.drivers[-1].status == 0 and turn > kills):
            break
        driver = stage.start()
        done += kill_at(driver, AIMS[turn % len(AIMS)], rng)
        if driver.status == 0:
            break
    stage.finish()
    return done, judge(expected, snapshot(stage.database)), orphans(stage.drivers)


def kill_at(driver: Driver, aim: str, rng: random.Random, longest: float = 4.0) -> bool:
    """Kill it some time into a phase (or into anything); False where it had ended by then."""
    if aim == "any":
        moment = driver.began + rng.uniform(0.5, 14.0)
        driver.until(lambda: time.monotonic() >= moment, 30)
    else:
        driver.until(lambda: driver.reached(aim), 120)
        moment = time.monotonic() + rng.uniform(0.0, longest if aim == "tuning" else 1.5)
        driver.until(lambda: time.monotonic() >= moment, 10)
    if driver.status is not None:
        return False
    driver.kill()
    return driver.status == -signal.SIGKILL


def kill_workers(
    stage: Stage, kills: int, rng: random.Random, expected: Mapping[str, Points] | None
) -> tuple[int, Verdict, int]:
    """While trials run, kill the process of one of them, again and again; the sweep must end well by itself."""
    driver = stage.start()
    driver.until(lambda: bool(stage.journals()), 120)
    done = 0
    while done < kills and driver.status is None:
        moment = time.monotonic() + rng.uniform(0.3, 1.5)
        driver.until(lambda at=moment: time.monotonic() >= at, 10)  # type: ignore[misc]
        workers = [process for process in driver.look() if is_trial(process)]
        if workers:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers).pid, signal.SIGKILL)
                done += 1
                driver.until(lambda: any(is_trial(p) for p in driver.look()), 60)
    status = driver.wait()
    verdict = judge(expected, snapshot(stage.database)) if expected is not None else Verdict()
    verdict.add("wrong", int(status != 0), f"the sweep ended with status {status}")
    return done, verdict, orphans(stage.drivers)


def is_trial(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "CvTrial" in process.name() or any("CvTrial" in word for word in process.cmdline()[:1])
    return False
