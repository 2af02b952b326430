"""One study a compared value: dealt out in turn, each with its budget, and the same start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gemma_nli.search.studies_per_value import StudyPerVariant
from gemma_nli.search.study import SweepStudy
from gemma_nli.spec.spec import SweepSpec

METRIC = "cv_aggregate/mean_f1"


def studies_of(folder: Path, num_trials: int = 6) -> StudyPerVariant:
    spec = SweepSpec.from_mapping(
        {
            "name": "arms",
            "compare": {"model.pooling_strategy": {"grid": ["mean", "cls"]}},
            "tune": {"training.learning_rate": {"loguniform": [1e-4, 1e-1]}, "model.dropout": {"uniform": [0.0, 0.5]}},
            "search": {"algorithm": "optuna", "num_trials": num_trials, "seed": 3},
        },
        source="arms.yaml",
    )
    url = f"sqlite:///{folder / 'optuna.db'}"
    return StudyPerVariant([(fixed, SweepStudy(variant, f"arms {fixed}", url)) for fixed, variant in spec.variants()])


def test_each_compared_value_gets_the_same_budget_and_start(tmp_path: Path) -> None:
    studies = studies_of(tmp_path)
    asked: dict[str, list[dict[str, Any]]] = {"mean": [], "cls": []}
    while (proposal := studies.propose()) is not None:
        assert proposal.config.model.pooling_strategy == proposal.settings["model.pooling_strategy"]
        asked[proposal.settings["model.pooling_strategy"]].append(proposal.settings)
        assert abs(len(asked["mean"]) - len(asked["cls"])) <= 1
        studies.finish(proposal.number, {METRIC: 0.5 + proposal.settings["model.dropout"]})
    assert len(asked["mean"]) == len(asked["cls"]) == 6
    assert studies.counted == 12
    starts = [{k: v for k, v in asked[name][0].items() if k != "model.pooling_strategy"} for name in asked]
    assert starts[0] == starts[1]


def test_what_failed_in_one_arm_runs_again_in_that_arm(tmp_path: Path) -> None:
    studies = studies_of(tmp_path, num_trials=2)
    first = studies.propose()
    assert first is not None
    studies.fail(first.number, "cut off")
    studies.close()
    again = studies_of(tmp_path, num_trials=2)
    seen = []
    while (proposal := again.propose()) is not None:
        seen.append(proposal.settings)
        again.finish(proposal.number, {METRIC: 0.5})
    assert first.settings in seen
    assert len(seen) == 4
