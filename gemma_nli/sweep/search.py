"""Where Ray Tune gets its trials: a fixed list of cells, or an Optuna study asked and told by our own code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher


class CellSearcher(Searcher):
    """Gives Ray a fixed list of trial configs, one after the other, each a small JSON mapping.

    With `TuneConfig(num_samples=-1)` the sweep ends after the last one.
    """

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.configs = [dict(config) for config in configs]
        self.given = 0
        self.trial_of: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self.given >= len(self.configs):
            return str(Searcher.FINISHED)
        self.trial_of[trial_id] = self.given
        self.given += 1
        return self.configs[self.trial_of[trial_id]]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A fixed list learns nothing from results."""

    def save(self, checkpoint_path: str) -> None:
        """State as JSON: Ray's own searchers pickle theirs."""
        Path(checkpoint_path).write_text(json.dumps({"given": self.given}), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        self.given = int(json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))["given"])
