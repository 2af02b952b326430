"""The Ray side of stopping trials early: a rule decides after each fold; what it stops is remembered, with the
reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from gemma_nli.corpus.pairs import PairTable
from gemma_nli.search.rules import Decision, EndedFold, StoppingRule, build_rule
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place
from gemma_nli.training.results import FoldResult
from gemma_nli.trial import TrialJournal, TrialRecord


class FoldScheduler(FIFOScheduler):
    """Trials in the order they come; after each fold the rule decides whether a trial continues.

    A trial is known by its config's `key`, so one that starts again, on another node or in another run of the command,
    is the same trial. Results have `folds_done` and `mean_f1`.
    """

    def __init__(self, rule: StoppingRule, num_folds: int, storage: Place, pairs: PairTable) -> None:
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
        self.rule.fold_ended(key, done, float(result["mean_f1"]), partial(self._read_folds, key))
        decision = self.rule.decide(key)
        if not decision.stop or done >= self.num_folds:
            return str(TrialScheduler.CONTINUE)
        self.stopped[key], self.folds_stopped_at[key] = decision, done
        return str(TrialScheduler.STOP)

    def remember(self, record: TrialRecord) -> None:
        """Give the rule a trial of an earlier run, finished or stopped, so that it leads or counts from the start."""
        ended: list[FoldResult] = []
        for number in range(1, self.num_folds + 1):
            fold = record.folds.get(number)
            if fold is None or "f1" not in fold.metrics:
                return
            ended.append(fold)
            mean_f1 = float(np.mean([each.metrics["f1"] for each in ended]))
            self.rule.fold_ended(record.key, number, mean_f1, partial(self._as_rules_see, ended))

    def _read_folds(self, key: str) -> Iterator[EndedFold]:
        record = TrialJournal(self.storage, key).read()
        return self._as_rules_see(record.folds.values() if record is not None else ())

    def _as_rules_see(self, folds: Iterable[FoldResult]) -> Iterator[EndedFold]:
        for fold in folds:
            if "f1" in fold.metrics:
                posts = self.pairs.group_N[fold.rows]
                yield EndedFold(fold.fold, fold.rows, fold.probabilities, fold.labels, posts, fold.decided_at)


def build_scheduler(
    spec: SweepSpec, storage: Place, pairs: PairTable, records: Iterable[TrialRecord] = ()
) -> FoldScheduler | None:
    """The scheduler that `spec.scheduler` asks for; None if every trial runs all its folds.

    Args:
        records: trials of earlier runs of this sweep, so that a resumed race has its leader at once.
    """
    rule = build_rule(spec)
    if rule is None:
        return None
    scheduler = FoldScheduler(rule, spec.base.data.num_folds, storage, pairs)
    for record in records:
        scheduler.remember(record)
    return scheduler
