"""When a part of Ray dies the command says so once, leaves things in order, and ends; the same command goes on."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos.kills import PARTS_OF_RAY, kill_ray
from benchmarks.chaos.stage import Stage, build_source, warm_process
from benchmarks.chaos.verdict import Verdict, expectation, snapshot

LOSING_RAY = """
import os, signal, sys, time
from pathlib import Path
from ray._private import worker
from gemma_nli.sweep.cluster.ray_session import ray_session
from gemma_nli.sweep.ray.ray_processes import dead_part, watched_ray
part, left = sys.argv[1:]
with ray_session(), watched_ray(lambda: Path(left).write_text(str(dead_part()))):
    assert dead_part() is None
    os.kill(worker._global_node.all_processes[part][0].process.pid, signal.SIGKILL)
    time.sleep(60)
"""


@pytest.mark.parametrize("part", sorted(set(PARTS_OF_RAY)))
def test_a_dead_part_of_ray_ends_the_command_in_order(tmp_path: Path, part: str) -> None:
    left = tmp_path / "left"
    ended = subprocess.run(
        [sys.executable, "-c", LOSING_RAY, part, str(left)], capture_output=True, text=True, timeout=120, check=False
    )
    (line,) = ended.stderr.strip().splitlines()
    assert "Ray has died" in line
    assert "run the same command again to continue" in line
    assert (ended.returncode, ended.stdout) == (2, "")
    assert part.partition("_")[0] in left.read_text().lower()


@pytest.mark.chaos
def test_a_sweep_whose_ray_dies_is_killed_in_mlflow_and_the_same_command_loses_nothing(tmp_path: Path) -> None:
    source = build_source(tmp_path / "source")
    with warm_process() as warm:
        calm = Stage(tmp_path / "calm", source, warm)
        calm.finish()
        expected = expectation(snapshot(calm.database))
        done, verdict, orphans = kill_ray(Stage(tmp_path / "stage", source, warm), random.Random(3), expected)
    assert done == 1
    assert (verdict, orphans) == (Verdict(), 0), verdict.details
