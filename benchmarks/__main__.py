"""Run benchmarks, each in a process of its own; one table at the end and one JSON file that later runs add to.

python -m benchmarks [NAME ...] [--json FILE] [--data DIR] [--quick]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import NAMES
from benchmarks.outcome import show
from benchmarks.workplace import (
    BUSY,
    REAL_DATA,
    ROOT,
    Workplace,
    adopt_orphans,
    clean_environment,
    end_orphans,
    machine,
    synthetic_data,
    versions,
)
from gemma_nli.base.files import write_whole


def main() -> int:
    asked = _parse()
    if asked.in_folder is not None:
        return _run_here(asked)
    if not asked.data.is_dir():
        print(f"{asked.data}: no such folder; a synthetic corpus of the same size is used: figures differ.")
    results: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for name in asked.names or NAMES:
        print(f"{name}: {NAMES[name]} ...", flush=True)
        try:
            results.append(_run_apart(name, asked))
        except RuntimeError as error:
            failed[name] = str(error)
            continue
        _keep(asked.json, results[-1])
    show(results, failed)
    print(f"figures: {asked.json}")
    missed = any(result["reached"] is False for result in results)
    return 2 if failed else int(missed and not asked.quick)


def _parse() -> argparse.Namespace:
    lines = [f"  {name:14s}{what}" for name, what in NAMES.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Benchmarks; all of them where none is named. Exit status 1: a mark was missed; 2: one failed.",
        epilog="\n".join(["names:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []])
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results.json", metavar="FILE")
    parser.add_argument("--data", type=Path, default=REAL_DATA, metavar="DIR", help="corpus in ReDSM5's format")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether they run, not what they measure")
    parser.add_argument("--in-folder", type=Path, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_apart(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One benchmark in a new process; its folder and its processes are gone afterwards, however it ended."""
    folder = Path(tempfile.mkdtemp(prefix=f"gemma_nli_bench_{name}_"))
    command = [sys.executable, "-m", "benchmarks", name, "--data", str(asked.data.absolute())]
    command += ["--in-folder", str(folder), *(["--quick"] if asked.quick else [])]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        process.wait()
        try:
            result: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
        except FileNotFoundError:
            raise RuntimeError(f"ended with {process.returncode}; what it said stands above.") from None
        return result
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _run_here(asked: argparse.Namespace) -> int:
    """The benchmark itself, in the process made for it."""
    (name,), folder = asked.names, asked.in_folder
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    clean_environment(folder)
    synthetic = not asked.data.is_dir()
    place = Workplace(folder, synthetic_data(folder) if synthetic else asked.data, synthetic, asked.quick)
    load = os.getloadavg()[0]
    began, clock = time.time(), time.perf_counter()
    try:
        outcome = importlib.import_module(f"benchmarks.{name}").run(place)
    except Exception:  # noqa: BLE001 - the other benchmarks go on
        traceback.print_exc()
        return 1
    finally:
        end_orphans(2.0)
    if load > BUSY:
        outcome.notes.append(f"the machine was busy (load {load:.1f}): do not trust the times")
    if place.quick:
        outcome.notes.append("--quick: sizes too small to mean anything")
    words = ["python", "-m", "benchmarks", name, *(["--quick"] if place.quick else [])]
    facts = {
        "name": name,
        **outcome.to_json(),
        "seconds": round(time.perf_counter() - clock, 1),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "command": shlex.join(words),
        "data": "synthetic" if synthetic else place.data.name,
        "load_before": load,
        "machine": machine(),
        "versions": versions(),
    }
    (folder / "outcome.json").write_text(json.dumps(facts))
    return 0


def _keep(file: Path, result: dict[str, Any]) -> None:
    """Add one benchmark's result to the file, in place of an earlier one of the same name."""
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    known[result["name"]] = result
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (json.dumps(known, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
