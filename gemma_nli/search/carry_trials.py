"""Trials that journals know and a study does not: carried into it, so that a changed space forgets nothing.

Optuna refuses a study whose distributions change their kind or their choices. So each space has a study of its own, and
what earlier ones have found is told to it, as far as the space holds it: finished and pruned trials as what they are,
failed and cut-off ones as the first to be tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from gemma_nli.search.drivers import COUNTED, OWNER
from gemma_nli.search.study import SweepStudy


@dataclass(frozen=True)
class EarlierTrial:
    """A trial as its journal tells it.

    Args:
        settings: of the study's space.
        metrics: of a trial that ran all its folds, else None.
        means: of a pruned trial the running mean F1 after each fold, else None; without both it has to run again.
    """

    settings: Mapping[str, Any]
    metrics: Mapping[str, float] | None = None
    means: Mapping[int, float] | None = None


def carry(study: SweepStudy, trials: Iterable[EarlierTrial]) -> int:
    """Tell a study what it does not know of these trials; each once, however often the sweep is run.

    Returns:
        How many were told as finished or pruned.
    """
    carried, known = 0, _identities(study)
    for trial in trials:
        params, identity = study.space.params_of(trial.settings), study.identity(trial.settings)
        if params is None or identity is None or identity in known:
            continue
        known.add(identity)
        values = study.values(trial.metrics) if trial.metrics is not None else None
        if values is None and trial.means is None:
            study.study.enqueue_trial(params, user_attrs={"kind": "retry"})
            continue
        distributions = study.space.distributions()
        pruned, single = values is None, len(study.objectives) == 1  # Optuna keeps no means beside several objectives
        study.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                params=params,
                distributions={key: distributions[key] for key in params},
                values=list(values) if values is not None else None,
                intermediate_values=dict(trial.means or {}) if pruned and single else None,
                user_attrs={"kind": "carried", "settings": dict(trial.settings), OWNER: study.drivers.owner},
            )
        )
        carried += 1
    return carried


def _identities(study: SweepStudy) -> set[str | None]:
    """Of every trial that the study has or has in line."""
    found = set()
    for trial in study.study.get_trials(deepcopy=False):
        if trial.user_attrs.get("kind", "asked") in COUNTED:
            params = trial.system_attrs.get("fixed_params", trial.params)
            settings = trial.user_attrs.get("settings") or study.space.settings_of(params)
            found.add(study.identity(settings))
    return found
