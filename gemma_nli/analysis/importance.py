"""How much of the score's variance each setting accounts for.

Letters: T trials.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.spec.domain import Domain

Floats = NDArray[np.float64]
LEAST = {"fANOVA": 16, "PED-ANOVA": 40}
"""Trials below which a method's shares are mostly luck.

In simulated random searches over 3 (5) settings, of which one explains half of the score's variance, fANOVA names that
one first in 68% (52%) with 8 trials, 90% (85%) with 12, 95% (90%) with 16. PED-ANOVA learns from the best tenth only:
62% (43%) with 20 trials, 80% (78%) with 30, 90% (75%) with 40, where the best tenth is four trials.
"""


def importances(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Share of the score's variance by setting: fANOVA over all trials, PED-ANOVA over what sets the best apart.

    Only settings that every trial has are judged. Each needs at least `LEAST` trials; empty where nothing differs.

    Source: Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter Importance"; Watanabe et al. 2023,
    "PED-ANOVA" (optuna.importance has both).
    """
    scores_T = evidence.scores()
    keys = [key for key in evidence.varied if _everywhere(evidence, key)]
    if len(scores_T) < min(LEAST.values()) or float(np.ptp(scores_T)) == 0 or not keys:
        return {}
    study = _study(evidence, keys, scores_T)
    trees = 32 if len(scores_T) <= 300 else 12  # its time grows with both
    evaluators = {
        "fANOVA": optuna.importance.FanovaImportanceEvaluator(seed=0, n_trees=trees),
        "PED-ANOVA": optuna.importance.PedAnovaImportanceEvaluator(),
    }
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna marks PED-ANOVA as experimental
        for name, evaluator in evaluators.items():
            if len(scores_T) < LEAST[name]:
                continue
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
            found[name] = {key: float(share) for key, share in shares.items() if math.isfinite(share)}
    return found


def _everywhere(evidence: Evidence, key: str) -> bool:
    values = [trial.settings.get(key) for trial in evidence.complete]
    return len({repr(v) for v in values}) > 1 and (None not in values or null_is_a_value(evidence, key))


def _study(evidence: Evidence, keys: list[str], scores_T: Floats) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    distributions: dict[str, Any] = {}
    to_param: dict[str, Any] = {}
    for key in keys:
        domain, values = domain_of(evidence, key), [trial.settings[key] for trial in evidence.complete]
        if domain is not None and all(domain.contains(value) for value in values):
            distributions[key], to_param[key] = domain.distribution(), domain.to_param
        else:
            names = sorted({repr(value) for value in values})
            distributions[key], to_param[key] = optuna.distributions.CategoricalDistribution(names), repr
    trials = [
        optuna.trial.create_trial(
            params={key: to_param[key](trial.settings[key]) for key in keys},
            distributions=distributions,
            value=float(score),
        )
        for trial, score in zip(evidence.complete, scores_T, strict=True)
    ]
    study.add_trials(trials)
    return study


def domain_of(evidence: Evidence, key: str) -> Domain | None:
    return evidence.spec.space.domain(key)


def null_is_a_value(evidence: Evidence, key: str) -> bool:
    domain = domain_of(evidence, key)
    return domain is not None and domain.contains(None)
