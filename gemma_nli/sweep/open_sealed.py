"""`gemma-nli test`: the registered model, and what it is compared with, on the sealed posts.

Everything that can fail without reading a sealed post (MLflow, refits) is done first. Then the look is counted, in the
sweep's folder and in MLflow, and only then are the sealed posts read; they are scored by bundles, so their vectors go
into no store.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gemma_nli.analysis.compared_values import compared_groups
from gemma_nli.analysis.ensembles import ChosenEnsemble
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.sealed_posts import SealedScore, SealedTest
from gemma_nli.analysis.sealed_scores import Contestant, Foretold, baselines_on, foretell, score_sealed
from gemma_nli.analysis.wording import evidence_text, short
from gemma_nli.base.errors import SweepError
from gemma_nli.base.metrics import measured_by
from gemma_nli.corpus.pairs import PairTable, pair_texts
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.corpus.sealed import sealed_corpus, sealed_pairs
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.spec.domain import shown
from gemma_nli.sweep.prepare import Prepared, prepare
from gemma_nli.sweep.records.make_report import report_at_end
from gemma_nli.sweep.records.mlflow_recorder import Recorder
from gemma_nli.sweep.records.outcome import outcome_of
from gemma_nli.sweep.records.reported_trials import evidence_of
from gemma_nli.sweep.records.saved_report import Reported
from gemma_nli.sweep.records.sealed_looks import SealedLooks, refuse_another_seal, sealed_test
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.records.written_cards import model_name
from gemma_nli.sweep.refit import bundle_of_trial, bundle_place
from gemma_nli.sweep.register_ensemble import chosen_of, ensemble_bundle
from gemma_nli.sweep.resume import stored_spec
from gemma_nli.tracking.registry.register import Registered, find_registered
from gemma_nli.tracking.registry.registered_models import load_scorer
from gemma_nli.tracking.registry.sealed_tags import looks_known, tag_look

Say = Callable[[str], object]
REGISTERED = "the registered model"


@dataclass(frozen=True)
class Opened:
    """`number`: which look it was. `registered`: the model version that was scored, None where none is registered."""

    test: SealedTest
    number: int
    registered: str | None
    report: Reported | None

    def to_json(self) -> dict[str, Any]:
        return {
            "look": self.number,
            "model": self.registered,
            "sealed": self.test.to_json(),
            "report": str(self.report.html) if self.report is not None else None,
        }


@dataclass(frozen=True)
class _Model:
    """A trial refitted on the whole training part, before any sealed post is read; `load` gives it as it is served."""

    name: str
    about: str
    wording: str
    load: Callable[[], PairScorer]
    foretold: Foretold


def open_sealed(name: str, best: int = 0, compared: bool = False, say: Say | None = None) -> Opened:
    """Count a look at a sweep's sealed posts, and score its models and baselines on them.

    Args:
        best: how many of the best trials are scored, besides the registered one.
        compared: whether the best trial of each compared value is scored.
        say: called with what is being done.
    Raises:
        SweepError: no such sweep, no sealed posts, nothing finished, or other posts than were sealed at first.
        TrackingError: MLflow cannot be reached, so the look could not be counted there; no sealed post was read.
    """
    say = say or (lambda _line: None)
    spec = stored_spec(name)
    if spec.base.data.test is None:
        raise SweepError(
            f"sweep '{name}' has no sealed test set. Set data.test.share=0.2 (or data.test.ids), give the sweep "
            "another name, and run it: the posts of this one have all been trained on."
        )
    ready = prepare(spec)
    refuse_another_seal(ready)
    folder = SweepFolder(ready.folder)
    looks = SealedLooks(folder)
    with folder.held(spec.name), ExitStack() as opened:
        ready.take_up(folder.cells())
        recorder = Recorder(ready, folder)
        opened.callback(recorder.abandon)
        recorder.open()
        try:
            evidence = evidence_of(ready, folder)
            several = chosen_of(evidence)
            wanted = _wanted(ready, evidence, best, compared, of_several=several is not None)
            if several is None:
                registered = _registered(ready, recorder, _best_key(ready))
                models = _refitted(ready, evidence, wanted, registered, say)
            else:
                registered = _registered(ready, recorder, several.key)
                models = [_ensemble(ready, several, evidence, registered, say)]
                models += _refitted(ready, evidence, wanted, None, say)
            assert ready.corpus.seal is not None, "data.test is set"
            looks.begin(ready.corpus.seal)  # noted anew if the file was lost
            number = _count(looks, recorder, registered, say)
            scores = _scores(ready, evidence, models)
            label = measured_by(evidence.ranked_by).label
            pairs, positives = scores.counts
            looks.scored(number, label, pairs, positives, scores.all)
            found = sealed_test(ready.corpus.seal, folder, spec.name)[0]
            if recorder.tracker is not None:
                tag_look(recorder.tracker, recorder.sweep_run_id, registered, found)
            report = report_at_end(ready, folder) if spec.report.enabled else None
        finally:
            if recorder.tracker is not None:
                recorder.end(folder.result())
        return Opened(found, number, registered.uri if registered is not None else None, report)


def _best_key(ready: Prepared) -> str:
    best = outcome_of(ready).best
    if best is None:
        raise SweepError(f"sweep '{ready.spec.name}' has no finished trial yet; `gemma-nli resume` goes on with it.")
    return best.key


def _registered(ready: Prepared, recorder: Recorder, key: str) -> Registered | None:
    if recorder.tracker is None:
        return None
    return find_registered(recorder.tracker, model_name(ready.spec), key, ready.pairs.fingerprint)


def _count(looks: SealedLooks, recorder: Recorder, registered: Registered | None, say: Say) -> int:
    """In the folder first: what MLflow then cannot be given is sent with the next report."""
    tracker = recorder.tracker
    known = looks_known(tracker, recorder.sweep_run_id, registered) if tracker is not None else 0
    number = looks.count(known)
    if tracker is not None:
        tag_look(tracker, recorder.sweep_run_id, registered, looks.test_of(recorder.ready.spec.name))
    say(f"look {number} at the sealed posts")
    return number


def _wanted(ready: Prepared, evidence: Evidence, best: int, compared: bool, of_several: bool) -> dict[str, str]:
    """Trial keys to what they are called: the registered one first, each once, under the first of its names.

    Where an ensemble is registered, the best trial stands beside it.
    """
    is_registered = ready.spec.finalize.enabled and not of_several
    wanted = {_best_key(ready): REGISTERED if is_registered else "the best trial"}
    groups = compared_groups(evidence) if compared else []
    if compared and not groups:
        raise SweepError(
            f"sweep '{ready.spec.name}' compares no values: its file has no compare:; leave out --compared."
        )
    score_T = evidence.scores()
    for group in groups:
        trial = evidence.complete[max(group, key=lambda place: score_T[place])]
        value = ", ".join(f"{short(key)} {shown(trial.settings[key])}" for key in evidence.compared)
        wanted.setdefault(trial.key, f"the best with {value}")
    for rank, ranked in enumerate(outcome_of(ready).ranked[:best], start=1):
        wanted.setdefault(ranked.key, f"trial {rank} of the leaderboard")
    return wanted


def _refitted(
    ready: Prepared, evidence: Evidence, wanted: dict[str, str], registered: Registered | None, say: Say
) -> list[_Model]:
    draws, places = Draws.of(evidence), {trial.key: place for place, trial in enumerate(evidence.complete)}
    models: list[_Model] = []
    for key, called in wanted.items():
        if key not in places:
            raise SweepError(f"sweep '{ready.spec.name}': trial {key[:8]} cannot be compared, as it lacks a fold.")
        refit = partial(bundle_of_trial, ready, key)
        load = _loading(ready, key, called, registered if not models else None, refit, say)
        about, wording = evidence_text(evidence, places[key]), evidence.complete[places[key]].config.data.wording
        models.append(_Model(called, about, wording, load, foretell(evidence, draws, key)))
    return models


def _ensemble(
    ready: Prepared, chosen: ChosenEnsemble, evidence: Evidence, registered: Registered | None, say: Say
) -> _Model:
    called = REGISTERED if ready.spec.finalize.enabled else "the ensemble"
    load = _loading(ready, chosen.key, called, registered, partial(ensemble_bundle, ready, chosen), say)
    wording = evidence.record(next(iter(chosen.weights))).config.data.wording
    foretold = Foretold(chosen.finding.value, chosen.finding.noise_S)
    return _Model(called, chosen.about, wording, load, foretold)


def _loading(
    ready: Prepared, key: str, called: str, registered: Registered | None, refit: Callable[[], Path], say: Say
) -> Callable[[], PairScorer]:
    """A bundle: the one in the sweep's folder, as it was registered; the registry's; or a refit."""
    if not (bundle_place(ready, key) / "bundle.json").exists():
        if registered is not None:
            return _from_registry(ready, registered)
        say(f"refitting {called}")
    return partial(PairScorer.from_bundle, refit(), ready.spec.base.device)


def _from_registry(ready: Prepared, registered: Registered) -> Callable[[], PairScorer]:
    base = ready.spec.base
    return partial(load_scorer, registered.uri, base.mlflow.tracking_uri, base.device.device)


@dataclass(frozen=True)
class _Scores:
    all: list[SealedScore]
    counts: tuple[int, int]


def _scores(ready: Prepared, evidence: Evidence, models: list[_Model]) -> _Scores:
    """From here on sealed posts are read."""
    data = ready.spec.base.data
    sealed = sealed_corpus(data)
    pairs = sealed_pairs(sealed, data)
    rows = pairs.evaluation_rows(1)
    contestants = [_predicted(model, sealed, pairs, rows) for model in models]
    baselines = baselines_on(evidence, sealed, pairs, rows)
    scores = score_sealed(pairs, rows, evidence.ranked_by, contestants, baselines)
    return _Scores(scores, (len(rows), int(pairs.label_N[rows].sum())))


def _predicted(model: _Model, sealed: Corpus, pairs: PairTable, rows: NDArray[np.int64]) -> Contestant:
    """By the bundle as it is served: its threshold is the one that cross-validation chose."""
    premises, hypotheses = pair_texts(sealed.in_words(model.wording), pairs, rows)
    found = model.load().score(pd.DataFrame({"premise": premises, "hypothesis": hypotheses}))
    decided = found["label"].to_numpy() == 1
    return Contestant(model.name, model.about, decided, found["probability"].to_numpy(), model.foretold)
