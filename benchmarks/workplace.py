"""Where a benchmark runs: a temporary folder, a corpus, an environment, and processes whose cost is known."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml

from gemma_nli.corpus.redsm5 import Corpus, load_corpus, write_corpus
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.model.demo_weights import minilm_folder

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = ROOT.parent / "shared" / "data" / "reddit_emotions"
REAL_POSTS = 1587
VERSIONS = ("ray", "mlflow", "torch", "transformers", "numpy", "scikit-learn")
BUSY = 2.5
"""A load above this before a timing: the figures are then not to be trusted, and the result says so."""

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Usage:
    """What a command cost: wall seconds, CPU seconds (user and system, of it and all it started), its JSON answer."""

    seconds: float
    cpu_seconds: float
    answer: Any


@dataclass(frozen=True)
class Workplace:
    """Given to each benchmark.

    Args:
        work: an empty folder, removed afterwards; `GEMMA_NLI_HOME` is inside it.
        data: folder of the corpus.
        synthetic: whether that corpus is the made-up one.
        quick: small sizes, to see whether the benchmark runs; its figures mean nothing.
    """

    work: Path
    data: Path
    synthetic: bool = False
    quick: bool = False

    def size(self, usual: int, quick: int) -> int:
        return quick if self.quick else usual

    def sweep(self, name: str, base: dict[str, Any], space: dict[str, Any], **rest: Any) -> Path:
        """A sweep file with MiniLM (joint, 128 tokens) on the corpus; every store of it is in a folder of its name."""
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        tree: dict[str, Any] = {
            "name": name,
            "base": {
                "data": {"data_dir": str(self.data)},
                "model": {"name": str(minilm_folder()), "max_length": 128, "pair_encoding": "joint"},
                "mlflow": {"tracking_uri": f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"},
                "output": {"experiment_name": name},
            },
            "space": space,
            "finalize": {"enabled": False},
            "report": {"enabled": False},
            "storage": str(folder / "storage"),
            **rest,
        }
        for section, settings in base.items():
            tree["base"][section] = {**tree["base"].get(section, {}), **settings}
        file = folder / "sweep.yaml"
        file.write_text(yaml.safe_dump(tree))
        return file

    def share_features(self, source: str, target: str) -> None:
        """Give the sweep `target` the encoded texts of the sweep `source`: it then starts warm."""
        shutil.copytree(self.work / source / "storage" / "features", self.work / target / "storage" / "features")

    def run_sweep(self, file: Path) -> Usage:
        """`sweep_run.py` on a sweep file."""
        return spend([sys.executable, "-m", "benchmarks.sweep_run", str(file)])

    def encoder_pass(self, ratio: float, data: Path | None = None) -> Usage:
        """`encoder_pass.py` on the corpus's pairs at a negative ratio."""
        return spend([sys.executable, "-m", "benchmarks.encoder_pass", str(data or self.data), str(ratio)])


def spend(command: list[str], env: dict[str, str] | None = None) -> Usage:
    """Run a command that prints one JSON object and wait for it and all it started.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    began = time.perf_counter()
    with CpuMeter() as meter:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True)
        seconds = time.perf_counter() - began
    end_orphans()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:4])} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Usage(seconds, meter.seconds, json.loads(done.stdout[done.stdout.index("{") :]))


class CpuMeter:
    """CPU seconds of all processes under this one, read from the system four times a second.

    Ray's raylet leaves its workers' times uncollected when they end, so the sums that a parent gets lack them; here a
    process counts as far as it was last seen.
    """

    def __init__(self) -> None:
        self.seen: dict[tuple[int, float], float] = {}
        self.first: dict[tuple[int, float], float] = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def seconds(self) -> float:
        return sum(self.seen.values()) - sum(self.first.values())

    def __enter__(self) -> CpuMeter:
        self._look()
        self.first = dict(self.seen)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._look()
        self.ended.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.ended.wait(0.25):
            self._look()

    def _look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                times = process.cpu_times()
                self.seen[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue


def adopt_orphans() -> None:
    """Become the parent of whatever our children leave behind: it can then be counted, and ended by its id."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(patience_seconds: float = 15.0) -> None:
    """Wait for processes that were left to us; those that stay are ended."""
    deadline = time.monotonic() + patience_seconds
    while _reap() and time.monotonic() < deadline:
        time.sleep(0.02)
    for left in psutil.Process().children(recursive=True):
        try:
            left.kill()
        except psutil.NoSuchProcess:
            continue
    while _reap():
        time.sleep(0.02)


def _reap() -> bool:
    """Collect what has ended; whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def clean_environment(work: Path) -> None:
    """No setting of the machine reaches a benchmark, and no benchmark the machine's stores."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "GEMMA_NLI_", "HF_", "RAY_")):
            del os.environ[name]
    os.environ |= {
        "GEMMA_NLI_HOME": str(work / "home"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_ADDRESS": "local",  # a Ray of its own, whatever else runs on the machine
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def synthetic_data(work: Path) -> Path:
    """The made-up corpus, as many posts as the real one has."""
    folder = work / "synthetic"
    if not folder.exists():
        write_synthetic(folder, REAL_POSTS)
    return folder


def small_corpus(place: Workplace, positives: int) -> Path:
    """A corpus of the first posts of the data: `positives` positive pairs; at ratio 1 as many negatives."""
    whole = load_corpus(place.data)
    kept: dict[str, str] = {}
    found = 0
    by_post: dict[str, set[str]] = {}
    for annotation in whole.annotations:
        if annotation.status == 1:
            by_post.setdefault(annotation.post_id, set()).add(annotation.criterion_id)
    for post, text in whole.posts.items():
        if found + len(by_post.get(post, ())) > positives:
            continue
        kept[post] = text
        found += len(by_post.get(post, ()))
        if found == positives:
            break
    annotations = tuple(a for a in whole.annotations if a.post_id in kept)
    folder = place.work / f"corpus_{positives}"
    write_corpus(Corpus(kept, whole.criteria, annotations), folder)
    return folder


def machine() -> dict[str, Any]:
    """What a figure has to be read beside."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in VERSIONS}
