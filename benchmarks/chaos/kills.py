"""Kills: of the driver at random moments and in every phase, and of trials' workers."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.chaos.stage import ROOT, Driver, Stage, orphans
from benchmarks.chaos.verdict import Points, Verdict, judge, snapshot

PARTS_OF_RAY = ("raylet", "raylet", "gcs_server")
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


def kill_ray(stage: Stage, rng: random.Random, expected: Mapping[str, Points]) -> tuple[int, Verdict, int]:
    """Kill a part of Ray while trials run: the command ends by itself and says why, and the same one goes on."""
    verdict, part = Verdict(), rng.choice(PARTS_OF_RAY)
    driver = stage.start()
    driver.until(lambda: driver.reached("tuning"), 120)
    moment = time.monotonic() + rng.uniform(0.0, 4.0)
    driver.until(lambda: time.monotonic() >= moment, 10)
    found = [process for process in driver.look() if named(process, part)]
    if driver.status is not None or not found:
        return 0, verdict, orphans(stage.drivers)
    os.kill(found[0].pid, signal.SIGKILL)
    status = driver.wait(60)
    said = driver.text()
    verdict.add("wrong", int(status != 2), f"without its {part} the command ended with status {status}: {said[-800:]}")
    verdict.add("wrong", int(said.count("Ray has died") != 1), f"it did not say why: {said[-800:]}")
    verdict.add("wrong", int("Traceback" in said or "*** SIG" in said), f"a dump: {said[-800:]}")
    left = snapshot(stage.database)
    verdict.add("wrong", sum(state != "KILLED" for _, state in left.sweeps), "the sweep's run is not KILLED")
    verdict.add("running", sum(run.status in ("RUNNING", "SCHEDULED") for run in left.runs), "trials left open")
    stage.finish()
    verdict += judge(expected, snapshot(stage.database))
    return 1, verdict, orphans(stage.drivers)


def named(process: psutil.Process, part: str) -> bool:
    with suppress(psutil.Error):
        return process.name() == part
    return False


def kill_before_journals(stage: Stage, kills: int, expected: Mapping[str, Points]) -> tuple[int, Verdict, int]:
    """Workers die just before their trials' journals begin, each trial's twice; the sweep must end well by itself."""
    deaths, patch = stage.folder / "deaths", Path(__file__).with_name("before_journal")
    deaths.mkdir()
    stage.environment |= {"CHAOS_DEATHS": str(deaths), "CHAOS_DEATHS_LIMIT": str(kills)}
    stage.environment["PYTHONPATH"] = f"{patch}{os.pathsep}{ROOT}"
    driver = stage.start()
    status = driver.wait()
    verdict = judge(expected, snapshot(stage.database))
    verdict.add("wrong", int(status != 0), f"the sweep ended with status {status}: {driver.text()[-1500:]}")
    return len(list(deaths.iterdir())), verdict, orphans(stage.drivers)


def is_trial(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "CvTrial" in process.name() or any("CvTrial" in word for word in process.cmdline()[:1])
    return False
