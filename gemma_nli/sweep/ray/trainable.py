"""A trial as Ray sees it: one cross-validation, one step per fold (or one step for all folds that train together).

The trial's journal is its only memory: a trial that starts again, here or on another node, finds its finished folds
there. Ray's own checkpoints are not used.
"""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from typing import Any

import torch
from ray import tune

from gemma_nli.base.errors import GemmaNliError
from gemma_nli.base.metrics import MEAN_F1
from gemma_nli.features import FeatureStore
from gemma_nli.sweep.ray.shared_features import SharedFeatures, TrialContext
from gemma_nli.sweep.ray.worker_gate import guard_worker
from gemma_nli.training.cross_validation import RunFolds, run_folds
from gemma_nli.training.frozen.seeds_together import SeedsTogether
from gemma_nli.training.results import CvResult
from gemma_nli.trial import TrialJournal
from gemma_nli.trial.trial_run import TrialRun

log = logging.getLogger(__name__)


class CvTrial(tune.Trainable):
    """Runs the cell named in its config: `{"key": trial key, "settings": dotted settings}`.

    `beside`, where it is given, are cells that differ in their training seed alone: all train in one computation, and
    each has its own journal. What Ray is shown is the first one.
    """

    def setup(self, config: dict[str, Any], context: TrialContext) -> None:
        self.context = context
        guard_worker(context.corpus, context.base.data.log_text)
        torch.set_num_threads(max(1, int(context.cpus)))
        self.features = SharedFeatures(
            context.blocks, FeatureStore(context.storage / "features", context.base.features)
        )
        self.held = ExitStack()
        self.trial: TrialRun | None = None
        self.run_folds: RunFolds = run_folds  # `train` is the name of Tune's own method

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial without a new process: encoders, features and imports stay warm."""
        self.held.close()
        self.trial = None
        return True

    def step(self) -> dict[str, Any]:
        try:
            return self._step()
        except GemmaNliError as error:  # Ray would try the same mistake again: for Ray the trial is done
            shown = self.trial.error if self.trial is not None else None
            return self._failed(shown or str(error))
        finally:
            if self.trial is not None and self.trial.over:
                self.held.close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing but the trial's key: what was done is in the journal."""
        return {"key": self.config["key"]}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load: the next step reads the journal."""

    def cleanup(self) -> None:
        self.held.close()

    def _step(self) -> dict[str, Any]:
        context = self.context
        if self.trial is None:
            if context.stopping is not None and context.stopping.exists():
                return self._report(CvResult([], {}, {}), done=True)
            self.run_folds = self._together()
            self.trial = self.held.enter_context(self._run(self.config))
            record = self.trial.begin()
            if record is not None:  # another sweep has just finished it
                return self._report(CvResult(list(record.folds.values()), record.aggregates, record.criteria), True)
        result = self.trial.step()
        if self.trial.over:
            self._run_beside()
        return self._failed(self.trial.error) if self.trial.error else self._report(result, self.trial.over)

    def _together(self) -> RunFolds:
        cells = [self.config, *self.config.get("beside", ())]
        if len(cells) == 1:
            return run_folds
        return SeedsTogether([self.context.base.with_settings(cell["settings"]) for cell in cells]).run_folds

    def _run(self, cell: dict[str, Any]) -> TrialRun:
        context = self.context
        config = context.base.with_settings(cell["settings"])
        journal = TrialJournal(context.storage, cell["key"])
        return TrialRun(
            journal, config, context.corpus, context.pairs, self.features, context.tags, train=self.run_folds
        )

    def _run_beside(self) -> None:
        """The other seeds; one that fails has its reason in its journal, as the first has."""
        for cell in self.config.get("beside", ()):
            with self._run(cell) as trial:
                try:
                    record = trial.begin()
                    while record is None and not trial.over:
                        trial.step()
                except GemmaNliError as error:
                    log.warning("trial %s failed: %s", cell["key"][:8], trial.error or error)

    def _report(self, result: CvResult, done: bool) -> dict[str, Any]:
        """What is reported to Ray. `aggregates` are pairs: Tune keeps six running statistics of every number it
        finds.
        """
        return {
            "folds_done": len(result.folds),
            "num_folds": self.context.pairs.num_folds,
            "mean_f1": result.aggregates.get(MEAN_F1, math.nan),
            "objective": result.aggregates.get(self.context.objective, math.nan),
            "aggregates": tuple(result.aggregates.items()),
            "failed": False,
            "done": done,
        }

    def _failed(self, error: str) -> dict[str, Any]:
        return {
            "error": error,
            "folds_done": 0,
            "mean_f1": math.nan,
            "objective": math.nan,
            "aggregates": (),
            "failed": True,
            "done": True,
        }
