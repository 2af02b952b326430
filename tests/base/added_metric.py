"""What a copy of the package with one more metric does; run by test_added_metric.py, a job per line of its answer.

Usage: python added_metric.py FACTS.json, which names the folders and journals of the package without the metric.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemma_nli
from benchmarks.simulated_sweep import simulate_sweep
from gemma_nli import best_trial
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.findings import find
from gemma_nli.analysis.from_journals import gather
from gemma_nli.analysis.report.report_tables import leaderboard_table
from gemma_nli.base.errors import ReportError, TrackingError
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.local.train import run_here
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.training.results import summarize
from gemma_nli.trial import read_trials

MEAN = "cv_aggregate/mean_specificity"


def evidence_of(tree: dict[str, Any], sweep_id: str) -> Evidence:
    spec = SweepSpec.from_mapping(tree)
    corpus, storage = load_corpus(spec.base.data.data_dir), Path(spec.storage)
    cells = SweepFolder(storage / "sweeps" / sweep_id).cells()
    return gather(spec, corpus, build_pairs(corpus, spec.base.data), storage, cells, sweep_id)


def new_sweep(facts: dict[str, Any]) -> dict[str, Any]:
    """A sweep that is decided by the metric."""
    tree = {**facts["tree"], "metric": MEAN, "storage": facts["new_storage"]}
    sweep_id = simulate_sweep(SweepSpec.from_mapping(tree), lambda settings: settings["training.learning_rate"] * 100)
    evidence = evidence_of(tree, sweep_id)
    findings = find(evidence)
    own = findings.answer.contrasts[0].tuned
    return {
        "name": findings.metric_name,
        "header": leaderboard_table(findings).header,
        "scores": evidence.scores().tolist(),
        "journals": [trial.metrics[MEAN] for trial in evidence.complete],
        "honest": [findings.honest.low, findings.honest.value, findings.honest.high],
        "contrast": [own.low, own.value, own.high],
        "baselines": {each.name: each.score for each in findings.baselines},
        "slices": [item.scores.get("specificity") for item in findings.mistakes.criteria],
    }


def old_sweep(facts: dict[str, Any]) -> dict[str, Any]:
    """One whose journals were written before the metric was there."""
    spec = SweepSpec.from_mapping(facts["tree"])
    findings = find(evidence_of(facts["tree"], facts["sweep_id"]))
    keys = SweepFolder(Path(spec.storage) / "sweeps" / facts["sweep_id"]).cells()
    pairs = build_pairs(load_corpus(spec.base.data.data_dir), spec.base.data)
    records = read_trials(Path(spec.storage), keys)
    again = {key: summarize(list(record.folds.values()), pairs) for key, record in records.items()}
    return {
        "winner": findings.winner_key,
        "honest": findings.honest.value,
        "same": all(again[key].aggregates == record.aggregates for key, record in records.items()),
        "has_it": [key for key in again if MEAN in again[key].metrics()],
    }


def old_sweep_by_it(facts: dict[str, Any]) -> dict[str, Any]:
    """The same journals, asked by a metric that they lack; then with one trial that has it."""
    tree = {**facts["tree"], "metric": MEAN}
    try:
        evidence_of(tree, facts["sweep_id"])
        refused = ""
    except ReportError as error:
        refused = str(error)
    wider = {**tree, "space": {**tree["space"], "model.dropout": {"grid": [0.2, 0.3]}}}
    sweep_id = simulate_sweep(SweepSpec.from_mapping(wider), lambda settings: 0.5)
    folder = Path(tree["storage"]) / "sweeps" / sweep_id
    SweepFolder(folder).add_cells(SweepFolder(folder.parent / facts["sweep_id"]).cells())
    findings = find(evidence_of(wider, sweep_id))
    return {
        "refused": refused,
        "ranked": len(findings.evidence.complete),
        "notes": [row.note for row in findings.rows if row.rank is None],
        "warnings": list(findings.warnings),
    }


def train(facts: dict[str, Any]) -> dict[str, Any]:
    """A single run, found again by the metric in a store that holds a run without it."""
    config = SweepSpec.from_mapping(facts["tree"]).base
    experiment = config.experiment
    try:
        best_trial(experiment, MEAN)
        refused = ""
    except TrackingError as error:
        refused = str(error)
    again = config.with_settings({"training.seed": 7, "mlflow.enabled": True})
    result = run_here(again).result
    best = best_trial(experiment, MEAN)
    return {
        "refused": refused,
        "best": best.value,
        "trained": result.aggregates[MEAN],
        "fold": [name for name in best.metrics if name.endswith("specificity") and name.startswith("fold_1/")],
        "notes": best.notes,
    }


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text())
    jobs: list[Callable[[dict[str, Any]], dict[str, Any]]] = [new_sweep, old_sweep, old_sweep_by_it, train]
    told: dict[str, Any] = {"package": gemma_nli.__file__, **{job.__name__: job(facts) for job in jobs}}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
