"""Trials that are in journals but not in a study: carried into it, so that nothing is lost when the space changes.

Optuna refuses a study whose distributions change their kind or their choices. So each space has a study of its own, and
the earlier trials that lie in the space are added to it: finished and pruned trials as what they are,
failed and interrupted ones to be retried first.
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
    """A trial as recorded in its journal.

    Args:
        settings: of the study's space.
        metrics: of a trial that ran all its folds, else None.
        means: of a pruned trial the running mean F1 after each fold, else None; without both it has to run again.
    """

    settings: Mapping[str, Any]
    metrics: Mapping[str, float] | None = None
    means: Mapping[int, float] | None = None


def carry(study: SweepStudy, trials: Iterable[EarlierTrial]) -> int:
    """Add to a study what it does not know of these trials; each once, however often the sweep is run.

    Returns:
        How many were added as finished or pruned.
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
    """Of every trial that the study has or has enqueued."""
    found = set()
    for trial in study.study.get_trials(deepcopy=False):
        if trial.user_attrs.get("kind", "asked") in COUNTED:
            params = trial.system_attrs.get("fixed_params", trial.params)
            settings = trial.user_attrs.get("settings") or study.space.settings_of(params)
            found.add(study.identity(settings))
    return found
