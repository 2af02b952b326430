"""Ctrl-C: once, what runs is finished and saved; twice, stop now. Either way the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos.stage import Driver, Stage, Warm, build_source, orphans, warm_process
from benchmarks.chaos.verdict import snapshot

OPEN = ("RUNNING", "SCHEDULED")
pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with warm_process() as process:
        yield process


def started(stage: Stage, trials: int) -> Driver:
    """The command typed, and at work on one trial more than before."""
    driver = stage.start()
    assert driver.until(lambda: driver.reached("tuning") and len(stage.journals()) >= trials, 200), driver.text()
    driver.look()
    return driver


def press(driver: Driver) -> None:
    """Ctrl-C as a terminal sends it: to the whole process group."""
    os.killpg(driver.pid, signal.SIGINT)


def test_ctrl_c_once_saves_what_runs_and_twice_stops_now_and_both_go_on(tmp_path: Path, warm: Warm) -> None:
    stage = Stage(tmp_path / "stage", build_source(tmp_path / "source"), warm, slow=True)
    once = started(stage, trials=1)
    press(once)
    assert once.wait(120) == 130, once.text()
    found = snapshot(stage.database)
    assert 1 <= len(found.runs) < 12
    assert {run.status for run in found.runs} == {"FINISHED"}
    assert [status for _, status in found.sweeps] == ["KILLED"]
    assert found.versions == 0
    assert orphans([once]) == 0

    twice = started(stage, trials=len(stage.journals()) + 1)
    press(twice)
    time.sleep(0.3)
    began = time.monotonic()
    if twice.status is None:
        press(twice)
    assert twice.wait(60) == 130, twice.text()
    assert time.monotonic() - began < 30
    assert not {run.status for run in snapshot(stage.database).runs} & {*OPEN}
    assert [status for _, status in snapshot(stage.database).sweeps] == ["KILLED"]
    assert orphans([twice]) == 0

    stage.finish()
    found = snapshot(stage.database)
    assert sorted(run.status for run in found.runs) == ["FINISHED"] * 12
    assert len({run.key for run in found.runs}) == 12
    assert [status for _, status in found.sweeps] == ["FINISHED"]
    assert found.versions == 1


def test_ctrl_c_while_texts_are_encoded_leaves_nothing_open(tmp_path: Path, warm: Warm) -> None:
    stage = Stage(tmp_path / "stage", build_source(tmp_path / "source"), warm)
    driver = stage.start()
    assert driver.until(lambda: driver.reached("encoding"), 120)
    press(driver)
    assert driver.wait(60) == 130, driver.text()
    assert "Traceback" not in driver.text()
    assert [status for _, status in snapshot(stage.database).sweeps] == ["KILLED"]
    assert orphans([driver]) == 0
