"""Where Ray Tune gets its trials: a fixed list of cells, or an Optuna study driven by our own code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from gemma_nli.search.studies_per_value import StudyPerVariant
from gemma_nli.search.study import Proposal, SweepStudy


class CellSearcher(Searcher):
    """Gives Ray a fixed list of trial configs, one after the other, each a small JSON mapping.

    `limit` is what `TuneConfig(num_samples=...)` wants.
    """

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.configs = [dict(config) for config in configs]
        self.given = 0
        self.limit = len(self.configs)

    def stop(self) -> None:
        """Start nothing more; running trials may finish."""
        self.given = self.limit

    def close(self) -> None:
        """After the sweep: a fixed list leaves nothing behind."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self.given >= self.limit:
            return str(Searcher.FINISHED)
        self.given += 1
        return self.configs[self.given - 1]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A fixed list learns nothing from results."""

    def save(self, checkpoint_path: str) -> None:
        """State as JSON: Ray's own searchers pickle theirs."""
        Path(checkpoint_path).write_text(json.dumps({"given": self.given}), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        self.given = int(json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))["given"])


class StudySearcher(Searcher):
    """Asks an Optuna study for configurations and reports how their trials ended.

    Ray's OptunaSearch reports a trial that a scheduler stopped as COMPLETE with its early value, and leaves one with a
    NaN result RUNNING. `limit` is what `TuneConfig(num_samples=...)` wants: -1, as the study decides when it has
    enough.
    """

    def __init__(
        self,
        study: SweepStudy | StudyPerVariant,
        num_folds: int,
        config_of: Callable[[Proposal], dict[str, Any]] = lambda proposal: {"settings": proposal.settings},
        stopped: Callable[[str], str | None] = lambda key: None,
    ) -> None:
        """
        Args:
            config_of: the small JSON mapping that Ray hands to a trial, as in {"key": ..., "settings": ...}.
            stopped: why a scheduler stopped the trial of that key, or None; an early end without a reason is a failure,
                and runs again when the sweep does.
        """
        super().__init__()
        self.study, self.num_folds, self.config_of, self.stopped = study, num_folds, config_of, stopped
        self.given: dict[str, tuple[int, str]] = {}
        self.limit = -1
        self.stopping = False

    def stop(self) -> None:
        """Start nothing more; running trials may finish."""
        self.stopping = True

    def close(self) -> None:
        """After the sweep: interrupted trials are reported as failed, and run again when the sweep does."""
        self.given.clear()
        self.study.close()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its Tuner, searchers included, and never reads ours back: no password goes into that file."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        proposal = None if self.stopping else self.study.propose()
        if proposal is None:
            return None if self.given else str(Searcher.FINISHED)
        config = self.config_of(proposal)
        self.given[trial_id] = (proposal.number, str(config.get("key", trial_id)))
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self.given:
            self._report(self.given[trial_id][0], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number, key = self.given.pop(trial_id, (None, ""))
        if number is None:
            return
        if error or result is None or result.get("failed"):
            self.study.fail(number, "failed" if result or error else "never started")
            return
        self._report(number, result)  # Ray does not pass on the result at which a scheduler stops a trial
        reason = self.stopped(key)
        if int(result.get("folds_done", 0)) >= self.num_folds:
            self.study.finish(number, metrics_of(result))
        elif reason is not None:
            self.study.prune(number, reason)
        else:
            self.study.fail(number, "cut off")

    def _report(self, number: int, result: Mapping[str, Any]) -> None:
        if result.get("folds_done") and not result.get("failed"):
            self.study.report(number, int(result["folds_done"]), float(result["mean_f1"]))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's database is the state."""
        Path(checkpoint_path).write_text("{}", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's database is the state."""


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in a Ray result: the pairs under `aggregates`."""
    found = dict(result.get("aggregates") or ())
    return {key: float(value) for key, value in found.items() if isinstance(value, (int, float))}
