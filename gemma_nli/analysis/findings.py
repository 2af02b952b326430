"""Everything a report says, computed once: page and markdown only write it down."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from gemma_nli.analysis.answer import Answer, find_answer
from gemma_nli.analysis.baseline_leads import leads_over_baselines
from gemma_nli.analysis.baselines import BaselineFinding
from gemma_nli.analysis.calibration import Calibration, calibrate
from gemma_nli.analysis.cautions import Caution, cautions, lost_to
from gemma_nli.analysis.compared_values import compared_groups, compared_values
from gemma_nli.analysis.conclusion import Conclusion, conclude
from gemma_nli.analysis.confirmation import Confirmation, confirm
from gemma_nli.analysis.effects import Effect, Interaction, interactions, main_effects
from gemma_nli.analysis.ensembles import ChosenEnsemble, Ensembles, choose_ensemble, find_ensembles
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.honest_score import Draws, HonestScore, honest_score
from gemma_nli.analysis.leaderboard import Row, leaderboard
from gemma_nli.analysis.mistakes import Mistakes, find_mistakes
from gemma_nli.analysis.phrasings import Phrasings, in_other_words
from gemma_nli.analysis.within import WithinCriteria, within_criteria_of
from gemma_nli.base.metrics import measured_by
from gemma_nli.base.metrics.earlier_names import CURVE, CURVE_AT_HALF
from gemma_nli.trial import TrialRecord, without_credentials

ENDS = ("finished", "pruned", "failed")
PACKAGES = ("gemma-nli", "torch", "transformers", "ray", "optuna", "mlflow", "scikit-learn", "numpy")
CURVES_SHOWN = 6


@dataclass(frozen=True)
class LearningCurve:
    """(K, E) of each fold, cut to the shortest; `selected`: the epoch that each fold was measured at.

    val_f1_KE: at each epoch's own threshold, so that the selected epoch has the fold's F1; `at_half`: at threshold 0.5,
    where the journal is too old to have that.
    """

    name: str
    val_f1_KE: np.ndarray
    train_loss_KE: np.ndarray
    selected: tuple[int, ...]
    at_half: bool = False


@dataclass(frozen=True)
class Findings:
    evidence: Evidence
    draws: Draws
    answer: Answer
    conclusion: Conclusion
    honest: HonestScore
    baselines: tuple[BaselineFinding, ...]
    rows: tuple[Row, ...]
    effects: tuple[Effect, ...]
    interactions: tuple[Interaction, ...]
    curves: tuple[LearningCurve, ...]
    mistakes: Mistakes
    within: WithinCriteria
    phrasings: Phrasings | None
    calibration: Calibration
    confirmation: Confirmation | None
    ensembles: Ensembles | None
    registered_ensemble: ChosenEnsemble | None
    cautions: tuple[Caution, ...]
    reproduce: Mapping[str, str]
    commands: tuple[str, ...]
    config_yaml: str

    @property
    def metric_name(self) -> str:
        return measured_by(self.draws.metric).label

    @property
    def among(self) -> str:
        """`the best of 12 trials`."""
        trials = self.honest.candidates
        return "that of the only trial" if trials == 1 else f"the best of {trials} trials"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before relying on the answer, the heaviest first."""
        return tuple(caution.text for caution in self.cautions)

    @property
    def winner_key(self) -> str:
        return self.evidence.complete[self.evidence.winner].key


def find(evidence: Evidence, encode: bool = False, seed: int = 0) -> Findings:
    """All findings of a sweep.

    Args:
        encode: compute the vectors that the cosine and zero-shot baselines lack.
        seed: of the bootstrap; the same seed finds the same numbers.
    """
    draws = Draws.of(evidence, seed=seed)
    overall = honest_score(draws, groups=compared_groups(evidence))
    effects = main_effects(evidence, draws)
    baselines = leads_over_baselines(evidence, draws, overall.worth, encode)
    confirmation = confirm(evidence, draws, compared_values(evidence, lambda: effects))
    answer = find_answer(evidence, draws, effects, overall, confirmation)
    lost = lost_to(baselines, f"{measured_by(draws.metric).label} {evidence.measured_at}")
    if lost:
        once = answer.first.replace(f" {evidence.measured_at}", "", 1)  # it stands in the sentence before
        answer = dataclasses.replace(answer, first=f"{lost[0]} {once}")
    record = evidence.record(evidence.complete[evidence.winner].key)
    mistakes = find_mistakes(evidence, evidence.winner, record.config)
    rows, phrasings = leaderboard(evidence, draws), in_other_words(evidence, draws)
    ensembles = find_ensembles(evidence, draws)
    registered = choose_ensemble(evidence, ensembles)
    return Findings(
        evidence=evidence,
        draws=draws,
        answer=answer,
        conclusion=conclude(evidence, answer, baselines, effects, registered),
        honest=overall,
        baselines=baselines,
        rows=tuple(rows),
        effects=tuple(effects),
        interactions=tuple(interactions(evidence, draws)),
        curves=_learning_curves(evidence, answer, record),
        mistakes=mistakes,
        within=within_criteria_of(evidence, evidence.winner),
        phrasings=phrasings,
        calibration=calibrate(evidence.probability_TN[evidence.winner], evidence.label_N, evidence.fold_N),
        confirmation=confirmation,
        cautions=tuple(cautions(evidence, answer, overall, baselines, effects, mistakes, confirmation, phrasings)),
        ensembles=ensembles,
        registered_ensemble=registered,
        reproduce=_provenance(evidence, record),
        commands=_commands(evidence),
        config_yaml=yaml.safe_dump(
            without_credentials(record.config).model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ),
    )


def _learning_curves(evidence: Evidence, answer: Answer, winner: TrialRecord) -> tuple[LearningCurve, ...]:
    """Of the best trial of each arm (the winner's alone where nothing is compared)."""
    named = [(variant.name, evidence.complete[variant.best].key) for variant in answer.variants[:CURVES_SHOWN]]
    named = named or [("the best trial", winner.key)]
    found = []
    for name, key in named:
        record = winner if key == winner.key else evidence.record(key)
        folds = [fold for _, fold in sorted(record.folds.items())]
        epochs = min(fold.epochs for fold in folds)
        at_half = not all(CURVE in fold.history for fold in folds)
        names = (CURVE_AT_HALF if at_half else CURVE, "train_loss")
        val, loss = (np.array([f.history[name][:epochs] for f in folds]) for name in names)
        found.append(LearningCurve(name, val, loss, tuple(fold.selected_epoch for fold in folds), at_half))
    return tuple(found)


def _provenance(evidence: Evidence, record: TrialRecord) -> dict[str, str]:
    ratio = evidence.spec.base.data.eval_negative_ratio
    facts = {
        "sweep": ", ".join(f"{n} ({i})" for n, i in zip(evidence.names, evidence.sweep_ids, strict=True)),
        "winning trial": record.key,
        "corpus fingerprint": evidence.pairs.corpus_fingerprint,
        "fold fingerprint": evidence.pairs.fingerprint,
        "encoder fingerprint": record.encoder_fingerprint,
        "evaluation": f"{len(evidence.rows_N)} pairs of {len(np.unique(evidence.post_N))} posts in "
        f"{evidence.pairs.num_folds} folds, negatives per positive: {ratio}",
        "independent unit": _unit(evidence),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    facts |= {f"predictions of {each.name}": f"{each.path.name}, sha256 {each.sha256}" for each in evidence.outside}
    commit = record.tags.get("mlflow.source.git.commit") or record.tags.get("git_commit")
    return {**facts, **({"commit": commit} if commit else {})}


def _unit(evidence: Evidence) -> str:
    """What folds keep whole, and what intervals and tests take as independent."""
    posts, groups = evidence.pairs.copies
    if not posts:
        return "a post with all its pairs"
    return f"a post with all its pairs and its copies' ({posts} posts are copies, in {groups} groups)"


def _commands(evidence: Evidence) -> tuple[str, ...]:
    names = [shlex.quote(name) for name in evidence.names]
    experiment = shlex.quote(evidence.spec.base.experiment)
    lines = [f"gemma-nli resume {name}" for name in names]
    if evidence.spec.base.mlflow.enabled:
        lines.append(f"gemma-nli best --experiment {experiment}")
    outside = [f" --with {shlex.quote(f'{each.name}={each.path}')}" for each in evidence.outside]
    return (*lines, "gemma-nli train --config config.yaml", f"gemma-nli report {' '.join(names)}{''.join(outside)}")


def facts_of(findings: Findings) -> dict[str, Any]:
    """The answer as `--json` and MLflow's tags give it."""
    honest = findings.honest
    return {
        "winner": findings.winner_key,
        "trials": {state: sum(t.state == state for t in findings.evidence.trials) for state in ENDS},
        "verdict": findings.answer.verdict,
        "measured_at": findings.evidence.measured_at,
        "answer": [*filter(None, (findings.answer.first, findings.answer.sure, findings.answer.score))],
        "within_criteria": findings.within.sentence,
        **({"phrasings": findings.phrasings.sentence} if findings.phrasings is not None else {}),
        "conclusion": dataclasses.asdict(findings.conclusion),
        "honest": {
            "metric": honest.metric,
            "raw": honest.raw,
            "honest": honest.value,
            "low": honest.low,
            "high": honest.high,
            "level": honest.level,
            "candidates": honest.candidates,
        },
        "confirmed": findings.confirmation.facts() if findings.confirmation is not None else None,
        "baselines": {each.name: each.score for each in findings.baselines if not each.outside},
        "outside": {each.name: each.facts() for each in findings.baselines if each.outside},
        **({"ensembles": findings.ensembles.to_json()} if findings.ensembles is not None else {}),
        "registers": registered.key if (registered := findings.registered_ensemble) else findings.winner_key,
        **({"sealed": [test.to_json() for test in findings.evidence.sealed]} if findings.evidence.sealed else {}),
        "warnings": list(findings.warnings),
    }
