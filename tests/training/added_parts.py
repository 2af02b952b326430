"""What a copy of the package with one more pooling, head, loss and rule does; run by test_added_parts.py.

Usage: python added_parts.py FACTS.json, which names a folder to write in and an encoder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

import gemma_nli
from gemma_nli.base.errors import SpecError
from gemma_nli.config import DataConfig, RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.model.pooling import POOLERS
from gemma_nli.spec.every_setting import find_settings
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.ray.scheduler import build_scheduler
from gemma_nli.trial.record import trial_key
from tests.model.test_bundle import CRITERIA, POSTS, make, save
from tests.training.frozen_setup import FrozenSetup
from tests.training.small_trials import run_fold, trial

POOLING, KS = "middle_k", (1, 4, 8)


def meaning(setting: str) -> str:
    (found,) = find_settings(setting)
    return f"{found.kind}; {found.meaning}"


def refusal(tree: dict[str, Any]) -> str:
    try:
        SweepSpec.from_mapping(tree)
    except SpecError as error:
        return str(error)
    return ""


def settings(facts: dict[str, Any]) -> dict[str, Any]:
    """The configuration, spaces, trial keys and the list of settings."""
    by_k = [RunConfig().with_settings({"model.pooling_strategy": POOLING, "model.pooling_k": k}) for k in KS]
    space = {"model.pooling_strategy": {"grid": ["mean", POOLING]}, "model.pooling_k": {"grid": list(KS)}}
    cells = SweepSpec.from_mapping({"name": "t", "space": space}).cells()
    return {
        "keys": [trial_key(config, "folds", "encoder") for config in by_k],
        "cells": [cell.config.model.pooling_strategy for cell in cells],
        "listed": [meaning("model.pooling_strategy"), meaning("model.pooling_k")],
        "refused": refusal({"name": "t", "space": {"model.pooling_strategy": {"grid": ["mean", "midle_k"]}}}),
    }


def frozen(facts: dict[str, Any]) -> dict[str, Any]:
    """One fold of a head on cached vectors: for each k, and with the other parts."""
    setup = FrozenSetup.make(Path(facts["folder"]), Path(facts["encoder"]), synthetic_corpus(30, seed=3))
    trained = [setup.train([1], model__pooling_strategy=POOLING, model__pooling_k=k)[0] for k in KS]
    other = {"mean": {}, "normed": {"model__head": "normed"}, "brier": {"training__loss": "brier"}}
    others = {name: setup.train([1], **chosen)[0] for name, chosen in other.items()}
    return {
        "loss": [fold.history["val_loss"][-1] for fold in trained],
        "finite": [bool(np.isfinite(fold.probabilities).all()) for fold in [*trained, *others.values()]],
        **{f"{name}_loss": fold.history["val_loss"][-1] for name, fold in others.items()},
    }


def fine_tuned(facts: dict[str, Any]) -> dict[str, Any]:
    """One fold whose encoder is trained."""
    encoder = Path(facts["encoder"])
    chosen = {"model.pooling_strategy": POOLING, "training.num_epochs": 1}
    folds = [run_fold(trial(encoder, **chosen, **{"model.pooling_k": k})) for k in (1, 4)]
    return {"status": [fold.status for fold in folds], "loss": [fold.history["train_loss"][-1] for fold in folds]}


def bundle(facts: dict[str, Any]) -> dict[str, Any]:
    """Saved, loaded and at work."""
    config, classifier = make(Path(facts["encoder"]), pooling_strategy=POOLING, pooling_k=3)
    with torch.no_grad():
        logits = classifier.predict(POSTS, CRITERIA)
    scorer = PairScorer.from_bundle(save(Path(facts["folder"]) / "bundle", config, classifier))
    scores = scorer.score(pd.DataFrame({"premise": POSTS, "hypothesis": CRITERIA}))
    pooler = scorer.bundle.classifier.pooler
    return {
        "pooling": [type(pooler) is POOLERS[POOLING], pooler.k],
        "difference": float(np.abs(scores["probability"] - 1 / (1 + np.exp(-logits.astype(np.float64)))).max()),
    }


def rule(facts: dict[str, Any]) -> dict[str, Any]:
    """A stream of ended folds, judged by the new rule and by the median's through Ray's scheduler."""
    pairs = build_pairs(synthetic_corpus(num_posts=30, seed=3), DataConfig())
    tree = {"name": "t", "space": {"model.head": {"grid": ["linear", "mlp"]}}}
    ends: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for kind in ("behind_best", "median"):
        asked = {"kind": kind, "keep_last": 1, "min_trials": 3}
        scheduler = build_scheduler(
            SweepSpec.from_mapping({**tree, "scheduler": asked}), Path(facts["folder"]) / kind, pairs
        )
        assert scheduler is not None
        stream = [(key, done, mean) for key, mean in (("a", 0.9), ("b", 0.5), ("c", 0.5)) for done in range(1, 6)]
        for key, done, mean in [*stream, ("late", 1, 0.7)]:
            reported = {"folds_done": done, "mean_f1": mean, "failed": False}
            last = scheduler.on_trial_result(None, SimpleNamespace(config={"key": key}), reported)  # type: ignore[arg-type]
        ends[kind] = [last, *scheduler.stopped]
        reasons[kind] = scheduler.stopped["late"].reason if "late" in scheduler.stopped else ""
    return {
        "ends": ends,
        "reason": reasons["behind_best"],
        "listed": [meaning("scheduler.kind"), meaning("scheduler.min_trials")],
        "refused": refusal({**tree, "scheduler": {"kind": "behind_bst"}}),
    }


def main() -> None:
    torch.set_num_threads(1)
    facts = json.loads(Path(sys.argv[1]).read_text())
    jobs = (settings, frozen, fine_tuned, bundle, rule)
    print(json.dumps({"package": gemma_nli.__file__, **{job.__name__: job(facts) for job in jobs}}))


if __name__ == "__main__":
    main()
