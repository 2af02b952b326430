"""A trial that only sleeps, in the place of CvTrial: what is left is Ray and our driver. Imports nothing heavy."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

from ray import tune

SPANS = "GEMMA_NLI_BENCH_SPANS"
SHORTEST, LONGEST = "GEMMA_NLI_BENCH_SHORTEST", "GEMMA_NLI_BENCH_LONGEST"


class SleepingTrial(tune.Trainable):
    """Sleeps for seconds drawn from its key and notes when it began and ended; reports what CvTrial would."""

    def setup(self, config: dict[str, Any], context: None) -> None:
        self.file = Path(os.environ[SPANS]) / f"{os.getpid()}-{random.randrange(10**9)}"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        began = time.time()
        draw = random.Random(self.config["key"])
        time.sleep(draw.uniform(float(os.environ[SHORTEST]), float(os.environ[LONGEST])))
        with self.file.open("a") as file:
            file.write(f"{began} {time.time()}\n")
        f1 = draw.random()
        facts = {"folds_done": 1, "num_folds": 1, "mean_f1": f1, "objective": f1, "failed": False, "done": True}
        return {**facts, "aggregates": (("cv_aggregate/mean_f1", f1),)}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing was saved."""
