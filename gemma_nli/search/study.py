"""An Optuna study with correct states: finished trials COMPLETE, stopped ones PRUNED, failed ones FAIL, none RUNNING.

The study lives in its own SQLite file (WAL) or a server's database, so optuna-dashboard opens it beside a running
sweep. It is the memory of the search: what a dead driver left RUNNING is offered again first, and trials are counted
over all runs of the sweep.

User attributes of a trial: `settings` (what ran), `kind` one of
    asked        the sampler's own
    reused       asked, and answered by what another sweep or an earlier run has finished
    duplicate    equal to another trial of this study; given its result and not counted
    impossible   settings that do not fit together; FAIL and not counted
    carried      finished or pruned in an earlier form of the sweep's space, added from its journal (see
    carry_trials.py) earlier      a finished run of another experiment, given as a start; not counted
    retry        asked again after a failure, which then is not counted
    elsewhere    equal to a trial that another driver of the same study is running; FAIL and not counted
    surplus      asked while another driver asked for the last one; FAIL and not counted
and `owner`: which of the drivers that share the study opened it. A driver resumes, and closes, only its own trials.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from gemma_nli.base.random_streams import FRESH_CELLS
from gemma_nli.config import RunConfig
from gemma_nli.search.drivers import COUNTED, Drivers, count
from gemma_nli.search.study_storage import open_study
from gemma_nli.search.study_storage import study_url as study_url
from gemma_nli.spec.space import config_identity
from gemma_nli.spec.spec import SweepSpec

log = logging.getLogger(__name__)
Values = tuple[float, ...]
_MISSES, _DRAWS = 20, 2000


@dataclass(frozen=True)
class Proposal:
    """What to run next: the Optuna trial's number, the settings, and the whole configuration."""

    number: int
    settings: dict[str, Any]
    config: RunConfig


@dataclass
class _Answer:
    """A configuration's result: values if it ran to its end, else the means it was stopped at (None: failed)."""

    values: Values | None
    means: dict[int, float] = field(default_factory=dict)
    failed: bool = False


class SweepStudy:
    """Proposes configurations and records how they end. It closes every trial that it opens."""

    def __init__(
        self,
        spec: SweepSpec,
        name: str,
        url: str,
        known: Callable[[dict[str, Any]], Mapping[str, float] | None] = lambda settings: None,
        owner: str = "",
    ) -> None:
        """
        Args:
            name: the study's name in its database: the sweep's id.
            url: SQLAlchemy URL; see `study_url`.
            known: the metrics of settings that another sweep or an earlier run has finished, or None.
            owner: names this driver over all its resumes, among those that share the study; see `SweepFolder.owner`.
        Raises:
            SweepError: the database cannot be opened, or a package that the sampler needs is not installed.
        """
        self.space, self.base = spec.space, spec.base
        self.num_trials, self.seed = spec.search.num_trials, spec.search.seed
        self.objectives, self.known = spec.objectives, known
        self.study, self.trials = open_study(spec, name, url)
        self.drivers = Drivers(self.study, owner, self.identity)
        self._answers: dict[str, _Answer] = {}
        self._running: dict[str, int] = {}
        self._followers: dict[int, list[int]] = {}
        self._again: list[FrozenTrial] = []
        self._dry = False
        self._starts: tuple[Mapping[str, Any], ...] | None = spec.search.warm_start.configs

    @property
    def counted(self) -> int:
        """Trials that count towards num_trials: the sampler's own, over all runs, failures that ran again left out."""
        return count(self.study.get_trials(deepcopy=False))

    def propose(self) -> Proposal | None:
        """The next configuration that has to run, or None: enough trials, or nothing new can be found now.

        Configurations whose result is known are added to the study on the way.
        """
        if self._starts is not None:  # not in __init__: a study that is only read must not change
            self._take_up()
            self._enqueue(self._starts)
            self._starts = None
        while self._again:
            proposal = self._offer(self._again.pop(0))
            if proposal is not None:
                return proposal
        misses = 0
        while not self._dry and (self._waiting() or self.counted < self.num_trials):
            if misses == _MISSES and not self._enqueue_fresh():
                self._dry = True
                log.info("the space has no configuration left that this sweep has not tried")
                break
            misses = 0 if misses == _MISSES else misses
            trial = self.study.ask()
            settings = self.space.suggest(trial)
            trial.set_user_attr("settings", settings)
            self.drivers.claim(trial)
            if self.drivers.is_surplus(trial.number, self.num_trials):
                self._give_up(trial.number, "surplus")
                return None
            proposal = self._open_trial(trial.number, settings)
            if proposal is not None:
                return proposal
            misses += 1
        return None

    def _enqueue_fresh(self) -> bool:
        """When the sampler repeats itself, enqueue a random new configuration; False if there is none."""
        rng = FRESH_CELLS.generator(self.seed, len(self.study.get_trials(deepcopy=False)))
        for _ in range(_DRAWS):
            cell = self.space.sample(self.base, rng)
            if cell.identity not in self._answers and cell.identity not in self._running:
                params = self.space.params_of(cell.settings)
                assert params is not None, "a draw of the space is in the space"
                self.study.enqueue_trial(params)
                return True
        return False

    def report(self, number: int, folds_done: int, mean_f1: float) -> None:
        """The running mean F1 of a trial after some of its folds, as Optuna's intermediate value."""
        if len(self.objectives) > 1 or not math.isfinite(mean_f1):
            return  # Optuna keeps no intermediate values of several objectives
        if not self.trials.read(number).state.is_finished():
            self.trials.report(number, folds_done, float(mean_f1))

    def finish(self, number: int, metrics: Mapping[str, float]) -> None:
        """The trial ran all its folds: COMPLETE, or FAIL if an objective is missing or NaN."""
        self._close(number, _Answer(self.values(metrics), failed=self.values(metrics) is None))

    def prune(self, number: int, reason: str = "") -> None:
        """A scheduler stopped the trial: PRUNED, with the means reported so far and never as a full result."""
        trial = self.trials.read(number)
        if reason:
            self.trials.note(number, "reason", reason)
        self._close(number, _Answer(None, dict(trial.intermediate_values)))

    def fail(self, number: int, reason: str = "") -> None:
        """The trial failed or was interrupted: FAIL, and run again when the sweep is run again."""
        if reason:
            self.trials.note(number, "reason", reason[:500])
        self._close(number, _Answer(None, failed=True))

    def close(self, reason: str = "the sweep ended before it did") -> None:
        """Leave nothing RUNNING: Ray does not notify its searcher of trials that a time budget or Ctrl-C ends."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self.drivers.is_mine(trial):
                self.fail(trial.number, reason)
        self._again.clear()

    def add_earlier(self, runs: Iterable[tuple[Mapping[str, Any], Sequence[float]]]) -> int:
        """Add finished runs of an earlier experiment as completed trials, each once over all resumes.

        Args:
            runs: (dotted settings, one value per objective); settings outside the space are ignored.
        Returns:
            How many of them lie in the space, added now or before.
        """
        trials = self.study.get_trials(deepcopy=False)
        seen = {_text(trial.params) for trial in trials if trial.user_attrs.get("kind") == "earlier"}
        distributions, taken = self.space.distributions(), 0
        for settings, values in runs:
            params = self.space.params_of(settings)
            if params is None or not all(math.isfinite(value) for value in values):
                continue
            taken += 1
            if _text(params) not in seen:
                seen.add(_text(params))
                self.study.add_trial(
                    optuna.trial.create_trial(
                        params=params,
                        distributions={key: distributions[key] for key in params},
                        values=[float(value) for value in values],
                        user_attrs={"kind": "earlier", "settings": self.space.settings_of(params)},
                    )
                )
        return taken

    def pareto_front(self) -> list[tuple[dict[str, Any], Values]]:
        """(settings, values) of the trials that no other beats in every objective; one best with one objective."""
        best = self.study.best_trials if self._any_complete() else []
        return [(dict(trial.user_attrs.get("settings", {})), tuple(trial.values)) for trial in best]

    def _any_complete(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def _waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _take_up(self) -> None:
        """What earlier runs of the sweep left: their results, trials to run again, failures to retry."""
        trials = self.study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get("retry_of") for trial in trials}
        for trial in trials:
            kind = trial.user_attrs.get("kind", "asked")
            if trial.state == TrialState.RUNNING:
                if self.drivers.is_mine(trial):
                    self._again.append(trial)
            elif trial.state == TrialState.FAIL and kind in COUNTED and trial.number not in retried:
                if not self.drivers.is_mine(trial):
                    continue
                self.study.enqueue_trial(trial.params, user_attrs={"kind": "retry", "retry_of": trial.number})
            elif trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and kind in COUNTED:
                self._learn(trial)

    def _learn(self, trial: FrozenTrial) -> None:
        """The result of a trial that has ended, whoever ran it."""
        identity = self.identity(self._settings(trial))
        if identity is not None:
            values = tuple(trial.values) if trial.state == TrialState.COMPLETE else None
            self._answers[identity] = _Answer(values, dict(trial.intermediate_values))

    def identity(self, settings: Mapping[str, Any]) -> str | None:
        """What makes two trials the same configuration; None if the settings are not a valid configuration."""
        config = self._configure(settings)
        return config_identity(config) if config is not None else None

    def _give_up(self, number: int, kind: str) -> None:
        self._mark(number, kind)
        self.study.tell(number, state=TrialState.FAIL)

    def _enqueue(self, configs: Iterable[Mapping[str, Any]]) -> None:
        for config in configs:
            params = self.space.params_of(config, partial=True)
            assert params is not None, "the spec has checked the warm start"
            self.study.enqueue_trial(params, skip_if_exists=True)

    def _offer(self, trial: FrozenTrial) -> Proposal | None:
        """A trial that a dead driver left RUNNING, with the same parameters."""
        settings = self._settings(trial)
        if settings:
            return self._open_trial(trial.number, settings)
        self.fail(trial.number, "cut off")
        return None

    def _open_trial(self, number: int, settings: dict[str, Any]) -> Proposal | None:
        """The trial as a proposal, or None after giving it the known result of its configuration."""
        config = self._configure(settings)
        if config is None:
            self._give_up(number, "impossible")
            return None
        identity = config_identity(config)
        if identity in self._running and self._running[identity] != number:
            self._mark(number, "duplicate")
            self._followers.setdefault(self._running[identity], []).append(number)
            return None
        if identity not in self._answers and (other := self.drivers.same_elsewhere(number, identity)) is not None:
            if other.state == TrialState.RUNNING:
                self._give_up(number, "elsewhere")
                return None
            self._learn(other)
        answer = self._answers.get(identity)
        if answer is None:
            metrics = self.known(settings)
            if metrics is None:
                self._running[identity] = number
                return Proposal(number, settings, config)
            answer = _Answer(self.values(metrics), failed=self.values(metrics) is None)
            self._answers[identity] = answer
            self._mark(number, "reused")
        else:
            self._mark(number, "duplicate")
        self._tell(number, answer)
        return None

    def _close(self, number: int, answer: _Answer) -> None:
        identity = next((key for key, held in self._running.items() if held == number), None)
        if identity is not None:
            del self._running[identity]
            self._answers[identity] = answer
        for each in [number, *self._followers.pop(number, [])]:
            self._tell(each, answer)

    def _tell(self, number: int, answer: _Answer) -> None:
        if self.trials.read(number).state.is_finished():
            return
        if answer.values is not None:
            self.study.tell(number, list(answer.values))
        elif answer.failed:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            for folds_done, mean in answer.means.items():
                self.report(number, folds_done, mean)
            self.study.tell(number, state=TrialState.PRUNED)

    def values(self, metrics: Mapping[str, float]) -> Values | None:
        """The objectives' values, None if one is missing or NaN."""
        values = tuple(float(metrics.get(objective.metric, math.nan)) for objective in self.objectives)
        return values if all(math.isfinite(value) for value in values) else None

    def _settings(self, trial: FrozenTrial) -> dict[str, Any]:
        return dict(trial.user_attrs.get("settings") or self.space.settings_of(trial.params))

    def _configure(self, settings: Mapping[str, Any]) -> RunConfig | None:
        try:
            return self.space.configure(self.base, settings)
        except ValidationError:
            return None

    def _mark(self, number: int, kind: str) -> None:
        self.trials.note(number, "kind", kind)


def _text(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
