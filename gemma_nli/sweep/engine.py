"""A sweep from spec to result: prepare, encode, tune, finalize, while every trial's updates go to MLflow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from gemma_nli.base.errors import TrackingError
from gemma_nli.corpus.corpus_notes import corpus_notes
from gemma_nli.features import EncodeReport, FeatureRequest
from gemma_nli.model.gguf_conversion import quantization_notes
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.cluster.autoscaling import wait_for_nodes
from gemma_nli.sweep.cluster.ray_session import check_ray, ray_session
from gemma_nli.sweep.cluster.trial_resources import TrialResources, decide_resources
from gemma_nli.sweep.confirm_leaders import confirmed, confirming_rounds, leaders_of, run_rounds
from gemma_nli.sweep.earlier_spaces import take_up_earlier
from gemma_nli.sweep.finalize import Finalized, finalize, start_refit
from gemma_nli.sweep.interrupts import Interrupts
from gemma_nli.sweep.prepare import Prepared, feature_requests, prepare
from gemma_nli.sweep.ray.encode_corpus import Encoding
from gemma_nli.sweep.ray.ray_processes import watched_ray
from gemma_nli.sweep.ray.shared_features import SharedBlock
from gemma_nli.sweep.ray.tuner import Tuning
from gemma_nli.sweep.records.make_report import try_report
from gemma_nli.sweep.records.mlflow_recorder import Recorder
from gemma_nli.sweep.records.outcome import outcome_of
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.sweep.records.saved_report import Reported, honest_tags
from gemma_nli.sweep.records.sealed_looks import SealedLooks, refuse_another_seal
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.records.sweep_result import SweepResult
from gemma_nli.sweep.records.written_cards import kept_card
from gemma_nli.sweep.register_ensemble import ALONE, chosen_ensemble, finalize_ensemble

log = logging.getLogger(__name__)
Display = Callable[[ProgressState], Any]


def run_sweep(spec: SweepSpec, watch: Callable[[ProgressState], None] | None = None) -> SweepResult:
    """Run what a sweep has not run yet, register its best trial, and return the result.

    Args:
        watch: called once with the board before anything runs; a progress display adds itself as a watcher.
    Returns:
        What `gemma-nli sweep --json` prints. Running the same spec again runs no trial and registers nothing new.
    Raises:
        GemmaNliError: a mistake in the spec or the data (before Ray starts), or a sweep that another process is
        running.
    """
    began = time.monotonic()
    ready = prepare(spec)
    refuse_another_seal(ready)
    if ready.waiting or not ready.cells:
        check_ray()
    folder = SweepFolder(ready.folder)
    with folder.held(spec.name):
        folder.begin(ready.sweep_id, spec.name, spec.to_yaml(), ready.storage)
        folder.keep_pairs(ready.pairs)
        if ready.corpus.seal is not None:
            SealedLooks(folder).begin(ready.corpus.seal)
        take_up_earlier(ready, folder)
        folder.add_cells({key: cell.settings for key, cell in ready.trials.items()})
        return _Run(ready, folder, watch).go(began)


class _Run:
    """One run of the command over a prepared sweep."""

    def __init__(self, ready: Prepared, folder: SweepFolder, watch: Callable[[ProgressState], None] | None) -> None:
        self.ready, self.folder, self.spec = ready, folder, ready.spec
        self.progress = ProgressState(
            self.spec.metric,
            self.spec.mode,
            len(ready.cells) or self.spec.total_trials,
            self.spec.base.data.measured_at,
        )
        self.seconds = dict.fromkeys(("encode", "tune", "report", "finalize"), 0.0)
        self.encoded: list[EncodeReport] = []
        self.unregistered: str | None = None
        self.report: Reported | None = None
        self.unreported: str | None = None
        self.interrupts = Interrupts()
        self.outcome = outcome_of(ready)
        self.before = dict(ready.records)
        self.rounds: list[Prepared] = []
        self.notes: list[str] = []
        if watch is not None:
            watch(self.progress)

    def go(self, began: float) -> SweepResult:
        recorder = Recorder(self.ready, self.folder)
        try:
            with ThreadPoolExecutor(
                1, "gemma_nli-opening"
            ) as aside:  # creating a database takes as long as starting Ray
                opening = aside.submit(recorder.open)
                finalized = self._work(recorder, opening.result)
            self.progress.enter("recording")
            result = self._result(recorder, finalized, time.monotonic() - began)
            recorder.close(result, self._ended())
            result.seconds["total"] = round(time.monotonic() - began, 3)
            self.folder.end(result.to_json())
            return result
        except BaseException as error:
            recorder.cut_off("failed" if isinstance(error, Exception) else "killed")
            raise
        finally:
            recorder.abandon()

    def _show_known(self) -> list[str]:
        """Put all trials on the board; gives the keys of those already done."""
        done = []
        for trial in self.outcome.trials:
            is_done = self.ready.is_done(trial.key)
            self.progress.add(trial.key, trial.settings, reused=is_done)
            if is_done:
                self.progress.update(trial.key, trial.state, trial.metrics, trial.folds_done)
                done.append(trial.key)
        return done

    def _work(self, recorder: Recorder, opened: Callable[[], None]) -> Finalized | None:
        """Encode and tune what is waiting, then finalize; Ray starts only if something needs it.

        Args:
            opened: returns once the recorder is open, or raises its error.
        """
        known = self._show_known()
        done = bool(self.ready.cells) and not self.ready.waiting
        again = [each for each in self._confirming_rounds() if each.waiting] if done else []  # its journals are final
        if done and not again:
            self._recording(recorder, opened, known)
            return self._finalize(recorder)
        requests = [] if done else feature_requests(self.ready)
        ended = partial(recorder.cut_off, "killed")
        with self._encoding(requests) as encoding, ray_session() as dashboard, watched_ray(ended):
            self.progress.link("Ray dashboard", dashboard)
            self._recording(recorder, opened, known)
            wait_for_nodes(self.spec.resources, self.progress.enter)
            resources = decide_resources(again[0] if done else self.ready)
            blocks = () if done else self._encode(encoding)
            self.folder.go_on()
            self.interrupts.on_first(self.folder.ask_to_stop)
            with self.interrupts:
                if not done:
                    self._tune(recorder, resources, blocks)
                if not self.interrupts.count:
                    self._confirm(recorder, resources)
            if self.interrupts.count:
                return None
            return self._finalize(recorder, resources)

    def _recording(self, recorder: Recorder, opened: Callable[[], None], known: list[str]) -> None:
        """From here on MLflow follows; trials already done are sent if their run is missing or outdated."""
        opened()
        self.progress.link("MLflow run", recorder.link())
        confirming = [key for each in self.rounds for key in each.records if each.is_done(key)]
        for key in dict.fromkeys([*known, *confirming]):
            recorder.trial_changed(key)

    def _encoding(self, requests: list[FeatureRequest]) -> Encoding:
        return Encoding(requests, self.ready.storage, self.spec.base.features, self.progress.encoded)

    def _encode(self, encoding: Encoding) -> tuple[SharedBlock, ...]:
        self.progress.enter("encoding")
        blocks, self.encoded = encoding.shared()
        self.seconds["encode"] = time.monotonic() - encoding.began
        return blocks

    def _tune(self, recorder: Recorder, resources: TrialResources, blocks: tuple[SharedBlock, ...]) -> None:
        self.progress.enter("tuning")
        began = time.monotonic()
        try:
            tuning = Tuning(
                self.ready, self.folder, self.progress, recorder.trial_changed, self.interrupts, resources, self.notes
            )
            tuning.run(blocks)
        finally:
            self.seconds["tune"] = time.monotonic() - began
        self.outcome = outcome_of(self.ready)

    def _confirming_rounds(self) -> list[Prepared]:
        if self.spec.finalize.confirm is not None:
            self.rounds = confirming_rounds(self.ready, leaders_of(self.ready))
        return self.rounds

    def _confirm(self, recorder: Recorder, resources: TrialResources) -> None:
        """The leaders again, each drawing on its own folds; not on the board, as they are not candidates."""
        rounds = self.rounds or self._confirming_rounds()
        if not rounds:
            return
        self.progress.enter("confirming")
        began = time.monotonic()
        try:
            run_rounds(rounds, self.folder, recorder.trial_changed, self.interrupts, resources, self.notes)
        finally:
            self.seconds["confirm"] = time.monotonic() - began

    def _finalize(self, recorder: Recorder, resources: TrialResources | None = None) -> Finalized | None:
        """Report and register; with Ray, the best trial is refitted while the report is written."""
        best = self.outcome.best
        if best is None or not self.spec.finalize.enabled or not self.spec.base.mlflow.enabled:
            self._report()
            return None
        record = self.ready.read(best.key)
        assert record is not None, "its journal has just been read"
        several = chosen_ensemble(self.ready, self.folder)
        if several is None and self.spec.finalize.ensemble is not None:
            self.notes.append(ALONE)
        refit = start_refit(self.ready, record, recorder, resources) if several is None else None
        self._report()
        self.progress.enter("finalizing")
        began = time.monotonic()
        try:
            if several is not None:
                card = kept_card(self.folder, several.key) if self.report is not None else None
                return finalize_ensemble(self.ready, several, recorder, resources, card)
            honest = honest_tags(self.report, record.key)
            card = kept_card(self.folder, record.key) if self.report is not None else None
            return finalize(self.ready, record, recorder, resources, honest, refit, card)
        except TrackingError as error:  # MLflow is unreachable: no reason to lose the sweep's result
            what = "best trial" if several is None else "ensemble"
            self.unregistered = f"the {what} is not registered yet ({error})"
            return None
        finally:
            self.seconds["finalize"] = time.monotonic() - began

    def _report(self) -> None:
        if self.spec.report.enabled:
            self.progress.enter("reporting")
            began = time.monotonic()
            self.report, self.unreported = try_report(self.ready, self.folder)
            self.seconds["report"] = time.monotonic() - began

    def _ended(self) -> set[str]:
        """Keys of the trials, confirming ones too, that have come to an end."""
        outcomes = (self.outcome, confirmed(self.rounds))
        return {trial.key for outcome in outcomes for trial in outcome.trials if trial.state != "waiting"}

    def _result(self, recorder: Recorder, finalized: Finalized | None, total: float) -> SweepResult:
        outcome, confirming = self.outcome, confirmed(self.rounds)
        best = outcome.best
        interrupted = self.interrupts.count > 0
        return SweepResult(
            sweep_id=self.ready.sweep_id,
            sweep_run_id=recorder.sweep_run_id,
            name=self.spec.name,
            experiment=self.spec.base.experiment,
            metric=self.spec.metric,
            measured_at=self.spec.base.data.measured_at,
            trials=outcome.counts,
            waiting=max(outcome.waiting, self.progress.total - sum(outcome.counts.values()) if interrupted else 0),
            confirming={**confirming.counts, "waiting": confirming.waiting} if self.rounds else None,
            failures=[*outcome.failures(), *confirming.failures()],
            ranked=outcome.ranked,
            ran=outcome.run_since(self.before),
            best=best,
            best_run_id=recorder.run_id_of(best.key) if best else None,
            registered=finalized.registered if finalized else None,
            seconds={"total": total, **self.seconds},
            texts={"encoded": sum(r.encoded for r in self.encoded), "reused": sum(r.reused for r in self.encoded)},
            interrupted=interrupted,
            unregistered=self.unregistered,
            pareto=outcome.pareto_front(self.spec.objectives),
            notes=[
                *corpus_notes(self.ready.corpus, self.ready.pairs),
                *quantization_notes(cell.config.model for cell in self.ready.trials.values()),
                *(outcome.notes() if self.report is None else ()),  # the report has it among its warnings
                *self.notes,
                *([self.unreported] if self.unreported else []),
            ],
            report=self.report.to_json() if self.report else None,
        )
