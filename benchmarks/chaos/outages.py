"""The MLflow server dies while a sweep runs: for some seconds, or until `gemma-nli flush`."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

from benchmarks.chaos.stage import Server, Stage, orphans
from benchmarks.chaos.verdict import Points, Verdict, judge, snapshot


def take_server_away(
    stage: Stage, server: Server, for_good: bool, rng: random.Random, expected: Mapping[str, Points]
) -> tuple[int, Verdict, int]:
    """Kill the server while trials run; start it again soon, or after the sweep and then flush.

    Returns:
        Outages, the verdict, and processes left over.
    """
    verdict = Verdict()
    driver = stage.start()
    driver.until(lambda: bool(stage.journals()), 120)
    moment = time.monotonic() + rng.uniform(0.0, 1.5)
    driver.until(lambda: time.monotonic() >= moment, 10)
    server.kill()
    if not for_good:
        moment = time.monotonic() + rng.uniform(1.0, 4.0)
        driver.until(lambda: time.monotonic() >= moment, 10)
        server.start()
    status = driver.wait()
    verdict.add("wrong", int(status != 0), f"the sweep ended with status {status} while MLflow was away")
    if for_good:
        server.start()
    flushed = stage.start("flush", "chaos")
    verdict.add("lost", int(flushed.wait() != 0), f"flush ended with {flushed.status}: {flushed.text()[-300:]}")
    verdict += judge(expected, snapshot(server.database))
    return 1, verdict, orphans(stage.drivers)
