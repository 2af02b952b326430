"""`gemma-nli train`: one configuration cross-validated here, its journal the truth, its MLflow run a projection of it.

The same key gives the same numbers, so a run that was cut off goes on after its last finished fold, and one that has
finished is shown from its journal; `again` trains it anew.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gemma_nli.config import RunConfig, home
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redaction import without_posts
from gemma_nli.corpus.redsm5 import Corpus, load_corpus
from gemma_nli.errors import GemmaNliError
from gemma_nli.features import FeatureStore
from gemma_nli.files import write_whole
from gemma_nli.masking import mask_credentials
from gemma_nli.model.encoder import identify_encoder, resolve_device
from gemma_nli.storage import Place
from gemma_nli.tracking.from_journal import artifacts_of, project_trial
from gemma_nli.tracking.outbox import PENDING_FILE, Outbox
from gemma_nli.tracking.tracker import MlflowTracker
from gemma_nli.training.cross_validation import cross_validate
from gemma_nli.training.listeners import Listener, Silent
from gemma_nli.training.results import CvResult, FoldResult
from gemma_nli.trial import TrialJournal, TrialRecord, trial_key
from gemma_nli.trial.hardware import environment_tags, hardware_tags
from gemma_nli.trial.system_metrics import SystemSampler

log = logging.getLogger(__name__)
DRAIN_SECONDS = 20.0


@dataclass(frozen=True)
class LocalRun:
    """How a run went. `folder` holds its journal (and, without MLflow, its artifacts); `run_id` is None without MLflow.

    reused: nothing was trained, the journal was finished already. notes: what its user should know.
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
        storage: a sweep's storage folder, for its encoded texts; else the default one, or without MLflow the output's.
        tags: the user's own tags of the run; `note` is its description.
        again: train all folds anew, also those that an earlier run finished.
        listeners: told as the folds go on.
    Raises:
        CorpusError, EncoderError, TrackingError: before anything is trained.
        TrainingError: a fold cannot be trained; the run is then FAILED in MLflow, with the reason.
    """
    began = time.monotonic()
    corpus = load_corpus(config.data.data_dir)
    pairs = build_pairs(corpus, config.data)
    encoder = identify_encoder(config.model).fingerprint
    journal = TrialJournal(output or default_output(), trial_key(config, pairs.fingerprint, encoder))
    device = resolve_device(config.device)
    with journal.claim(wait_seconds=0), _Desk(config, corpus, pairs, journal, dict(tags or {})) as desk:
        record = journal.read()
        reused = record is not None and record.state == "finished" and not again
        if not reused:
            done = {} if again or record is None else dict(record.folds)
            facts = {**environment_tags(), **hardware_tags(device), "gemma_nli.computed_by": "train"}
            journal.start(config, pairs.fingerprint, encoder, pairs.num_folds, facts)
            desk.post()
            store = FeatureStore(_features_folder(config, output, storage), config.features)
            with SystemSampler(config.mlflow.system_metrics_seconds, device) as sampler:
                keeper = _Keeper(config, journal, sampler, done, desk.post)
                with _ends_recorded(config, corpus, journal, sampler, desk):
                    result = cross_validate(config, corpus, pairs, store, [keeper, *listeners], done)
                    sampler.stop()
                    keeper.end(result)
        record = journal.read(weights=True)
        assert record is not None, "it has just been written"
        result = CvResult([record.folds[k] for k in sorted(record.folds)], record.aggregates, record.criteria)
        run_id = desk.finish(record)
        if reused:
            desk.notes.append("this configuration was trained before; its numbers are shown. --again trains it anew.")
        seconds = time.monotonic() - began
        about = (config.experiment, reused, seconds, corpus.fingerprint, desk.notes)
        return LocalRun(record, result, journal.folder, run_id, *about)


def _features_folder(config: RunConfig, output: Path | None, storage: Place | None) -> Place:
    """Encoded texts are shared with sweeps; a run without MLflow writes to nothing but its output folder."""
    shared = home() / "storage" if config.mlflow.enabled else output or default_output()
    return (storage or shared) / "features"


class RunCrashed(Exception):
    """An exception that was no mistake of the user's, its traceback included, as far as it may be shown."""


@contextmanager
def _ends_recorded(
    config: RunConfig, corpus: Corpus, journal: TrialJournal, sampler: SystemSampler, desk: _Desk
) -> Iterator[None]:
    """An error is journalled, as far as it may be shown, before it goes on; Ctrl-C leaves a run that can go on."""
    try:
        yield
    except Exception as error:
        told, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        if not config.data.log_text:
            told, trace = (without_posts(text, corpus) for text in (told, trace))
        sampler.stop()
        journal.add_system(sampler.collect())
        journal.stop("failed", error=mask_credentials(told), traceback=mask_credentials(trace))
        desk.finish(journal.read(weights=True))
        if isinstance(error, GemmaNliError):
            raise
        raise RunCrashed(f"{told}\n{trace}") from None  # a terminal's history is a log, too: not the original
    except BaseException:
        desk.finish(journal.read(weights=True), unfinished="stopped")
        raise


class _Keeper(Silent):
    """Writes folds to the journal as they end, as a trial of a sweep does."""

    def __init__(
        self,
        config: RunConfig,
        journal: TrialJournal,
        sampler: SystemSampler,
        done: Mapping[int, FoldResult],
        post: Callable[[], None],
    ) -> None:
        self.config, self.journal, self.sampler, self.post = config, journal, sampler, post
        self.done = list(done.values())

    def folds_ended(self, folds: list[FoldResult]) -> None:
        frozen = self.config.model.freeze_encoder
        self.journal.add_folds(folds, keep_weights=frozen)
        if not frozen:
            limit = self.config.output.fold_bytes(self.config.data.num_folds)
            self.journal.keep_weights(folds, self.done, limit)
        self.done += folds
        self.journal.add_system(self.sampler.collect())
        self.post()

    def end(self, result: CvResult) -> None:
        self.journal.add_system(self.sampler.collect())
        if result.diverged:
            worst = result.diverged[0]
            self.journal.stop("failed", result, error=f"fold {worst.fold} diverged: {worst.detail}")
        else:
            self.journal.finish(result)


class _Desk:
    """Shows the journal in MLflow, off the training's path; with `mlflow.enabled: false` in the run's folder alone."""

    def __init__(
        self, config: RunConfig, corpus: Corpus, pairs: PairTable, journal: TrialJournal, tags: dict[str, str]
    ) -> None:
        self.config, self.corpus, self.pairs, self.journal, self.tags = config, corpus, pairs, journal, tags
        self.notes: list[str] = []
        self.tracker: MlflowTracker | None = None
        self.outbox: Outbox | None = None

    def __enter__(self) -> _Desk:
        if self.config.mlflow.enabled:
            self.tracker = MlflowTracker(self.config.mlflow, self.config.experiment)
            _ = self.tracker.experiment_id  # an unreachable store is a mistake now, and only a delay later
            self.outbox = Outbox(self.journal.folder / PENDING_FILE)
        return self

    def __exit__(self, *_: object) -> None:
        if self.outbox is not None:
            self.outbox.close(0.0)

    def post(self) -> None:
        if self.outbox is not None:
            self.outbox.submit(self.journal.key, partial(self._deliver, "running"))

    def finish(self, record: TrialRecord | None, unfinished: str = "running") -> str | None:
        """Show the end; the id of the MLflow run, None where there is none (yet)."""
        assert record is not None
        if self.tracker is None or self.outbox is None:
            self._write_artifacts(record)
            self.notes.append(
                f"mlflow.enabled is false: nothing was sent anywhere; the run is in {self.journal.folder}"
            )
            return None
        self.outbox.submit(self.journal.key, partial(self._deliver, unfinished))
        if not self.outbox.drain(DRAIN_SECONDS):
            self.notes.append(f"MLflow has not got the run yet ({self.outbox.last_error}); the same command sends it.")
            return None
        return self.tracker.known_trials(None)[self.journal.key][0]

    def _deliver(self, unfinished: str) -> str | None:
        assert self.tracker is not None
        record = self.journal.read(weights=True)
        if record is None:
            return None
        record.config = self.config  # of the same key; experiment and folders are as they are named now
        trial = project_trial(record, self.corpus, self.pairs, self.journal.folder / "shared", None, self.tags)
        if record.state == "running":
            trial = dataclasses.replace(trial, state=unfinished, ended_ms=None)
        return self.tracker.sync_trial(None, trial)

    def _write_artifacts(self, record: TrialRecord) -> None:
        shared = self.journal.folder / "shared"
        for name, source in artifacts_of(record, self.corpus, self.pairs, shared).items():
            write_whole(self.journal.folder / name, source if isinstance(source, bytes) else source.read_bytes())
