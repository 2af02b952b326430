"""The one runner of a trial: claim it, load finished folds, start, train folds, journal each, end or fail.

`gemma-nli train` runs it through; a Ray trial runs a step of it whenever Ray asks. Both only start it and show what its
journal says, so that both leave the same journal for the same configuration.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from gemma_nli.base.errors import GemmaNliError
from gemma_nli.base.outgoing import shown
from gemma_nli.base.private_texts import PrivateTexts, texts_of
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureSource
from gemma_nli.model.encoder import identify_encoder, resolve_device
from gemma_nli.training.cross_validation import RunFolds, run_folds
from gemma_nli.training.listeners import Listener
from gemma_nli.training.results import CvResult, FoldResult, summarize
from gemma_nli.trial.hardware import hardware_tags
from gemma_nli.trial.journal import TrialJournal
from gemma_nli.trial.record import UNKNOWN_ENCODER, TrialRecord
from gemma_nli.trial.system_metrics import SystemSampler


class TrialCrashed(Exception):
    """An exception that was not the user's mistake, with its traceback, private text removed."""


class TrialRun:
    """A trial from its claim to its end.

    >>> with TrialRun(journal, config, corpus, pairs, features) as trial:
    ...     if trial.begin() is None:
    ...         while not trial.over:
    ...             trial.step()

    `begin` and `step` record an exception before they raise it: a GemmaNliError as one of its kind, any other as a
    TrialCrashed, both without credentials and, unless `data.log_text` allows them, without posts.

    Args:
        features: where a frozen encoder's vectors come from.
        tags: facts for the journal in addition to the hardware's.
        wait_seconds: for another process that holds the trial; -1 waits as long as it takes.
        train: what trains the folds, `run_folds` unless several trials train together.
    Raises:
        JournalError: on entry, if another process holds the trial for longer.
    """

    def __init__(
        self,
        journal: TrialJournal,
        config: RunConfig,
        corpus: Corpus,
        pairs: PairTable,
        features: FeatureSource,
        tags: Mapping[str, str] | None = None,
        wait_seconds: float = -1,
        train: RunFolds = run_folds,
    ) -> None:
        self.journal, self.config, self.corpus, self.pairs, self.features = journal, config, corpus, pairs, features
        self.tags, self.wait_seconds, self.train = dict(tags or {}), wait_seconds, train
        self.done: dict[int, FoldResult] = {}
        self.over = False
        self.error: str | None = None  # why it failed, private text removed
        self._private = PrivateTexts(lambda: texts_of(corpus))
        self._held = ExitStack()
        self._started = False
        self._sampler: SystemSampler | None = None
        self._audience: list[Listener] = []
        self._folds: Iterator[list[FoldResult]] = iter(())

    def __enter__(self) -> TrialRun:
        self._held.enter_context(self.journal.claim(self.wait_seconds))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def begin(self, listeners: Iterable[Listener] = (), again: bool = False) -> TrialRecord | None:
        """Start a new attempt after the finished folds; gives the record instead if the trial is already finished.

        Args:
            listeners: called as folds end, after the journal has them.
            again: train all folds anew, also those that an earlier attempt finished.
        """
        with self._recorded():
            record = self.journal.read()
            if record is not None and not again:
                self.done = dict(record.folds)
                if record.state == "finished":
                    self.over = True
                    return record
            encoder = identify_encoder(self.config.model).fingerprint
            device = resolve_device(self.config.device)
            self._start(encoder, hardware_tags(device))
            self._sampler = self._held.enter_context(SystemSampler(self.config.mlflow.system_metrics_seconds, device))
            self._audience = list(listeners)
            for listener in self._audience:
                listener.started(self.pairs.num_folds, dict(self.done))
            self._folds = self.train(
                self.config, self.corpus, self.pairs, self.features, dict(self.done), self._audience
            )
        return None

    def step(self) -> CvResult:
        """Train and record the next fold, or all that train together; the result of the folds that are done.

        After the last fold, or one that diverged, the trial is over and its journal says how it ended.
        """
        with self._recorded():
            folds = next(self._folds, [])
            if folds:
                self._record(folds)
            result = summarize([self.done[fold] for fold in sorted(self.done)], self.pairs)
            if result.diverged or len(self.done) == self.pairs.num_folds:
                self._end(result)
            return result

    def _start(self, encoder: str, hardware: Mapping[str, str]) -> None:
        tags = {**self.tags, **hardware}
        self.journal.start(self.config, self.pairs.fingerprint, encoder, self.pairs.num_folds, tags)
        self._started = True

    def _record(self, folds: list[FoldResult]) -> None:
        frozen = self.config.model.freeze_encoder
        self.journal.add_folds(folds, keep_weights=frozen)
        if not frozen:
            limit = self.config.output.fold_bytes(self.pairs.num_folds)
            self.journal.keep_weights(folds, self.done.values(), limit)
        self.done.update({fold.fold: fold for fold in folds})
        self._keep_samples(last=len(self.done) == self.pairs.num_folds)
        for listener in self._audience:
            listener.folds_ended(folds)

    def _end(self, result: CvResult) -> None:
        for listener in self._audience:
            listener.finished(result)
        self._keep_samples(last=True)
        if result.diverged:
            worst = result.diverged[0]
            self.error = self._shown(f"fold {worst.fold} diverged: {worst.detail}")
            self.journal.stop("failed", result, error=self.error)
        else:
            self.journal.finish(result)
        self.over = True

    def _keep_samples(self, last: bool) -> None:
        """What the machine was doing since the last call goes to the journal."""
        if self._sampler is not None:
            if last:
                self._sampler.stop()
            self.journal.add_system(self._sampler.collect())

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """An exception is journalled before it is passed on; an interrupt leaves a trial that can be continued."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - recorded, then raised again as far as it may be shown
            raise self._failed(error) from None
        except BaseException:
            self._keep_samples(last=True)
            raise

    def _failed(self, error: Exception) -> Exception:
        """Record why the trial fails; gives the exception to raise, private text removed."""
        self.over = True
        self.error = self._shown(f"{type(error).__name__}: {error}")
        trace = self._shown(traceback.format_exc())
        if not self._started:
            self._start(UNKNOWN_ENCODER, {})
        self._keep_samples(last=True)
        self.journal.stop("failed", error=self.error, traceback=trace)
        if isinstance(error, GemmaNliError):
            return type(error)(self._shown(str(error)))
        return TrialCrashed(f"{self.error}\n{trace}")

    def _shown(self, message: str) -> str:
        text = shown(message)
        return text if self.config.data.log_text else self._private.left_out(text)
