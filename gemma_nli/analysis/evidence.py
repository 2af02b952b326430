"""A sweep's journals as matrices: every finished trial's out-of-fold probability of every evaluation pair.

Letters: T trials with all folds, N evaluation pairs (fold by fold), K folds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.observed import ScoredPairs
from gemma_nli.base.errors import ReportError
from gemma_nli.base.metrics import measured_by, metric_of
from gemma_nli.config import SEMANTICS_VERSION, RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place
from gemma_nli.training.learned import why_chance
from gemma_nli.training.results import FINISHED
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

    @property
    def fate(self) -> str:
        """Why it has no place: its state, `diverged`, or which metric it is without."""
        if self.state != "finished":
            return self.state
        return self.note.split(":")[0] if self.note.startswith(WITHOUT) else "diverged"


@dataclass
class Evidence:
    """Everything that the analysis uses. Several sweeps on one set of pairs count as one."""

    names: list[str]
    questions: list[str]
    spec: SweepSpec
    corpus: Corpus
    pairs: PairTable
    storage: Place
    trials: list[Trial]
    rows_N: NDArray[np.int64]
    probability_TN: NDArray[np.float32]
    threshold_TK: Floats
    varied: list[str]
    compared: list[str] = field(default_factory=list)
    confirmations: list[tuple[dict[str, Any], TrialRecord]] = field(default_factory=list)
    sweep_ids: list[str] = field(default_factory=list)
    semantics: int = SEMANTICS_VERSION

    @property
    def ranked_by(self) -> str:
        """The sweep's metric where it can be measured again on resampled posts, else F1."""
        found = metric_of(self.spec.metric)
        return found.name if found is not None else "f1"

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
        chosen_TN = np.empty(self.probability_TN.shape, dtype=bool)
        for fold in range(1, self.pairs.num_folds + 1):
            at = self.fold_N == fold
            # as the trial itself compared them: a float32 probability with a float64 threshold
            chosen_TN[:, at] = self.probability_TN[:, at].astype(np.float64) >= self.threshold_TK[:, fold - 1, None]
        return chosen_TN

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
        """The row of the best trial; ties go to the first by key, as on the board."""
        scores_T = self.scores()
        return min(range(len(scores_T)), key=lambda t: (-scores_T[t], self.complete[t].key))


def gather(
    spec: SweepSpec,
    corpus: Corpus,
    pairs: PairTable,
    storage: Place,
    cells: Mapping[str, Mapping[str, Any]],
    sweep_id: str = "",
) -> Evidence:
    """The evidence of one sweep's journals; cells that have not run yet are passed over.

    Raises:
        ReportError: no trial has finished.
    """
    rows_N = np.concatenate([pairs.evaluation_rows(fold) for fold in range(1, pairs.num_folds + 1)])
    probabilities: list[NDArray[np.float32]] = []
    thresholds: list[list[float]] = []
    trials: list[Trial] = []
    confirmations: list[tuple[dict[str, Any], TrialRecord]] = []
    semantics = SEMANTICS_VERSION
    for key, settings in cells.items():
        record = read_trial(storage, key)
        if record is None:
            continue
        if record.fold_fingerprint != pairs.fingerprint:
            again = _asked(record, spec, settings)
            confirmations.append(({**again.flat(), **settings}, dataclasses.replace(record, config=again)))
            continue
        semantics = record.semantics
        whole = _whole(record, pairs, rows_N) if record.state == "finished" else None
        lacks = ""
        if whole is not None and not _has_metric(record, spec.metric):
            whole, lacks = None, f"{WITHOUT} {spec.metric}: its journal was written before that was measured"
        place = len(probabilities) if whole is not None else None
        if whole is not None:
            probabilities.append(whole)
            thresholds.append([record.folds[fold].threshold for fold in range(1, pairs.num_folds + 1)])
        trials.append(_trial(record, spec, settings, storage, place, lacks))
    if not probabilities and any(trial.note.startswith(WITHOUT) for trial in trials):
        raise ReportError(
            f"sweep '{spec.name}': no finished trial has {spec.metric}: their journals were written before it was "
            "measured. Run the sweep with another `storage`, or decide it by another metric."
        )
    if not probabilities:
        raise ReportError(f"sweep '{spec.name}': no trial has finished all folds yet, so there is nothing to report.")
    return Evidence(
        names=[spec.name],
        questions=[spec.question],
        spec=spec,
        corpus=corpus,
        pairs=pairs,
        storage=storage,
        trials=trials,
        rows_N=rows_N,
        probability_TN=np.stack(probabilities),
        threshold_TK=np.array(thresholds),
        varied=list(spec.space.keys),
        compared=list(spec.compare),
        confirmations=confirmations,
        sweep_ids=[sweep_id],
        semantics=semantics,
    )


def _whole(record: TrialRecord, pairs: PairTable, rows_N: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """(N,) of a trial that has measured every evaluation pair, else None (a fold diverged)."""
    of_row = np.full(len(pairs), np.nan, dtype=np.float32)
    for fold in record.folds.values():
        if fold.status == FINISHED:
            of_row[fold.rows] = fold.probabilities
    found_N = of_row[rows_N]
    return None if np.isnan(found_N).any() else found_N


def _has_metric(record: TrialRecord, aggregate: str) -> bool:
    """Whether it was journalled with the metric that decides; asked of those that are measured again here."""
    return metric_of(aggregate) is None or aggregate in record.aggregates


def _asked(record: TrialRecord, spec: SweepSpec, settings: Mapping[str, Any]) -> RunConfig:
    """The trial's configuration as the sweep asks for it."""
    try:
        config = spec.space.configure(spec.base, settings)
    except ValidationError:  # noted by an earlier form of the sweep
        config = record.config
    same = config.canonical() == record.config.canonical()
    return config if same else record.config.asked_by(spec.base, spec.space.keys)


def _trial(
    record: TrialRecord, spec: SweepSpec, settings: Mapping[str, Any], storage: Place, place: int | None, lacks: str
) -> Trial:
    note = lacks or record.reason or (record.error or "").strip().split("\n")[-1][:200]
    if record.state == "finished" and place is None and not lacks:
        note = "a fold diverged"
    config = _asked(record, spec, settings)
    every = {**config.flat(), **settings}
    kept = {key: every.get(key) for key in spec.space.keys}
    facts = (record.key, spec.name, kept, record.state, len(record.folds), record.metrics(), storage, config)
    return Trial(*facts, place, note)


def merge(parts: list[Evidence]) -> Evidence:
    """The evidence of several sweeps together; what differs between any two of their trials is what varies.

    Raises:
        ReportError: their corpora, evaluation pairs or metrics differ, so their scores cannot be compared.
    """
    first = parts[0]
    for other in parts[1:]:
        both = f"sweeps '{first.names[0]}' and '{other.names[0]}'"
        if other.pairs.corpus_fingerprint != first.pairs.corpus_fingerprint:
            raise ReportError(f"{both} are over different corpora, so their scores cannot be compared.")
        if other.semantics != first.semantics:
            raise ReportError(
                f"{both} were run by versions {first.semantics} and {other.semantics} of the training semantics, so "
                "their scores cannot be compared; run the older one's file again."
            )
        if other.pairs.fingerprint != first.pairs.fingerprint:
            raise ReportError(
                f"{both} are measured on different folds or pairs (data.num_folds, fold_seed, negatives or "
                "eval_negative_ratio), so their scores cannot be compared."
            )
        if other.spec.metric != first.spec.metric:
            raise ReportError(f"{both} are decided by {first.spec.metric} and {other.spec.metric}; ask for one.")
    if len(parts) == 1:
        return first
    seen: dict[str, tuple[Evidence, Trial]] = {}
    for part in parts:
        for trial in part.trials:
            if trial.key not in seen or seen[trial.key][1].place is None:
                seen[trial.key] = (part, trial)
    configs = {key: comparable(trial.config) for key, (_, trial) in seen.items()}
    keys = list(dict.fromkeys(key for config in configs.values() for key in config))
    varied = [key for key in keys if len({repr(config.get(key)) for config in configs.values()}) > 1]
    trials: list[Trial] = []
    rows: list[NDArray[np.float32]] = []
    thresholds: list[Floats] = []
    for key, (part, trial) in seen.items():
        place = len(rows) if trial.place is not None else None
        if trial.place is not None:
            rows.append(part.probability_TN[trial.place])
            thresholds.append(part.threshold_TK[trial.place])
        settings = {name: configs[key].get(name) for name in varied}
        trials.append(dataclasses.replace(trial, settings=settings, place=place))
    return Evidence(
        names=[name for part in parts for name in part.names],
        questions=[question for part in parts for question in part.questions if question],
        spec=first.spec,
        corpus=first.corpus,
        pairs=first.pairs,
        storage=first.storage,
        trials=trials,
        rows_N=first.rows_N,
        probability_TN=np.stack(rows),
        threshold_TK=np.stack(thresholds),
        varied=varied,
        compared=[key for key in first.compared if all(key in part.compared for part in parts)],
        confirmations=[found for part in parts for found in part.confirmations],
        sweep_ids=[sweep_id for part in parts for sweep_id in part.sweep_ids],
        semantics=first.semantics,
    )


def comparable(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a trial's numbers, with the encoder's name."""
    return {"model.name": config.model.name, **config.canonical()}
