"""Files damaged between two runs of the command: bits flipped, ends cut off, whole files gone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.chaos.stage import Stage, orphans
from benchmarks.chaos.verdict import Points, Verdict, judge, snapshot

Finder = Callable[[Stage], list[Path]]
TARGETS: dict[str, Finder] = {
    "journal": lambda stage: stage.journals(),
    "fold arrays": lambda stage: sorted((stage.storage / "trials").rglob("folds_*.safetensors")),
    "features": lambda stage: sorted((stage.storage / "features").rglob("shard-*")),
    "cells": lambda stage: [stage.sweep_folder / "cells.jsonl"],
    "pending": lambda stage: [stage.sweep_folder / "pending.jsonl"],
    "spec": lambda stage: [stage.sweep_folder / "spec.yaml"],
    "result": lambda stage: [stage.sweep_folder / "result.json"],
}
WAYS = ("flip", "cut", "delete", "half line")


def damage_files(
    stage: Stage, count: int, rng: random.Random, expected: Mapping[str, Points], at_a_time: int = 4
) -> tuple[int, Verdict, int]:
    """Run a sweep whole, then damage some files, type the command, compare; and again.

    Returns:
        Files damaged, the verdict over all rounds, processes left over.
    """
    verdict, done, names = Verdict(), 0, list(TARGETS)
    if not stage.drivers:
        stage.finish()
    while done < count:
        now = min(at_a_time, count - done)
        for number in range(done, done + now):
            target = names[number % len(names)]
            found = TARGETS[target](stage)
            damage(rng.choice(found) if found else stage.sweep_folder / "pending.jsonl", rng)
        done += now
        stage.finish()
        verdict += judge(expected, snapshot(stage.database))
    return done, verdict, orphans(stage.drivers)


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file in a random way (one that is not there gets rubbish); says how."""
    if not path.exists() or not path.stat().st_size:
        path.write_bytes(b'{"key": "x", "waits": tru\xff\n[]\n')
        return f"{path.name}: rubbish"
    way, data = rng.choice(WAYS), bytearray(path.read_bytes())
    if way == "delete":
        path.unlink()
        return f"{path.name}: deleted"
    if way == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    elif way == "half line":
        path.write_bytes(bytes(data) + data[: max(1, len(data) // 3)])
    else:
        for _ in range(3):
            place = rng.randrange(len(data))
            data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    return f"{path.name}: {way}"
