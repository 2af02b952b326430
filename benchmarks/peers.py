"""The tool many would use: scikit-learn's GridSearchCV of a logistic regression over the same cached vectors.

Both search 36 cells with the same five folds over the same mean-pooled MiniLM vectors (ratio 1: about 2,600 pairs),
on all CPUs. scikit-learn: 12 values of C x 3 settings of class weight and intercept, `n_jobs` = CPUs, its clock around
`fit` without the refit. Ours: 12 rates x 3 decays, 20 epochs, measured as in `growth`: from the first trial's start
until the last one's numbers are in MLflow. They do not do the same work: scikit-learn solves a convex problem with
lbfgs and keeps 5 scores a cell; ours runs minibatch AdamW with dropout and keeps every epoch's metrics, thresholds,
out-of-fold probabilities, weights and an MLflow run a cell, and chooses its epoch and threshold on an inner split. So
the ratio says what all that costs, not which optimizer is faster. F1s are mean F1 over folds of the best cell of each
grid, which flatters both alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import Workplace, spend
from gemma_nli.config import FeaturesConfig, RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.training.frozen.head_inputs import feature_request


def run(place: Workplace) -> Outcome:
    many = place.size(12, 2)
    space = {
        "training.learning_rate": {"grid": np.geomspace(3e-4, 3e-2, many).tolist()},
        "training.weight_decay": {"grid": [0.0, 0.01, 0.1]},
    }
    training = {"training": {"num_epochs": 20, "batch_size": 64}}
    one = {"training.seed": {"grid": [42]}}
    place.run_sweep(place.sweep("warm_up", {**training, "mlflow": {"enabled": False}}, one))
    file = place.sweep("ours", training, space)
    place.share_features("warm_up", "ours")
    spent = place.run_sweep(file)
    ours, result = spent.answer, spent.answer["result"]
    best = result["best"]["metrics"]
    store = place.work / "ours" / "storage" / "features"
    peer = spend([sys.executable, "-m", "benchmarks.peers", str(place.data), str(store), str(many)]).answer
    return Outcome(
        [
            Mark("our seconds over GridSearchCV's", ours["warm_seconds"] / peer["seconds"]),
            Mark(f"GridSearchCV: seconds, {3 * many} cells", peer["seconds"], unit="s"),
            Mark(f"ours: seconds, {ours['trials']} cells", ours["warm_seconds"], unit="s"),
            Mark("GridSearchCV: best cell's mean F1", peer["f1"]),
            Mark("ours: best cell's mean F1 (inner epoch, threshold)", best["cv_aggregate/mean_f1"]),
        ],
        {
            "grid_search": peer,
            "ours": {name: value for name, value in ours.items() if name != "result"},
            "ours_command_seconds": spent.seconds,
            "ours_best": result["best"]["params"],
        },
    )


def grid_search(data: Path, store: Path, many: int) -> dict[str, Any]:
    """In a process of its own: joblib's workers do not mix with a parent that collects its orphans."""
    config = RunConfig().with_settings(
        {"data.data_dir": str(data), "model.name": str(minilm_folder()), "model.max_length": 128}
    )
    corpus = load_corpus(data)
    pairs = build_pairs(corpus, config.data)
    rows = pairs.rows_used(1.0)
    request = feature_request(config, corpus, pairs, rows)
    block = FeatureStore(store, FeaturesConfig()).load(request)
    vectors = block.views["mean"][block.rows_of(request.digests)]
    labels = pairs.label_N[rows]
    at = {int(row): place for place, row in enumerate(rows)}
    folds = [
        ([at[int(r)] for r in pairs.training_rows(fold, 1.0)], [at[int(r)] for r in pairs.evaluation_rows(fold)])
        for fold in range(1, pairs.num_folds + 1)
    ]
    values = np.geomspace(1e-2, 1e3, many).tolist()
    grid = [{"C": values, "class_weight": [None, "balanced"]}, {"C": values, "fit_intercept": [False]}]
    search = GridSearchCV(
        LogisticRegression(max_iter=1000), grid, scoring="f1", cv=folds, n_jobs=os.cpu_count(), refit=False
    )
    began = time.perf_counter()
    search.fit(vectors, labels)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "f1": float(search.best_score_), "best": search.best_params_}


if __name__ == "__main__":
    print(json.dumps(grid_search(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
