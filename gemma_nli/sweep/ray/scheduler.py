"""The Ray side of stopping trials early: a rule decides after each fold; what it stops is remembered, with the
reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from gemma_nli.corpus.pairs import PairTable
from gemma_nli.search.racing import Decision, RaceTable
from gemma_nli.search.rules import Halving, Median
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place
from gemma_nli.training.results import FoldResult
from gemma_nli.trial import TrialJournal, TrialRecord


class FoldScheduler(FIFOScheduler):
    """Trials in the order they come; after each fold the rule decides whether a trial continues.

    A trial is known by its config's `key`, so one that starts again, on another node or in another run of the command,
    is the same trial. Results have `folds_done` and `mean_f1`.
    """

    def __init__(self, rule: RaceTable | Halving | Median, num_folds: int, storage: Place, pairs: PairTable) -> None:
        super().__init__()
        self.rule, self.num_folds, self.storage, self.pairs = rule, num_folds, storage, pairs
        self.stopped: dict[str, Decision] = {}
        self.folds_stopped_at: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its Tuner, schedulers included, and never reads ours back: no table goes into that file."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        key, done = trial.config["key"], int(result.get("folds_done", 0))
        if not done or result.get("failed"):
            return str(TrialScheduler.CONTINUE)
        self._take(key, done, float(result["mean_f1"]))
        decision = self.rule.decide(key)
        if not decision.stop or done >= self.num_folds:
            return str(TrialScheduler.CONTINUE)
        self.stopped[key], self.folds_stopped_at[key] = decision, done
        return str(TrialScheduler.STOP)

    def remember(self, record: TrialRecord) -> None:
        """Give the rule a trial of an earlier run, finished or stopped, so that it leads or counts from the start."""
        running: list[float] = []
        for number in range(1, self.num_folds + 1):
            fold = record.folds.get(number)
            if fold is None or "f1" not in fold.metrics:
                return
            running.append(fold.metrics["f1"])
            if isinstance(self.rule, RaceTable):
                self._record(record.key, fold)
            else:
                self.rule.record_mean(record.key, number, float(np.mean(running)))

    def _take(self, key: str, done: int, mean_f1: float) -> None:
        if not isinstance(self.rule, RaceTable):
            self.rule.record_mean(key, done, mean_f1)
            return
        record = TrialJournal(self.storage, key).read()
        for fold in record.folds.values() if record is not None else ():
            if "f1" in fold.metrics:
                self._record(key, fold)

    def _record(self, key: str, fold: FoldResult) -> None:
        assert isinstance(self.rule, RaceTable)
        posts = self.pairs.group_N[fold.rows]
        self.rule.record(key, fold.fold, fold.rows, fold.probabilities, fold.labels, posts, fold.threshold)


def build_scheduler(
    spec: SweepSpec, storage: Place, pairs: PairTable, records: Iterable[TrialRecord] = ()
) -> FoldScheduler | None:
    """The scheduler that `spec.scheduler` asks for; None if every trial runs all its folds.

    Args:
        records: trials of earlier runs of this sweep, so that a resumed race has its leader at once.
    """
    asked, num_folds = spec.scheduler, spec.base.data.num_folds
    rule: RaceTable | Halving | Median
    if asked.kind == "none":
        return None
    if asked.kind == "fold_racing":
        rule = RaceTable(num_folds, asked.level, asked.keep_last, asked.grace_folds, seed=spec.search.seed)
    elif asked.kind == "asha":
        rule = Halving(num_folds, asked.grace_folds, asked.keep_last, asked.reduction)
    else:
        rule = Median(num_folds, asked.grace_folds, asked.keep_last, asked.min_trials)
    scheduler = FoldScheduler(rule, num_folds, storage, pairs)
    for record in records:
        scheduler.remember(record)
    return scheduler
