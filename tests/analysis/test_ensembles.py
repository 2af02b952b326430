"""Ensembles of trials: chosen greedily, judged on folds that did not choose them, and said plainly in the report."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.simulated_ensembles import ensembles
from benchmarks.simulated_scores import BALANCED, RARE
from gemma_nli.analysis.ensembles import Ensembles, find_ensembles, predictions_of
from gemma_nli.analysis.findings import facts_of, find
from gemma_nli.analysis.inference.ensemble_selection import (
    Predictions,
    ensemble,
    ensemble_per_criterion,
    greedy,
    greedy_per_criterion,
    held_out,
    single,
)
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.report.report_sections import sections
from gemma_nli.base.metrics.macro import measure_names

CRITERIA = (0, 1)


def predictions(probability_TN: list[list[float]], metric: str = "accuracy", thresholds: object = 0.5) -> Predictions:
    """Two folds of four pairs: matched, not, matched, not; the first two of a fold are of criterion 0."""
    values = np.array(probability_TN)
    threshold_TK = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (len(values), 2))
    threshold_TN = np.repeat(threshold_TK, 4, axis=1)
    label_N = np.tile(np.array([1, 0], dtype=np.int8), 4)
    return Predictions.of(values, threshold_TN, label_N, np.repeat([1, 2], 4), np.tile([0, 0, 1, 1], 2), metric)


LEFT = [0.9, 0.1, 0.4, 0.6] * 2  # sure of criterion 0, a little wrong on criterion 1
RIGHT = [0.4, 0.6, 0.9, 0.1] * 2
WRONG = [0.1, 0.9, 0.1, 0.9] * 2


def test_trials_that_are_wrong_in_different_places_are_combined():
    part = predictions([WRONG, LEFT, RIGHT])
    assert greedy(part, 1).tolist() == [0, 1, 0]
    assert greedy(part, 2).tolist() == [0, 0.5, 0.5]
    values = ensemble(2)(part)(part)
    assert part.scores(values[None])[0] == 1.0
    assert part.scores(single(part)(part)[None])[0] == 0.5


def test_a_member_may_come_again_where_no_other_helps():
    assert greedy(predictions([WRONG, [0.9, 0.1, 0.9, 0.1] * 2]), 5).tolist() == [0, 1]


def test_an_ensemble_decides_by_the_average_of_its_members_thresholds():
    part = predictions([[0.50] * 8, [0.30] * 8], thresholds=[[0.2, 0.9], [0.4, 0.3]])
    decided = part.weighted(np.array([0.5, 0.5]))
    assert decided.tolist() == [0.4 >= 0.3] * 4 + [0.4 >= 0.6] * 4
    np.testing.assert_allclose(dataclasses.replace(part, metric="auc").weighted(np.array([0.25, 0.75])), 0.35)


def test_each_criterion_gets_the_trial_that_is_right_there_and_one_of_one_class_the_shared_one():
    part = predictions([LEFT, RIGHT])
    each = greedy_per_criterion(part, 1, CRITERIA)
    assert [each[criterion].tolist() for criterion in CRITERIA] == [[1, 0], [0, 1]]
    assert part.scores(ensemble_per_criterion(1, CRITERIA)(part)(part)[None])[0] == 1.0
    one_class = dataclasses.replace(part, label_N=np.where(part.criterion_N == 1, 1, part.label_N).astype(np.int8))
    assert greedy_per_criterion(one_class, 1, CRITERIA)[1].tolist() == greedy(one_class, 1).tolist()


@pytest.mark.parametrize("choose", [single, ensemble(3), ensemble_per_criterion(3, CRITERIA)])
@pytest.mark.parametrize("metric", ["f1", "auc", "macro_f1", "macro_auc"])
def test_what_a_fold_is_given_does_not_depend_on_its_own_labels(choose, metric):
    rng = np.random.default_rng(0)
    label_N, fold_N = rng.integers(0, 2, 120).astype(np.int8), np.repeat([1, 2, 3], 40)
    part = Predictions.of(rng.random((6, 120)), np.full((6, 120), 0.5), label_N, fold_N, np.tile([0, 1], 60), metric)
    before = held_out(part, choose)
    for fold in (1, 2, 3):
        flipped = np.where(fold_N == fold, 1 - label_N, label_N).astype(np.int8)
        after = held_out(dataclasses.replace(part, label_N=flipped), choose)
        np.testing.assert_array_equal(after[fold_N == fold], before[fold_N == fold])


@pytest.mark.parametrize("metric", measure_names())
def test_every_metric_can_choose_an_ensemble(simulated, metric):
    part = predictions_of(simulated[1], metric)
    weights = greedy(part, 3)
    assert weights.sum() == pytest.approx(1)
    alone = part.scores(part.values(part.probability_TN, part.margin_TN))
    assert part.scores(part.weighted(greedy(part, 1))[None])[0] == alone.max()


def test_the_report_has_the_ensembles_beside_the_single_best_trial(simulated):
    findings = find(simulated[1])
    (section,) = [part for part in sections(findings) if part.name == "ensembles"]
    ((_, table),) = section.items
    names = [row[0].text for row in table.rows]
    assert names == ["the single best trial", "one for all criteria", "one per criterion"]
    assert findings.ensembles.sentence in section.lead
    part = predictions_of(simulated[1], "f1")
    for row, choose in zip(table.rows, (single, ensemble(5)), strict=False):
        honest, raw = part.scores(held_out(part, choose)[None])[0], part.scores(choose(part)(part)[None])[0]
        assert [row[1].text, row[2].text] == [f"{honest:.3f}", f"{raw:.3f}"]
    facts = facts_of(findings)["ensembles"]
    assert facts["kinds"][1]["gain"][0] == pytest.approx(facts["kinds"][1]["held_out"] - facts["kinds"][0]["held_out"])


def test_a_single_trial_makes_no_ensemble(simulated):
    _, evidence = simulated
    first = dataclasses.replace(evidence.complete[0], place=0)
    alone = dataclasses.replace(
        evidence, trials=[first], probability_TN=evidence.probability_TN[:1], threshold_TK=evidence.threshold_TK[:1]
    )
    assert find_ensembles(alone, Draws.of(alone, repetitions=50)) is None


def test_who_wins_is_said_first_and_an_ensemble_that_helps_nothing_is_not_recommended(simulated):
    found = find_ensembles(simulated[1], Draws.of(simulated[1], repetitions=200))

    def said(low: float, high: float) -> str:
        kinds = [
            kind
            if kind.gain is None
            else dataclasses.replace(
                kind, gain=dataclasses.replace(kind.gain, low=low, high=high, value=(low + high) / 2)
            )
            for kind in found.found
        ]
        return Ensembles(found.size, found.metric, tuple(kinds)).sentence

    assert said(0.01, 0.03).startswith(
        "An ensemble of 5 trials, one for all criteria, beats the single best trial by 0.02"
    )
    assert said(-0.03, -0.01).startswith("The single best trial beats every ensemble")
    assert said(-0.01, 0.03).startswith("No ensemble of 5 trials is shown to beat the single best trial")
    assert "Serve the single trial" in said(-0.01, 0.03)


@pytest.mark.parametrize("per_criterion", [False, True])
def test_the_stated_score_of_an_ensemble_of_equal_trials_is_not_inflated(per_criterion):
    """60 repetitions: the mean of the honest bias has a standard error of about .002."""
    said = ensembles(BALANCED[300], 12, 60, per_criterion=per_criterion)
    assert said.raw > 0.012
    assert abs(said.honest) < said.raw / 5 + 0.004


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("per_criterion", [False, True])
@pytest.mark.parametrize("metric", ["f1", "auc"])
@pytest.mark.parametrize("trials", [12, 40])
@pytest.mark.parametrize("corpus", [BALANCED[30], BALANCED[300], BALANCED[1000], RARE[300]])
def test_its_bias_is_under_a_fifth_of_the_raw_one(corpus, trials, metric, per_criterion):
    said = ensembles(corpus, trials, 300, metric, per_criterion=per_criterion)
    print(corpus, trials, metric, per_criterion, said)
    assert abs(said.honest) < said.raw / 5 + 0.0025  # twice its own error at 300 repetitions and 300 posts
