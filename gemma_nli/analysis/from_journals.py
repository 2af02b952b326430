"""Evidence gathered from the journals of a sweep, and of several sweeps that are one measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gemma_nli.analysis.evidence import WITHOUT, Evidence, Floats, Trial
from gemma_nli.analysis.sealed_posts import SealedTest
from gemma_nli.base.errors import ReportError
from gemma_nli.base.metrics import metric_of
from gemma_nli.config import SEMANTICS_VERSION, RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place
from gemma_nli.training.fallbacks import fallback_note
from gemma_nli.training.results import FINISHED
from gemma_nli.trial import TrialRecord, read_trial


def gather(
    spec: SweepSpec,
    corpus: Corpus,
    pairs: PairTable,
    storage: Place,
    cells: Mapping[str, Mapping[str, Any]],
    sweep_id: str = "",
    sealed: Sequence[SealedTest] = (),
) -> Evidence:
    """The evidence of one sweep's journals; cells that have not run yet are passed over.

    Args:
        sealed: what is known of its sealed posts.
    Raises:
        ReportError: no trial has finished.
    """
    rows_N = np.concatenate([pairs.evaluation_rows(fold) for fold in range(1, pairs.num_folds + 1)])
    probabilities: list[NDArray[np.float32]] = []
    thresholds: list[list[float]] = []
    own: list[Floats] = []
    trials: list[Trial] = []
    confirmations: list[TrialRecord] = []
    semantics = SEMANTICS_VERSION
    for key, settings in cells.items():
        record = read_trial(storage, key)
        if record is None:
            continue
        if record.fold_fingerprint != pairs.fingerprint:
            confirmations.append(dataclasses.replace(record, config=_asked(record, spec, settings)))
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
            own.append(_own_thresholds(record, pairs))
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
        own_threshold_TKC=_if_any(own),
        sealed=list(sealed),
    )


def _own_thresholds(record: TrialRecord, pairs: PairTable) -> Floats:
    """(K, C) thresholds of single criteria, NaN where a criterion has the shared one."""
    folds = [record.folds[fold].thresholds for fold in range(1, pairs.num_folds + 1)]
    return np.array([[of.get(criterion, np.nan) for criterion in pairs.criterion_ids] for of in folds])


def _if_any(own: list[Floats]) -> Floats | None:
    own_TKC = np.stack(own)
    return None if np.isnan(own_TKC).all() else own_TKC


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
    return Trial(*facts, place, note, fallback_note(fold for _, fold in sorted(record.folds.items())))


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
    own: list[Floats] = []
    none_KC = np.full((first.pairs.num_folds, len(first.pairs.criterion_ids)), np.nan)
    for key, (part, trial) in seen.items():
        place = len(rows) if trial.place is not None else None
        if trial.place is not None:
            rows.append(part.probability_TN[trial.place])
            thresholds.append(part.threshold_TK[trial.place])
            own.append(none_KC if part.own_threshold_TKC is None else part.own_threshold_TKC[trial.place])
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
        own_threshold_TKC=_if_any(own),
        sealed=[test for part in parts for test in part.sealed],
    )


def comparable(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a trial's numbers, with the encoder's name."""
    return {"model.name": config.model.name, **config.told_apart_by()}
