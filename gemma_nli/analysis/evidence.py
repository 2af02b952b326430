"""A sweep's journals as matrices: every finished trial's out-of-fold probability of every evaluation pair.

Letters: T trials with all folds, N evaluation pairs (fold by fold), K folds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.observed import ScoredPairs
from gemma_nli.analysis.outside_predictions import OutsidePredictions
from gemma_nli.analysis.sealed_posts import SealedTest
from gemma_nli.base.errors import ReportError
from gemma_nli.base.metrics import measured_by, metric_of
from gemma_nli.base.what_was_measured import measured_at
from gemma_nli.config import SEMANTICS_VERSION, RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place
from gemma_nli.training.learned import why_chance
from gemma_nli.trial import TrialRecord, read_trial

Floats = NDArray[np.float64]
WITHOUT = "without"


@dataclass(frozen=True)
class Trial:
    """What a leaderboard shows of a trial; `place` is its row of the matrices, None where it lacks a fold.

    `config` is the trial's as its sweep asks for it: another sweep's names and folders may be in its journal.
    """

    key: str
    sweep: str
    settings: dict[str, Any]
    state: str
    folds_done: int
    metrics: dict[str, float]
    storage: Place
    config: RunConfig
    place: int | None = None
    note: str = ""
    fallback: str = ""  # which folds could not choose all by their inner split

    @property
    def fate(self) -> str:
        """Why it has no place: its state, `diverged`, or which metric it is without."""
        if self.state != "finished":
            return self.state
        return self.note.split(":")[0] if self.note.startswith(WITHOUT) else "diverged"


@dataclass
class Evidence:
    """Everything that the analysis uses. Several sweeps on one set of pairs count as one.

    `outside`: predictions of other tools, which are compared with the trials as baselines are.
    """

    names: list[str]
    questions: list[str]
    spec: SweepSpec
    corpus: Corpus
    pairs: PairTable
    storage: Place
    trials: list[Trial]
    rows_N: NDArray[np.int64]
    probability_TN: NDArray[np.float32]
    threshold_TK: Floats  # of all criteria but those of own_threshold_TKC
    varied: list[str]
    compared: list[str] = field(default_factory=list)
    confirmations: list[TrialRecord] = field(default_factory=list)
    sweep_ids: list[str] = field(default_factory=list)
    semantics: int = SEMANTICS_VERSION
    own_threshold_TKC: Floats | None = None  # of single criteria, NaN without one; None where no trial has any
    outside: tuple[OutsidePredictions, ...] = ()
    sealed: list[SealedTest] = field(default_factory=list)  # of each sweep that sealed posts

    @property
    def ranked_by(self) -> str:
        """The sweep's metric where it can be measured again on resampled posts, else F1."""
        found = metric_of(self.spec.metric)
        return found.name if found is not None else "f1"

    @property
    def measured_at(self) -> str:
        """`at 1 matched negative per positive`: what stands beside its scores."""
        return measured_at(self.pairs.eval_negative_ratio, self.pairs.negatives)

    @cached_property
    def complete(self) -> list[Trial]:
        """The trials of the matrices, in their order."""
        return sorted((t for t in self.trials if t.place is not None), key=lambda t: t.place or 0)

    @cached_property
    def fold_N(self) -> NDArray[np.int16]:
        return np.asarray(self.pairs.fold_N[self.rows_N])

    @cached_property
    def label_N(self) -> NDArray[np.int8]:
        return np.asarray(self.pairs.label_N[self.rows_N])

    @cached_property
    def post_N(self) -> NDArray[np.int32]:
        return np.asarray(self.pairs.post_N[self.rows_N])

    @cached_property
    def group_N(self) -> NDArray[np.int32]:
        """The independent units: a post with all its pairs, and with those of its copies if it has any."""
        return np.asarray(self.pairs.group_N[self.rows_N])

    @cached_property
    def decision_TN(self) -> NDArray[np.bool_]:
        """Each trial's decisions at the thresholds that its training folds chose."""
        # as the trial itself compared them: a float32 probability with a float64 threshold
        return np.asarray(self.probability_TN.astype(np.float64) >= self.threshold_TN)

    @cached_property
    def threshold_TN(self) -> Floats:
        """The threshold that decides each pair."""
        at_TN = np.empty(self.probability_TN.shape)
        for fold in range(1, self.pairs.num_folds + 1):
            at = self.fold_N == fold
            at_Tn = self.threshold_TK[:, fold - 1, None]
            if self.own_threshold_TKC is not None:
                own_Tn = self.own_threshold_TKC[:, fold - 1][:, self.pairs.criterion_N[self.rows_N[at]]]
                at_Tn = np.where(np.isnan(own_Tn), at_Tn, own_Tn)
            at_TN[:, at] = at_Tn
        return at_TN

    def thresholds_by_criterion(self, place: int) -> Floats:
        """(K, C) what decides a criterion's pairs in each fold of a trial."""
        shared_K1 = self.threshold_TK[place][:, None]
        if self.own_threshold_TKC is None:
            return np.repeat(shared_K1, len(self.pairs.criterion_ids), axis=1)
        own_KC = self.own_threshold_TKC[place]
        return np.asarray(np.where(np.isnan(own_KC), shared_K1, own_KC), dtype=np.float64)

    @cached_property
    def observed(self) -> ScoredPairs:
        return ScoredPairs(self.label_N, self.fold_N, self.pairs.criterion_N[self.rows_N])

    def fold_scores(self, metric: str) -> Floats:
        """(T, K) computed again from the stored predictions."""
        return self.observed.fold_scores(self.values(metric), metric)

    def scores(self, metric: str | None = None) -> Floats:
        """(T,) means over folds, or over criteria, as a trial's aggregates are."""
        name = metric or self.ranked_by
        return self.observed.scores(self.values(name), name)

    def values(self, metric: str) -> NDArray[Any]:
        """(T, N) what a metric is measured on: decisions, or probabilities where no threshold enters."""
        return np.asarray(measured_by(metric).takes(self.decision_TN, self.probability_TN))

    def unlearned(self) -> dict[int, str]:
        """Rows of the trials with a fold that did not learn, and why (for the first such fold)."""
        auc_TK, found = self.fold_scores("auc"), dict[int, str]()
        for place in range(len(auc_TK)):
            for fold in range(1, self.pairs.num_folds + 1):
                at = self.fold_N == fold
                why = why_chance(self.label_N[at], self.decision_TN[place, at], float(auc_TK[place, fold - 1]))
                if why:
                    found.setdefault(place, f"fold {fold}: {why}")
        return found

    def bootstrap(self, repetitions: int, seed: int = 0) -> PostBootstrap:
        """Draws of posts within folds, the same for all trials."""
        return PostBootstrap(self.group_N, self.label_N, repetitions, seed, self.fold_N, self.observed.criterion_N)

    def record(self, key: str) -> TrialRecord:
        """A trial's whole journal, for learning curves and how to run it again."""
        trial = next(trial for trial in self.trials if trial.key == key)
        record = read_trial(trial.storage, key)
        if record is None:
            raise ReportError(f"{trial.storage}: the journal of trial {key} is gone; run the sweep again.")
        return dataclasses.replace(record, config=trial.config)

    @cached_property
    def winner(self) -> int:
        """The row of the best trial."""
        return self.best_of(range(len(self.complete)))

    def best_of(self, places: Iterable[int]) -> int:
        """The best of these rows; ties go to the first by key, as on the board."""
        scores_T = self.scores()
        return min(places, key=lambda t: (-scores_T[t], self.complete[t].key))
