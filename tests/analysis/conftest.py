"""A simulated sweep (real files and journals, no training) whose truth is known, and its report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulated_sweep import Skill, simulate_sweep
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.from_journals import gather
from gemma_nli.analysis.report.write import Report, write_report
from gemma_nli.config import DataConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus, write_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.records.sweep_folder import SweepFolder

HOSTILE = "<script>alert('q')</script> & \"quotes\" | `bars`"


def tree_of(folder: Path, corpus: Path, encoder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "simulated",
        "question": f"Does pooling matter? {HOSTILE}",
        "base": {
            "data": {"data_dir": str(corpus), "num_folds": 4},
            "model": {"name": str(encoder), "max_length": 24},
            "mlflow": {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"},
        },
        "compare": {"model.pooling_strategy": {"grid": ["mean", "cls", "max"]}},
        "tune": {
            "training.learning_rate": {"grid": ["1e-4", "1e-3", "1e-2"]},
            "model.dropout": {"grid": [0.0, 0.1]},
        },
        "storage": str(folder / "storage"),
        **changes,
    }


def skill_of(settings: Any) -> float:
    """Mean is a good deal better than the others, which are equal; a higher rate is better; dropout does nothing."""
    better = {"mean": 0.55, "cls": 0.0, "max": 0.0}[settings["model.pooling_strategy"]]
    return 0.45 + better + {1e-4: 0.0, 1e-3: 0.1, 1e-2: 0.2}[settings["training.learning_rate"]]


def evidence_of(spec: SweepSpec, sweep_id: str) -> Evidence:
    corpus = load_corpus(spec.base.data.data_dir)
    storage = Path(spec.storage)
    cells = SweepFolder(storage / "sweeps" / sweep_id).cells()
    return gather(spec, corpus, build_pairs(corpus, spec.base.data), storage, cells, sweep_id)


def evidence_over(
    folder: Path, corpus: Path, encoder: Path, space: Mapping[str, Any], skill: Skill, **changes: Any
) -> Evidence:
    """Of a simulated sweep over a space, with nothing named as compared."""
    tree = tree_of(folder, corpus, encoder, question="How good is it?", space=dict(space), **changes)
    del tree["compare"], tree["tune"]
    spec = SweepSpec.from_mapping(tree, source="space.yaml")
    return evidence_of(spec, simulate_sweep(spec, skill))


@pytest.fixture(scope="session")
def analysis_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analysis_corpus")
    corpus = synthetic_corpus(num_posts=200, seed=5)
    own = "Nothing of what the other one tells ever happened to me, I only came here to say good night to you all."
    copies = [name for place, name in enumerate(corpus.posts) if corpus.group_P[place] != place]
    posts = {name: f"{text} {own}" if name in copies else text for name, text in corpus.posts.items()}
    write_corpus(dataclasses.replace(corpus, posts=posts), folder)  # two posts had the sentences of two others
    assert build_pairs(load_corpus(folder), DataConfig()).copies == (0, 0)
    return folder


@pytest.fixture(scope="session")
def simulated(
    tmp_path_factory: pytest.TempPathFactory, analysis_corpus: Path, tiny_bert: Path
) -> tuple[SweepSpec, Evidence]:
    """18 trials over three compared poolings."""
    folder = tmp_path_factory.mktemp("simulated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        spec = SweepSpec.from_mapping(tree_of(folder, analysis_corpus, tiny_bert), source="simulated.yaml")
        return spec, evidence_of(spec, simulate_sweep(spec, skill_of))


@pytest.fixture(scope="session")
def simulated_report(simulated: tuple[SweepSpec, Evidence], tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report(simulated[1], tmp_path_factory.mktemp("report"))
