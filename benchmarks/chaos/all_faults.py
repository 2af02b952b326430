"""The short form: driver kills, worker kills, an outage and damaged files, all in one sweep."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.chaos.damage import TARGETS, damage
from benchmarks.chaos.kills import is_trial, kill_at
from benchmarks.chaos.stage import Driver, Server, Stage, Warm, orphans
from benchmarks.chaos.verdict import Points, Verdict, judge, snapshot

PHASES = ("any", "encoding", "tuning", "tuning", "tuning")
DAMAGED = ("journal", "fold arrays", "features", "cells", "spec")


def everything_at_once(
    source: Path, work: Path, warm: Warm, server: Server, rng: random.Random
) -> tuple[dict[str, int], Verdict, int]:
    """5 driver kills, 5 damaged files between the last two, then one run with 2 worker kills and an outage.

    Returns:
        How often each was done, the verdict against cross-validation without Ray, and processes left over.
    """
    done = {"drivers": 0, "files": 0, "workers": 0, "outages": 0}
    server.start()
    try:
        stage = Stage(work / "short", source, warm, tracking_uri=server.uri)
        for place, phase in enumerate(PHASES):
            if place == len(PHASES) - 1:
                done["files"] = _damage_each(stage, rng)
            done["drivers"] += kill_at(stage.start(), phase, rng, longest=1.0)
        driver = stage.start()
        driver.until(lambda: driver.reached("tuning"), 120)
        done["workers"] = _kill_workers(driver, 2)
        server.kill()
        done["outages"] = 1
        time.sleep(0.5)
        server.start()
        verdict = Verdict()
        verdict.add("wrong", int(driver.wait() != 0), f"the sweep ended with {driver.status}: {driver.text()[-1500:]}")
        if "gemma-nli flush" in driver.text():
            flushed = stage.start("flush", "chaos")
            verdict.add("lost", int(flushed.wait() != 0), f"flush ended with {flushed.status}")
        verdict += judge(by_hand(stage), snapshot(server.database))
        return done, verdict, orphans(stage.drivers)
    finally:
        server.kill()


def _damage_each(stage: Stage, rng: random.Random) -> int:
    for target in DAMAGED:
        found = TARGETS[target](stage)
        damage(rng.choice(found) if found else stage.sweep_folder / "pending.jsonl", rng)
    return len(DAMAGED)


def _kill_workers(driver: Driver, kills: int) -> int:
    done, killed = 0, set()
    while done < kills and driver.status is None:
        for process in driver.look():
            if done < kills and process.pid not in killed and is_trial(process):
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.add(process.pid)
                    done += 1
        time.sleep(0.05)
    return done


def by_hand(stage: Stage) -> dict[str, Points]:
    """What each trial must show, from cross-validations in this process: no Ray, no resume, nothing kept."""
    from gemma_nli.features import FeatureStore
    from gemma_nli.spec.spec import load_sweep
    from gemma_nli.sweep.prepare import prepare
    from gemma_nli.tracking.write.from_journal import metric_points
    from gemma_nli.training.cross_validation import cross_validate
    from gemma_nli.trial import TrialJournal

    alone = stage.folder / "by_hand"
    ready = prepare(load_sweep(stage.file, [f"storage={alone}"]))
    features = FeatureStore(alone / "features", ready.spec.base.features)
    expected: dict[str, Points] = {}
    for key, cell in ready.cells.items():
        result = cross_validate(cell.config, ready.corpus, ready.pairs, features)
        journal = TrialJournal(alone, key)
        journal.start(cell.config, ready.pairs.fingerprint, "", ready.pairs.num_folds)
        journal.add_folds(result.folds)
        journal.finish(result)
        record = journal.read()
        assert record is not None
        expected[key] = {(point.name, point.step): [point.value] for point in metric_points(record)}
    return expected
