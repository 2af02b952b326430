"""What the report of a large sweep costs: 1,000 trials x about 2,600 pairs, in a process of its own.

The trials are simulated (`simulated_sweep.py`): real corpus, folds and journals, probabilities around a known skill.
The report is `write_report` of the evidence read from the journals, imports included; the cosine baseline is left out,
as no vectors are stored. Memory is the process's peak resident set.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.outcome import Mark, Outcome
from benchmarks.simulated_sweep import simulate_sweep
from benchmarks.workplace import Workplace, spend
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.spec.spec import SweepSpec

SECONDS, GIB = 60.0, 2.0
CODE = "import sys; from benchmarks.report import report; report(sys.argv[1], sys.argv[2])"


def run(place: Workplace) -> Outcome:
    spec = spec_of(place)
    sweep_id = simulate_sweep(spec, _skill, epochs=20)
    trials = len(spec.cells())
    spent = spend([sys.executable, "-c", CODE, spec.storage, sweep_id])
    facts = spent.answer
    figures = {"trials": trials, **facts, "seconds": spent.seconds, "cpu_seconds": spent.cpu_seconds}
    marks = [
        Mark(f"seconds for {trials} trials x {facts['pairs']} pairs", spent.seconds, at_most=SECONDS, unit="s"),
        Mark("peak memory", facts["peak_gib"], at_most=GIB, unit="GiB"),
        Mark("report.html", facts["html_bytes"] / 1e6, at_most=6.0, unit="MB"),
    ]
    return Outcome(marks, figures)


def spec_of(place: Workplace) -> SweepSpec:
    """A random sweep of 1,000 trials (60 where it is to be quick) over eight settings."""
    tree: dict[str, Any] = {
        "name": "thousand",
        "question": "Which pooling?",
        "base": {
            "data": {"data_dir": str(place.data)},
            "model": {"name": str(minilm_folder()), "max_length": 128},
            "mlflow": {"enabled": False},
        },
        "compare": {"model.pooling_strategy": {"grid": ["mean", "max", "cls", "attention"]}},
        "tune": {
            "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
            "model.dropout": {"uniform": [0.0, 0.5]},
            "model.head": {"choice": ["linear", "mlp"]},
            "data.negative_ratio": {"choice": [1, 2, 3]},
            "training.weight_decay": {"loguniform": [1e-4, 1e-1]},
            "training.batch_size": {"choice": [16, 32, 64]},
            "training.label_smoothing": {"uniform": [0.0, 0.2]},
        },
        "search": {"algorithm": "random", "num_trials": place.size(250, 15)},
        "storage": str(place.work / "storage"),
    }
    return SweepSpec.from_mapping(tree, source="thousand.yaml")


def _skill(settings: Any) -> float:
    return (
        0.4 + {"mean": 0.2, "max": 0.1}.get(settings["model.pooling_strategy"], 0.0) - 0.3 * settings["model.dropout"]
    )


def report(storage: str, sweep_id: str) -> None:
    """In a process of its own: journals in, report out."""
    began = time.perf_counter()
    from gemma_nli.analysis.from_journals import gather
    from gemma_nli.analysis.report.write import write_report
    from gemma_nli.corpus.pairs import build_pairs
    from gemma_nli.corpus.redsm5 import load_corpus
    from gemma_nli.spec.spec import load_sweep
    from gemma_nli.sweep.records.sweep_folder import SweepFolder

    folder = Path(storage) / "sweeps" / sweep_id
    spec = load_sweep(folder / "spec.yaml")
    corpus = load_corpus(spec.base.data.data_dir)
    pairs = build_pairs(corpus, spec.base.data)
    imported = time.perf_counter()
    evidence = gather(spec, corpus, pairs, Path(storage), SweepFolder(folder).cells(), sweep_id)
    gathered = time.perf_counter()
    out = Path(storage).parent / "report"
    written = write_report(evidence, out)
    facts: dict[str, Any] = {
        "pairs": len(evidence.rows_N),
        "import_seconds": imported - began,
        "gather_seconds": gathered - imported,
        "report_seconds": time.perf_counter() - gathered,
        "html_bytes": os.path.getsize(written.html),
        "answer": written.findings.answer.first,
    }
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts |= {"peak_gib": used.ru_maxrss / 2**20, "own_cpu_seconds": used.ru_utime + used.ru_stime}
    print(json.dumps(facts))
