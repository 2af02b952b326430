"""`make chaos`: kill drivers, workers and servers, damage files, count what is lost. Loopback only, bounded in time.

python -m benchmarks.chaos            50 driver kills, 10 worker kills, 5 kills of a raylet or GCS, 20 of workers before
                                      their journals, 5 outages, 20 damaged files, 20 killed restores, stock Tune too:
                                      50 minutes on 2 cores
python -m benchmarks.chaos --short    5 + 2 + 1 + 5 in one sweep, as the tests run it
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.all_faults import everything_at_once
from benchmarks.chaos.damage import damage_files
from benchmarks.chaos.kills import kill_before_journals, kill_drivers, kill_ray, kill_workers
from benchmarks.chaos.outages import take_server_away
from benchmarks.chaos.restores import kill_restores
from benchmarks.chaos.stage import Server, Stage, Warm, build_source, orphans, warm_process
from benchmarks.chaos.stock_callback import run_stock
from benchmarks.chaos.verdict import Points, Verdict, expectation, judge, snapshot

COLUMNS = ("who", "what", "asked", "done", "lost", "duplicated", "running", "wrong", "orphans", "seconds")
KILLS_A_SWEEP = 9


@dataclass
class Row:
    """One line of the table."""

    who: str
    what: str
    asked: int
    done: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    orphans: int = 0
    seconds: float = 0.0

    def cells(self) -> dict[str, Any]:
        facts = {"who": self.who, "what": self.what, "asked": self.asked, "done": self.done}
        facts |= {name: getattr(self.verdict, name) for name in ("lost", "duplicated", "running", "wrong")}
        return {**facts, "orphans": self.orphans, "seconds": round(self.seconds, 1)}


@dataclass
class Chaos:
    """Runs the kinds of harm one after the other until they are done or time is up."""

    work: Path
    warm: Warm
    rng: random.Random
    until: float
    rows: list[Row] = field(default_factory=list)
    stages: int = 0

    def __post_init__(self) -> None:
        self.source = build_source(self.work / "source")

    def stage(self, **options: Any) -> Stage:
        self.stages += 1
        return Stage(self.work / f"stage-{self.stages}", self.source, self.warm, **options)

    def reference(self, slow: bool = False) -> dict[str, Points]:
        """What a sweep that nobody disturbs records; its own verdict is a row too."""
        began = time.monotonic()
        stage = self.stage(slow=slow)
        stage.finish()
        found = snapshot(stage.database)
        points = expectation(found)
        what = "undisturbed, encoder trained" if slow else "undisturbed"
        verdict = judge(points, found)
        self.rows.append(Row("gemma-nli", what, 1, 1, verdict, orphans(stage.drivers), time.monotonic() - began))
        return points

    def repeat(self, what: str, asked: int, once: Callable[[int], tuple[int, Verdict, int]]) -> None:
        """`once(how many are left)` until enough are done; a sweep that does not end well is a wrong one."""
        row = Row("gemma-nli", what, asked)
        self.rows.append(row)
        began = time.monotonic()
        while row.done < asked and time.monotonic() < self.until:
            try:
                done, verdict, left = once(asked - row.done)
            except (RuntimeError, TimeoutError) as error:
                done, verdict, left = 1, Verdict(wrong=1, details=[str(error)[-1500:]]), 0
            row.done += done
            row.verdict += verdict
            row.orphans += left
            row.seconds = time.monotonic() - began
            print(f"{what}: {row.done} of {asked}, {row.cells()}", *verdict.details, sep="\n  ", file=sys.stderr)

    def outage(self, left: int, expected: dict[str, Points]) -> tuple[int, Verdict, int]:
        server = Server(self.work / f"server-{left}")
        server.start()
        try:
            stage = self.stage(tracking_uri=server.uri)
            return take_server_away(stage, server, for_good=left % 2 == 0, rng=self.rng, expected=expected)
        finally:
            server.kill()

    def run(
        self,
        drivers: int,
        workers: int,
        outages: int,
        files: int,
        restores: int,
        stock: tuple[int, int, int, int],
        rays: int = 5,
        unbegun: int = 20,
    ) -> None:
        fast, rng = self.reference(), self.rng
        self.repeat(
            "driver killed", drivers, lambda left: kill_drivers(self.stage(), min(left, KILLS_A_SWEEP), rng, fast)
        )
        if workers:
            slow = self.reference(slow=True)
            self.repeat(
                "worker killed", workers, lambda left: kill_workers(self.stage(slow=True), min(left, 5), rng, slow)
            )
        self.repeat("Ray's own process killed", rays, lambda left: kill_ray(self.stage(), rng, fast))
        self.repeat(
            "worker killed before its journal",
            unbegun,
            lambda left: kill_before_journals(self.stage(), min(left, 20), fast),
        )
        self.repeat("server away", outages, lambda left: self.outage(left, fast))
        self.repeat("file damaged", files, lambda left: damage_files(self.stage(), left, rng, fast))
        self.repeat("restore killed", restores, lambda left: kill_restores(self.stage(), left, rng))
        if time.monotonic() < self.until:
            self.stock(stock)

    def stock(self, counts: tuple[int, int, int, int]) -> None:
        began = time.monotonic()
        for what, done, verdict in run_stock(self.work / "stock", self.rng, *counts):
            self.rows.append(Row("stock Tune", what, done, done, verdict, 0, time.monotonic() - began))


def table(rows: list[Row]) -> str:
    lines = [list(COLUMNS), *([str(row.cells()[name]) for name in COLUMNS] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="5 + 2 + 1 + 5 in one sweep")
    parser.add_argument(
        "--counts", default="50,10,5,20,20", help="kills of drivers, of workers, outages, files, restores"
    )
    parser.add_argument("--rays", type=int, default=5, help="kills of a raylet or GCS")
    parser.add_argument("--unbegun", type=int, default=20, help="kills of workers before their trials' journals begin")
    parser.add_argument("--stock", default="6,2,1,2", help="the same for stock Tune; 0,0,0,0 leaves it out")
    parser.add_argument("--minutes", type=float, default=60.0, help="start nothing new after that")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="gemma_nli_chaos_"))
    os.environ["GEMMA_NLI_HOME"] = str(work / "home")
    began, load = time.monotonic(), os.getloadavg()[0]
    try:
        with warm_process() as warm:
            chaos = Chaos(work, warm, random.Random(asked.seed), began + 60 * asked.minutes)
            if asked.short:
                server = Server(work / "server")
                done, verdict, left = everything_at_once(chaos.source, work, warm, server, chaos.rng)
                took = time.monotonic() - began
                chaos.rows.append(Row("gemma-nli", "everything at once", 13, sum(done.values()), verdict, left, took))
            else:
                numbers = [int(word) for word in asked.counts.split(",")]
                first, second, third, fourth = (int(word) for word in asked.stock.split(","))
                chaos.run(*numbers, stock=(first, second, third, fourth), rays=asked.rays, unbegun=asked.unbegun)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(chaos.rows))
    ours = [row for row in chaos.rows if row.who == "gemma-nli"]
    clean = all(row.verdict.clean and not row.orphans and row.done >= row.asked for row in ours)
    facts = {"seed": asked.seed, "load_before": round(load, 1), "cpus": os.cpu_count(), "clean": clean}
    facts |= {"seconds": round(time.monotonic() - began), "rows": [row.cells() for row in chaos.rows]}
    facts["details"] = [asdict(row.verdict)["details"][:10] for row in chaos.rows]
    if not asked.short:
        asked.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{'clean' if clean else 'NOT CLEAN'} in {facts['seconds']} s")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
