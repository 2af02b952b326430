"""How far the winner is ahead of each baseline, and of other tools' predictions: judged together, by the same tests."""

from __future__ import annotations

from gemma_nli.analysis.baselines import BaselineFinding, measure_baselines
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.best_of_trials import Worth
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.paired_tests import paired_tests


def leads_over_baselines(evidence: Evidence, draws: Draws, worth: Worth, encode: bool) -> tuple[BaselineFinding, ...]:
    """Every baseline, then other tools' predictions in the order given.

    Args:
        worth: of the winner, what it is ahead by.
        encode: compute the vectors that the cosine baseline lacks.
    """
    baselines, metric, winner = measure_baselines(evidence, encode), draws.metric, evidence.winner
    values = [baseline.values(metric) for baseline in baselines]
    scores = [baseline.score(evidence, metric) for baseline in baselines]
    leads = draws.leads_over(worth, list(zip(values, scores, strict=True)))
    own_K = evidence.fold_scores(metric)[winner]
    found = []
    for baseline, values_N, score, (ahead, smallest) in zip(baselines, values, scores, leads, strict=True):
        f1, auc, macro_auc = (baseline.score(evidence, name) for name in ("f1", "auc", "macro_auc"))
        tests = paired_tests(
            evidence,
            (own_K, evidence.observed.fold_scores(values_N[None], metric)[0]),
            (evidence.decision_TN[winner], baseline.decision_N),
            (evidence.probability_TN[winner], baseline.score_N),
        )
        facts = (baseline.name, baseline.about, score, f1, auc, macro_auc, ahead, smallest, tests, baseline.outside)
        found.append(BaselineFinding(*facts))
    return tuple(found)
