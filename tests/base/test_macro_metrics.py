"""Metrics within criteria: equal to a plain recount with scikit-learn, drawn again as measured, support required."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.honest_score import Draws, honest_score
from gemma_nli.analysis.inference.observed import ScoredPairs
from gemma_nli.analysis.inference.significance import paired_bootstrap
from gemma_nli.base.metrics import METRICS, MacroMetric, deciding_names, measured_by, metric, metric_of
from gemma_nli.base.metrics.macro import LEAST, mean_of_known, supported, within_criteria
from gemma_nli.base.metrics.table import CountedMetric, Counts, Floats
from gemma_nli.spec.sweep_sections import Objective

RANKED = {"auc": sk.roc_auc_score, "ap": sk.average_precision_score}
DECIDED = {"f1": sk.f1_score, "mcc": sk.matthews_corrcoef, "balanced_accuracy": sk.balanced_accuracy_score}
MACRO = pytest.mark.parametrize("name", [f"macro_{name}" for name in METRICS])


class Sample:
    """120 posts in 4 folds, 5 criteria of which the last two have 1 and 0 positives, scores with ties."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.posts = np.repeat(np.arange(120), 3)
        self.folds = self.posts % 4 + 1
        self.criteria = rng.integers(0, 5, 360)
        self.labels = (rng.random(360) < np.array([0.6, 0.3, 0.1, 0.0, 0.0])[self.criteria]).astype(np.int8)
        self.labels[np.flatnonzero(self.criteria == 3)[0]] = 1
        self.scores = np.round(0.8 * self.labels + rng.normal(size=360), 1)
        self.chosen = self.scores > 0.6

    def values(self, name: str) -> np.ndarray:
        return np.asarray(measured_by(name).takes(self.chosen, self.scores))

    @property
    def scored(self) -> ScoredPairs:
        return ScoredPairs(self.labels, self.folds, self.criteria)


def _plain(sample: Sample, name: str) -> float:
    """As a reader would count it: criterion by criterion, fold by fold where scores are ranked."""
    of_criteria = []
    for criterion in range(5):
        here = sample.criteria == criterion
        positives = int(sample.labels[here].sum())
        if min(positives, int(here.sum()) - positives) < 5:
            continue
        if name in DECIDED:
            of_criteria.append(DECIDED[name](sample.labels[here], sample.chosen[here]))
            continue
        cells = [here & (sample.folds == fold) for fold in range(1, 5)]
        both = [cell for cell in cells if 0 < sample.labels[cell].sum() < cell.sum()]
        of_criteria.append(np.mean([RANKED[name](sample.labels[cell], sample.scores[cell]) for cell in both]))
    return float(np.mean(of_criteria))


@pytest.mark.parametrize("name", [*RANKED, *DECIDED])
@pytest.mark.parametrize("seed", range(5))
def test_a_macro_metric_is_the_mean_over_criteria_of_scikit_learns(name: str, seed: int) -> None:
    sample = Sample(seed)
    found = sample.scored.scores(sample.values(name)[None], f"macro_{name}")
    assert found[0] == pytest.approx(_plain(sample, name))


def test_a_criterion_with_too_few_pairs_of_a_class_is_left_out_however_it_scores() -> None:
    sample = Sample(0)
    assert supported(sample.labels, sample.criteria) == [0, 1, 2]
    before = sample.scored.scores(sample.values("auc")[None], "macro_auc")
    sample.scores[sample.criteria >= 3] *= -1
    assert sample.scored.scores(sample.values("auc")[None], "macro_auc") == before
    labels = np.r_[np.ones(LEAST), np.zeros(LEAST), np.ones(LEAST - 1), np.zeros(50), np.ones(50), np.zeros(LEAST - 1)]
    criteria = np.repeat([7, 8, 9], [2 * LEAST, LEAST + 49, LEAST + 49])
    assert supported(labels, criteria) == [7]


def test_without_a_criterion_of_enough_support_nothing_is_known_and_no_warning_is_raised() -> None:
    few = ScoredPairs(np.array([0, 1, 0, 1], dtype=np.int8), np.array([1, 1, 2, 2]), np.zeros(4, dtype=int))
    assert np.isnan(few.scores(np.array([[0.1, 0.2, 0.3, 0.4]]), "macro_auc")).all()


def test_a_model_that_knows_only_which_criteria_are_frequent_ranks_nothing_within_one() -> None:
    sample = Sample(1)
    sample.scores = np.array([0.6, 0.3, 0.1, 0.0, 0.0])[sample.criteria]
    scores = {n: sample.scored.scores(sample.scores[None], n)[0] for n in ("auc", "macro_auc")}
    assert scores["auc"] > 0.75
    assert scores["macro_auc"] == 0.5


@MACRO
def test_a_draw_scores_as_the_pairs_drawn_do(name: str) -> None:
    sample = Sample(2)
    bootstrap = PostBootstrap(sample.posts, sample.labels, 4, 3, sample.folds, sample.criteria)
    averaged, part, values = sample.scored.averaged, measured_by(name).part, sample.values(name)
    drawn_S = bootstrap.draws(values, name)
    for draw in range(4):
        rows = []
        for fold in bootstrap.folds:
            rows.append(np.repeat(fold.rows_R, fold.weights_SP[draw][fold.post_R].astype(int)))
        at = np.concatenate(rows)
        again = within_criteria(
            part, values[None, at], sample.labels[at], sample.criteria[at], sample.folds[at], averaged
        )
        assert drawn_S[draw] == pytest.approx(mean_of_known(again)[0])


@MACRO
def test_a_difference_has_an_interval_and_one_trial_is_worth_its_own_score(name: str) -> None:
    sample = Sample(4)
    better = sample.labels == 1
    found = paired_bootstrap(
        sample.posts, sample.labels, better, sample.chosen, name, 200, folds=sample.folds, criteria=sample.criteria
    )
    assert found.low < found.value < found.high or found.value == pytest.approx(found.low)
    assert found.value > 0
    bootstrap = PostBootstrap(sample.posts, sample.labels, 100, 0, sample.folds, sample.criteria)
    own = bootstrap.observed(sample.values(name), name)
    alone = honest_score(Draws.from_values(bootstrap, sample.values(name)[:, None], name, np.array([own])))
    assert (alone.raw, alone.value) == (own, own)
    assert alone.low < own < alone.high


def test_a_macro_metric_needs_to_know_the_criteria() -> None:
    sample = Sample(0)
    with pytest.raises(ValueError, match="criterion of each pair"):
        paired_bootstrap(sample.posts, sample.labels, sample.chosen, sample.chosen, "macro_f1", 10)


@MACRO
def test_a_sweep_can_be_decided_by_each(name: str) -> None:
    aggregate = f"cv_aggregate/{name}"
    assert aggregate in deciding_names()
    assert Objective(metric=aggregate, mode="max")
    found = metric_of(aggregate)
    assert isinstance(found, MacroMetric)
    assert (found.name, found.label) == (name, f"macro {METRICS[name.removeprefix('macro_')].label}")
    assert metric_of("cv_aggregate/macro_criteria") is None


def test_a_metric_cannot_take_the_name_of_a_macro_one() -> None:
    with pytest.raises(ValueError, match="macro_f1"):

        @metric("macro_f1")
        class _Another(CountedMetric):
            def of_counts(self, counts: Counts) -> Floats:
                return counts.hit


def test_folds_of_a_macro_metric_are_means_over_the_criteria_that_have_both_classes_there() -> None:
    sample = Sample(5)
    found = sample.scored.fold_scores(sample.values("auc")[None], "macro_auc")[0]
    for fold in range(1, 5):
        cells = [(sample.criteria == c) & (sample.folds == fold) for c in sample.scored.averaged]
        both = [cell for cell in cells if 0 < sample.labels[cell].sum() < cell.sum()]
        assert not math.isnan(found[fold - 1])
        assert found[fold - 1] == pytest.approx(
            np.mean([sk.roc_auc_score(sample.labels[cell], sample.scores[cell]) for cell in both])
        )
