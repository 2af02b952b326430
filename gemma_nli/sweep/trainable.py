"""A trial as Ray sees it: one cross-validation, a step a fold (or one step for all folds that train together).

The trial's journal is its only memory: a trial that starts again, here or on another node, finds its finished folds
there. Ray's own checkpoints are not used.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from ray import tune

from gemma_nli.corpus.redaction import without_posts
from gemma_nli.errors import GemmaNliError
from gemma_nli.features import FeatureStore
from gemma_nli.masking import mask_credentials
from gemma_nli.model.encoder import identify_encoder, resolve_device
from gemma_nli.sweep.sharing import SharedFeatures, TrialContext
from gemma_nli.training.cross_validation import run_folds
from gemma_nli.training.results import CvResult, FoldResult, summarize
from gemma_nli.trial import TrialJournal
from gemma_nli.trial.hardware import hardware_tags
from gemma_nli.trial.system_metrics import SystemSampler


class TrialCrashed(Exception):
    """An exception that was no mistake of the user's, as far as it may be shown; Ray tries such a trial again."""


class CvTrial(tune.Trainable):
    """Runs the cell named in its config: `{"key": trial key, "settings": dotted settings}`."""

    def setup(self, config: dict[str, Any], context: TrialContext) -> None:
        self.context = context
        torch.set_num_threads(max(1, int(context.cpus)))
        self.features = SharedFeatures(
            context.blocks, FeatureStore(context.storage / "features", context.base.features)
        )
        self.held = ExitStack()
        self.folds: Iterator[list[FoldResult]] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial without a new process: encoders, features and imports stay warm."""
        self.held.close()
        self.folds = None
        return True

    def step(self) -> dict[str, Any]:
        if self.folds is None:  # one journal for the whole trial: it knows what it has written, and is refused else
            self.journal = TrialJournal(self.context.storage, self.config["key"])
        journal = self.journal
        try:
            return self._step(journal)
        except GemmaNliError as error:
            return self._fail(journal, f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - recorded, then raised again as far as it may be shown
            told = self._fail(journal, f"{type(error).__name__}: {error}")["error"]
            raise TrialCrashed(told) from None  # Ray writes what we raise to its files: not the original, uncensored

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing but the trial's key: what was done is in the journal."""
        return {"key": self.config["key"]}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load: the next step reads the journal."""

    def cleanup(self) -> None:
        self.held.close()

    def _step(self, journal: TrialJournal) -> dict[str, Any]:
        if self.folds is None:
            finished = self._begin(journal)
            if finished is not None:
                return finished
        assert self.folds is not None
        folds = next(self.folds, [])
        if folds:
            self._record(journal, folds)
        result = summarize([self.done[fold] for fold in sorted(self.done)], self.context.pairs)
        if result.diverged:
            worst = result.diverged[0]
            return self._fail(journal, f"fold {worst.fold} diverged: {worst.detail}", result)
        last = len(self.done) == self.context.pairs.num_folds
        if last:
            journal.finish(result)
            self.held.close()
        return self._report(result, done=last)

    def _begin(self, journal: TrialJournal) -> dict[str, Any] | None:
        """Claim the trial and take up what its journal holds; a result where another sweep has just finished it."""
        context = self.context
        if context.stopping is not None and context.stopping.exists():
            return self._report(CvResult([], {}, {}), done=True)
        self.run_config = context.base.with_settings(self.config["settings"])
        self.held.enter_context(journal.claim())
        record = journal.read()
        self.done: dict[int, FoldResult] = dict(record.folds) if record is not None else {}
        if record is not None and record.state == "finished":
            self.held.close()
            return self._report(CvResult(list(self.done.values()), record.aggregates, record.criteria), done=True)
        encoder = identify_encoder(self.run_config.model)
        device = resolve_device(self.run_config.device)
        journal.start(
            self.run_config,
            context.pairs.fingerprint,
            encoder.fingerprint,
            context.pairs.num_folds,
            {**context.tags, **hardware_tags(device)},
        )
        self.sampler = self.held.enter_context(SystemSampler(self.run_config.mlflow.system_metrics_seconds, device))
        self.folds = run_folds(self.run_config, context.corpus, context.pairs, self.features, self.done)
        return None

    def _record(self, journal: TrialJournal, folds: list[FoldResult]) -> None:
        frozen, num_folds = self.run_config.model.freeze_encoder, self.context.pairs.num_folds
        journal.add_folds(folds, keep_weights=frozen)
        if not frozen:
            journal.keep_weights(folds, self.done.values(), self.run_config.output.fold_bytes(num_folds))
        if len(self.done) + len(folds) == num_folds:
            self.sampler.stop()
        journal.add_system(self.sampler.collect())
        self.done.update({fold.fold: fold for fold in folds})

    def _report(self, result: CvResult, done: bool) -> dict[str, Any]:
        """What Ray is told. `aggregates` are pairs: Tune keeps six running statistics of every number it finds."""
        return {
            "folds_done": len(result.folds),
            "num_folds": self.context.pairs.num_folds,
            "mean_f1": result.aggregates.get("cv_aggregate/mean_f1", math.nan),
            "objective": result.aggregates.get(self.context.objective, math.nan),
            "aggregates": tuple(result.aggregates.items()),
            "failed": False,
            "done": done,
        }

    def _shown(self, message: str) -> str:
        """What may be written down of an exception: no credentials and, unless `data.log_text` allows it, no posts."""
        masked = mask_credentials(message)
        return masked if self.context.base.data.log_text else without_posts(masked, self.context.corpus)

    def _fail(self, journal: TrialJournal, error: str, result: CvResult | None = None) -> dict[str, Any]:
        """Record why; the trial then ends as done for Ray, which would otherwise try the same mistake again."""
        error = self._shown(error)
        shown = self._shown(traceback.format_exc()) if result is None else None
        try:
            journal.stop("failed", result, error=error, traceback=shown)
        finally:
            self.held.close()
        return {
            "error": error,
            "folds_done": 0,
            "mean_f1": math.nan,
            "objective": math.nan,
            "aggregates": (),
            "failed": True,
            "done": True,
        }
