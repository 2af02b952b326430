"""Trials on Ray Tune: a prepared sweep's waiting cells (or what its study proposes), run and watched."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ray import tune
from ray.exceptions import RayError
from ray.tune.execution import class_cache

from gemma_nli.base.environment import set_in_environment
from gemma_nli.base.errors import JournalError
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.build_searcher import build_searcher
from gemma_nli.sweep.cluster.ray_session import ray_failed
from gemma_nli.sweep.cluster.trial_resources import TrialResources
from gemma_nli.sweep.interrupts import Interrupts
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.ray.callback import LiveSweep, SweepCallback, TrialChanged, register_live, unregister_live
from gemma_nli.sweep.ray.lost_trials import LostTrials
from gemma_nli.sweep.ray.scheduler import FoldScheduler, build_scheduler
from gemma_nli.sweep.ray.searchers import CellSearcher, StudySearcher
from gemma_nli.sweep.ray.shared_features import SharedBlock, TrialContext
from gemma_nli.sweep.ray.trainable import CvTrial
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.trial.hardware import environment_tags

PASSED_ON = frozenset({"RAY_CHDIR_TO_TRIAL_DIR"})
"""What trials get of the driver's environment. Tune's own list has AWS's secrets, which would stand in the
command line of each worker that starts and in Ray's log. Workers have the environment of their node's Ray."""


@dataclass
class Tuning:
    """Trials run together. `trial_changed` gets the key of each that changed, `notes` what the user should know."""

    ready: Prepared
    folder: SweepFolder
    progress: ProgressState
    trial_changed: TrialChanged
    interrupts: Interrupts
    resources: TrialResources
    notes: list[str]

    @property
    def spec(self) -> SweepSpec:
        return self.ready.spec

    def run(self, blocks: tuple[SharedBlock, ...]) -> None:
        """Start what waits and follow it to its end, or to the user's interrupt."""
        began = time.monotonic()
        context = TrialContext(
            base=self.spec.base,
            corpus=self.ready.corpus,
            pairs=self.ready.pairs,
            storage=self.ready.storage,
            objective=self.spec.metric,
            cpus=self.resources.cpu,
            tags={**environment_tags(), "gemma_nli.computed_by": self.ready.sweep_id},
            blocks=blocks,
            stopping=self.folder.stopping,
        )
        known = [record for key, record in self.ready.records.items() if key in self.ready.trials]
        scheduler = build_scheduler(self.spec, self.ready.storage, self.ready.pairs, known)

        def stopped(key: str) -> str | None:
            decision = scheduler.stopped.get(key) if scheduler is not None else None
            return decision.reason if decision is not None else None

        searcher = build_searcher(self.ready, self.folder, self.progress, self.trial_changed, stopped, self.notes)
        lost = LostTrials(self.ready, context.tags)
        slow = (
            any(not cell.config.model.freeze_encoder for cell in self.ready.cells.values())
            or not self.spec.base.model.freeze_encoder
        )
        register_live(
            self.ready.sweep_id,
            LiveSweep(
                self.progress, self.ready.storage, self.ready.pairs, self.trial_changed, slow, stopped, lost, self.notes
            ),
        )
        try:
            self._fit(context, searcher, scheduler)
            for _ in range(self.spec.resources.max_failures):
                if not lost.again or self._is_over(began):
                    break
                self._fit(context, CellSearcher(lost.take()), scheduler)
            if not self._is_over(began):
                self._give_up(lost)
        finally:
            searcher.close()
            unregister_live(self.ready.sweep_id)

    def _give_up(self, lost: LostTrials) -> None:
        try:
            for key in lost.give_up_all():
                self.progress.update(key, "failed")
                self.trial_changed(key)
        except JournalError as error:
            self.notes.append(str(error))

    def _is_over(self, began: float) -> bool:
        """Whether the user or the time budget has ended it: unfinished trials then continue when the sweep does."""
        budget = self.spec.search.time_budget
        return self.interrupts.count > 0 or (budget is not None and time.monotonic() - began >= budget)

    def _fit(
        self,
        context: TrialContext,
        searcher: CellSearcher | StudySearcher,
        scheduler: FoldScheduler | None,
    ) -> None:
        self.folder.clear_ray()
        self.interrupts.on_first(searcher.stop)
        class_cache.ENV_VARS_TO_PROPAGATE = PASSED_ON
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(CvTrial, context=context), self.resources.request()),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=searcher.limit,
                max_concurrent_trials=self.resources.limit,
                time_budget_s=self.spec.search.time_budget,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(self.folder.path / "ray"),
                callbacks=[SweepCallback(self.ready.sweep_id, self.spec.base.experiment)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=self.spec.resources.max_failures),
                verbose=0,
            ),
        )
        try:
            with set_in_environment("TUNE_MAX_PENDING_TRIALS_PG", str(self.resources.pending)):
                tuner.fit()
        except RayError as error:
            raise ray_failed(error) from None
        finally:
            self.folder.clear_ray()
