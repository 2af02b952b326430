"""Thresholds per criterion and calibrated probabilities, from the inner split alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from gemma_nli.base.errors import ConfigError
from gemma_nli.base.metrics import Counts
from gemma_nli.base.metrics.f1 import f1_of
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.local.train_simple import run_simple
from gemma_nli.model.scaling import UNSCALED
from gemma_nli.training.calibrations import fit_platt
from gemma_nli.training.fallbacks import fallback_note
from gemma_nli.training.fold import decide_epochs, plan_fold
from gemma_nli.training.metrics import best_threshold, fold_metrics, log_odds, sigmoid
from gemma_nli.training.results import OutOfFold, summarize
from gemma_nli.training.threshold_rules import per_criterion, shared
from gemma_nli.trial import TrialJournal, trial_key
from tests.training.frozen_setup import FrozenSetup, assert_same_fold
from tests.training.test_frozen import without_inner

OWN = {"training__threshold": "per_criterion", "training__calibration": "platt"}


@pytest.fixture(scope="module")
def setup(tiny_bert, tmp_path_factory) -> FrozenSetup:
    """120 posts at their true prevalence."""
    folder = tmp_path_factory.mktemp("own")
    return FrozenSetup.make(folder, tiny_bert, synthetic_corpus(120, seed=3), data__eval_negative_ratio="all")


def two_criteria(frequent: int, rare: int, seed: int = 0):
    """400 pairs each of a frequent criterion and a rare one whose scores lie lower, as a joint model's do."""
    draws = np.random.default_rng(seed)
    label_R = np.zeros(800, dtype=np.int8)
    label_R[:frequent], label_R[400 : 400 + rare] = 1, 1
    criterion_R = np.repeat([0, 1], 400)
    logit_R = draws.normal(size=800) + 2.0 * label_R - 2.5 * criterion_R - 1.0
    return sigmoid(logit_R), label_R, criterion_R


def macro_f1(at_R, probability_R, label_R, criterion_R) -> float:
    chosen_R = probability_R >= at_R
    return float(
        np.mean([f1_of(Counts.of_rows(chosen_R[criterion_R == c], label_R[criterion_R == c])) for c in (0, 1)])
    )


def test_a_criterion_with_lower_scores_gets_a_lower_threshold_and_unseen_pairs_a_better_macro_f1():
    chosen_on, unseen = two_criteria(120, 40), two_criteria(120, 40, seed=1)
    own, one = per_criterion(*chosen_on), shared(*chosen_on)
    assert own.own[1] < own.own[0]
    assert macro_f1(own.of(unseen[2]), *unseen) > macro_f1(one.of(unseen[2]), *unseen) + 0.05


def test_a_rare_criterion_loses_little_to_the_best_threshold_that_unseen_pairs_have():
    lost = []
    for seed in range(10):
        probability_R, label_R, criterion_R = two_criteria(120, 40, 100 + seed)
        rare_R = criterion_R == 1
        at = per_criterion(*two_criteria(120, 40, seed)).own[1]
        reached = fold_metrics(probability_R[rare_R], label_R[rare_R], at)
        lost.append(best_threshold(probability_R[rare_R], label_R[rare_R])[1] - reached["f1"])
    assert np.mean(lost) < 0.1, "half of that is the luck of a threshold chosen on the very pairs"


def test_the_fewer_positive_pairs_a_criterion_has_the_nearer_it_stays_to_the_shared_threshold():
    away = []
    for rare in (1, 4, 40):
        found = [per_criterion(*two_criteria(120, rare, seed)) for seed in range(20)]
        gaps = [log_odds(np.array([each.own[1], each.shared])) for each in found]
        away.append(np.mean([abs(own - middle) for own, middle in gaps]))
    assert away[0] < away[1] < away[2]
    none = per_criterion(*two_criteria(120, 0))
    assert 1 not in none.own
    assert none.of(np.array([1, 7])).tolist() == [none.shared] * 2, "unseen and without a positive: the shared one"


def test_scores_that_do_not_rise_with_the_labels_leave_the_shared_threshold_alone():
    probability_R, label_R, criterion_R = two_criteria(120, 40)
    upside_down = per_criterion(1 - probability_R, label_R, criterion_R)
    assert upside_down == shared(1 - probability_R, label_R, criterion_R)
    assert per_criterion(np.full(800, 0.5), label_R, criterion_R).own == {}


def test_platt_scaling_is_logistic_regression_on_the_logit():
    draws = np.random.default_rng(0)
    logit_R = draws.normal(size=400) * 3 + 1
    label_R = (draws.random(400) < sigmoid(0.5 * logit_R - 1)).astype(np.int8)
    found = fit_platt(logit_R, label_R)
    theirs = LogisticRegression(C=1e6).fit(logit_R[:, None], label_R)
    assert found == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), rel=1e-3)
    assert fit_platt(-logit_R, label_R) is None
    assert fit_platt(logit_R, np.zeros(400, dtype=np.int8)) is None
    apart = fit_platt(np.array([-9.0, -8.0, 8.0, 9.0]), np.array([0, 0, 1, 1], dtype=np.int8))
    assert apart is not None
    assert np.isfinite(apart).all(), "classes that are apart have no most likely slope"


def test_the_choice_changes_decisions_alone_and_calibration_no_rank(setup):
    plain, own, both = setup.train(), setup.train(training__threshold="per_criterion"), setup.train(**OWN)
    assert any(not np.array_equal(one.decisions, two.decisions) for one, two in zip(plain, own, strict=True))
    for one, two, three in zip(plain, own, both, strict=True):
        np.testing.assert_array_equal(one.probabilities, two.probabilities)
        assert (one.selected_epoch, one.threshold) == (two.selected_epoch, two.threshold)
        assert one.history["train_loss"] == three.history["train_loss"]
        assert (three.scaling == UNSCALED) == ("not calibrated" in three.detail), "this fold's logits may not rise"
        np.testing.assert_array_equal(np.argsort(one.probabilities), np.argsort(three.probabilities))
        assert three.at("val_f1", three.selected_epoch) == three.metrics["f1"]
        assert set(two.thresholds) <= set(setup.pairs.criterion_ids)
    assert sum(fold.scaling != UNSCALED for fold in both) > 1
    assert ("not calibrated" in fallback_note(both)) == any(fold.scaling == UNSCALED for fold in both)
    folds = OutOfFold.of(own)
    np.testing.assert_array_equal(folds.decisions, np.concatenate([fold.decisions for fold in own]))


def test_nothing_of_the_evaluation_pairs_enters_thresholds_or_calibration(setup):
    config = setup.config(**OWN)
    plan = plan_fold(config, setup.pairs, 2)
    draws = np.random.default_rng(0)
    logits_1V, inner_1I = draws.normal(size=(1, len(plan.evaluation))), draws.normal(size=(1, len(plan.selection)))
    inner_1I += setup.pairs.label_N[plan.selection]
    label_N = setup.pairs.label_N.copy()
    label_N[plan.evaluation] = 1 - label_N[plan.evaluation]
    flipped = dataclasses.replace(setup.pairs, label_N=label_N)
    (one,), (two,) = (decide_epochs(pairs, plan, logits_1V, inner_1I) for pairs in (setup.pairs, flipped))
    (other,) = decide_epochs(setup.pairs, plan, logits_1V + 3, inner_1I)
    assert one.scaling == two.scaling == other.scaling
    assert one.thresholds == two.thresholds == other.thresholds


def test_a_fold_without_an_inner_split_has_half_for_every_criterion_and_is_not_calibrated(setup):
    pairs = without_inner(setup.pairs, 2, "negative selection")
    fallen = setup.train([2], pairs, **OWN)[0]
    assert (fallen.threshold, fallen.thresholds, fallen.scaling) == (0.5, {}, UNSCALED)
    assert "threshold 0.5" in fallen.detail


def test_a_journal_keeps_and_gives_back_what_was_chosen(setup, tmp_path):
    folds = setup.train(**OWN)
    journal = TrialJournal(tmp_path, "ab" + "0" * 30)
    journal.start(setup.config(**OWN), "folds", "encoder", len(folds))
    journal.add_folds(folds)
    journal.finish(summarize(folds, setup.pairs))
    record = journal.read()
    assert record is not None
    for fold in folds:
        again = record.folds[fold.fold]
        assert_same_fold(again, fold)
        assert (again.thresholds, again.scaling) == (fold.thresholds, fold.scaling)
        np.testing.assert_array_equal(again.decisions, fold.decisions)
    name = setup.pairs.criterion_ids[0]
    assert record.criteria[name]["threshold"] == pytest.approx(
        np.mean([fold.thresholds.get(name, fold.threshold) for fold in folds])
    )


def test_trials_that_were_run_before_the_choice_keep_their_keys_and_others_have_their_own():
    plain = RunConfig()

    def key(config: RunConfig) -> str:
        return trial_key(config, "folds", "encoder")

    assert not {"training.threshold", "training.calibration"} & plain.canonical().keys()
    changed = [
        plain.with_settings({f"training.{n}": v}) for n, v in (("threshold", "per_criterion"), ("calibration", "platt"))
    ]
    assert len({key(plain), *map(key, changed)}) == 3
    assert changed[0].asked_by(plain).training.threshold == "per_criterion"


@pytest.mark.parametrize("selection", ["last", "best"])
def test_without_an_inner_split_the_choice_is_refused_with_what_to_set(selection):
    with pytest.raises(ConfigError, match=rf"per_criterion, but .*{selection}.*set training\.epoch_selection=inner"):
        RunConfig().with_settings({"training.threshold": "per_criterion", "training.epoch_selection": selection})
    with pytest.raises(ConfigError, match=r"platt, but .* or training\.calibration=none"):
        RunConfig().with_settings({"training.calibration": "platt", "training.epoch_selection": selection})


def test_train_simple_refuses_what_it_has_no_split_for():
    with pytest.raises(
        ConfigError, match=r"train-simple decides at threshold 0\.5.*gemma-nli train training\.threshold"
    ):
        run_simple(RunConfig().with_settings({"training.threshold": "per_criterion"}))


def test_evaluation_pairs_are_those_of_any_other_choice(setup):
    config = setup.config(**OWN)
    assert build_pairs(setup.corpus, config.data).fingerprint == setup.pairs.fingerprint
