"""A sweep written in Python: the same checks and the same engine as a sweep file.

python sweeps/api_example.py data.data_dir=data/redsm5 search.num_trials=30
"""

from __future__ import annotations

import sys

from gemma_nli import SweepSpec, run_sweep

SWEEP = {
    "name": "api_example",
    "question": "Is a small mlp head worth its parameters on a frozen encoder?",
    "base": {
        "data": {"data_dir": "data/redsm5"},
        "model": {"name": "google/gemma-2-2b", "max_length": 256},
        "training": {"num_epochs": 20, "batch_size": 64},
        "output": {"experiment_name": "redsm5_api_example"},
    },
    "space": {
        "model.head": {"choice": ["linear", "mlp"]},
        "model.head_hidden": {"choice": [32, 128, 512], "when": {"model.head": "mlp"}},
        "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
    },
    "search": {"algorithm": "random", "num_trials": 20, "seed": 7},
}


def build(overrides: list[str]) -> SweepSpec:
    return SweepSpec.from_mapping(SWEEP, source="api_example", overrides=overrides)


if __name__ == "__main__":
    run_sweep(build(sys.argv[1:]))
