"""`gemma-nli train`: one configuration cross-validated here, its journal the truth, its MLflow run a projection of it.

The same key gives the same numbers, so an interrupted run continues after its last finished fold, and a finished one is
shown from its journal; `again` trains it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gemma_nli.base.files import write_whole
from gemma_nli.config import RunConfig, home
from gemma_nli.corpus.corpus_notes import corpus_notes
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.corpus.sealed import training_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.encoder import identify_encoder, resolve_device
from gemma_nli.model.gguf_conversion import quantization_notes
from gemma_nli.storage import Place
from gemma_nli.tracking.write.artifacts import artifacts_of
from gemma_nli.tracking.write.delivery import MlflowDelivery
from gemma_nli.tracking.write.from_journal import project_trial
from gemma_nli.tracking.write.outbox import PENDING_FILE
from gemma_nli.tracking.write.projection import TrialProjection
from gemma_nli.tracking.write.tracker import MlflowTracker
from gemma_nli.training.criterion_only import scores_of_criterion_only
from gemma_nli.training.fallbacks import fallback_note
from gemma_nli.training.learned import learning_warning
from gemma_nli.training.listeners import IgnoreEvents, Listener
from gemma_nli.training.results import CvResult, FoldResult
from gemma_nli.training.trial_texts import check_texts
from gemma_nli.trial import TrialJournal, TrialRecord, trial_key
from gemma_nli.trial.hardware import environment_tags
from gemma_nli.trial.trial_run import TrialRun

log = logging.getLogger(__name__)
DRAIN_SECONDS = 20.0


@dataclass(frozen=True)
class LocalRun:
    """How a run went. `folder` holds its journal (and, without MLflow, its artifacts); `run_id` is None without MLflow.

    reused: nothing was trained, the journal was already finished. notes: what the user should know.
    criterion_only: `f1` and `auc`, on the same pairs, of a model that never reads the post.
    """

    record: TrialRecord
    result: CvResult
    folder: Path
    run_id: str | None
    experiment: str
    reused: bool
    seconds: float
    data_fingerprint: str
    notes: list[str] = field(default_factory=list)
    criterion_only: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.record.state != "finished"


def default_output() -> Path:
    """Where single runs keep their journals: apart from sweeps, so that running a sweep's best again trains it."""
    return home() / "runs"


def run_here(
    config: RunConfig,
    output: Path | None = None,
    storage: Place | None = None,
    tags: Mapping[str, str] | None = None,
    again: bool = False,
    listeners: Iterable[Listener] = (),
) -> LocalRun:
    """Cross-validate one configuration and record it.

    Args:
        output: folder of the journal; else `default_output()`.
        storage: a sweep's storage folder, for its encoded texts; by default the default one, or without MLflow the
        output's. tags: the user's own tags of the run; `note` is its description.
        again: train all folds anew, also those that an earlier run finished.
        listeners: called as folds end.
    Raises:
        CorpusError, EncoderError, TrackingError: before anything is trained.
        TrainingError: a fold cannot be trained; the run is then FAILED in MLflow, with the reason.
        TrialCrashed: the same for an exception that is not the user's mistake.
    """
    began = time.monotonic()
    corpus = training_corpus(config.data)
    pairs = build_pairs(corpus, config.data)
    encoder = identify_encoder(config.model).fingerprint
    resolve_device(config.device)  # a missing one is an error now, not a failed run
    check_texts(config, corpus)
    key = trial_key(config, pairs.fingerprint, encoder, corpus.wording_fingerprint(config.data.wording))
    journal = TrialJournal(output or default_output(), key)
    features = FeatureStore(_features_folder(config, output, storage), config.features)
    facts = {**environment_tags(), "gemma_nli.computed_by": "train"}
    run = TrialRun(journal, config, corpus, pairs, features, facts, wait_seconds=0)
    with run as trial, _ShownRun(config, corpus, pairs, journal, dict(tags or {})) as delivery:
        with _ends_shown(journal, delivery):
            reused = trial.begin([delivery, *listeners], again) is not None
            while not trial.over:
                trial.step()
        record = journal.read(weights=True)
        assert record is not None, "it has just been written"
        result = CvResult([record.folds[k] for k in sorted(record.folds)], record.aggregates, record.criteria)
        run_id = delivery.finish(record)
        if reused:
            delivery.notes.append(
                "this configuration was already trained; its numbers are shown. --again trains it again."
            )
        warning = learning_warning(result.folds, config)
        of_data = [*corpus_notes(corpus, pairs), *quantization_notes([config.model])]
        delivery.notes[:0] = [*of_data, *filter(None, [warning, fallback_note(result.folds)])]
        of_criterion = scores_of_criterion_only(config, pairs)
        seconds = time.monotonic() - began
        about = (config.experiment, reused, seconds, corpus.fingerprint, delivery.notes, of_criterion)
        return LocalRun(record, result, journal.folder, run_id, *about)


def _features_folder(config: RunConfig, output: Path | None, storage: Place | None) -> Place:
    """Encoded texts are shared with sweeps; a run without MLflow writes only to its output folder."""
    shared = home() / "storage" if config.mlflow.enabled else output or default_output()
    return (storage or shared) / "features"


@contextmanager
def _ends_shown(journal: TrialJournal, delivery: _ShownRun) -> Iterator[None]:
    """A run that fails, or that Ctrl-C interrupts, is shown as such in MLflow."""
    try:
        yield
    except BaseException as error:
        record = journal.read(weights=True)
        if record is not None:  # else the journal could not even be started
            delivery.finish(record, unfinished="running" if isinstance(error, Exception) else "stopped")
        raise


class _ShownRun(IgnoreEvents):
    """Shows the journal in MLflow, off the training's path; with `mlflow.enabled: false` in the run's folder alone."""

    def __init__(
        self, config: RunConfig, corpus: Corpus, pairs: PairTable, journal: TrialJournal, tags: dict[str, str]
    ) -> None:
        self.config, self.corpus, self.pairs, self.journal, self.tags = config, corpus, pairs, journal, tags
        self.notes: list[str] = []
        self.delivery: MlflowDelivery | None = None

    def __enter__(self) -> _ShownRun:
        if self.config.mlflow.enabled:
            tracker = MlflowTracker(self.config.mlflow, self.config.experiment)
            _ = tracker.experiment_id  # an unreachable store is an error now, and only a delay later
            self.delivery = MlflowDelivery(tracker, self.journal.folder / PENDING_FILE, self._project)
        return self

    def __exit__(self, *_: object) -> None:
        if self.delivery is not None:
            self.delivery.close()

    def started(self, num_folds: int, done: Mapping[int, FoldResult]) -> None:
        self._submit()

    def folds_ended(self, folds: list[FoldResult]) -> None:
        self._submit()

    def _submit(self) -> None:
        if self.delivery is not None:
            self.delivery.submit(self.journal.key)

    def finish(self, record: TrialRecord, unfinished: str = "running") -> str | None:
        """Show the end; the id of the MLflow run, None where there is none (yet)."""
        if self.delivery is None:
            self._write_artifacts(record)
            self.notes.append(
                f"mlflow.enabled is false: nothing was sent anywhere; the run is in {self.journal.folder}"
            )
            return None
        self.delivery.submit(self.journal.key, unfinished)
        if not self.delivery.drain(DRAIN_SECONDS, away_seconds=DRAIN_SECONDS):
            error = self.delivery.outbox.last_error
            self.notes.append(f"MLflow does not have the run yet ({error}); the same command sends it.")
            return None
        return self.delivery.run_id_of(self.journal.key)

    def _project(self, key: str) -> TrialProjection | None:
        record = self.journal.read(weights=True)
        if record is None:
            return None
        record.config = self.config  # of the same key; experiment and folders are as they are named now
        return project_trial(record, self.corpus, self.pairs, self.journal.folder / "shared", None, self.tags)

    def _write_artifacts(self, record: TrialRecord) -> None:
        shared = self.journal.folder / "shared"
        for name, source in artifacts_of(record, self.corpus, self.pairs, shared).items():
            write_whole(self.journal.folder / name, source if isinstance(source, bytes) else source.read_bytes())
