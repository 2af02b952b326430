"""What the best of each compared value scores when trained again, and what the headline may claim by it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.simulated_sweep import simulate_confirmation, simulate_sweep
from gemma_nli.analysis.answer import Answer, find_answer
from gemma_nli.analysis.compared_values import compared_values
from gemma_nli.analysis.confirmation import Confirmation, confirm
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.findings import facts_of, find
from gemma_nli.analysis.inference.bootstrap import DrawnPosts, PostBootstrap
from gemma_nli.analysis.inference.honest_score import Draws, honest_score
from gemma_nli.analysis.inference.training_variance import CountedLuck, Trainings
from gemma_nli.analysis.leaderboard import leaderboard
from gemma_nli.analysis.report.markdown import markdown
from gemma_nli.spec.spec import SweepSpec
from tests.analysis.conftest import evidence_of, skill_of, tree_of

LUCK = 0.3
"""Of a training's skill: about .05 F1."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory, analysis_corpus, tiny_bert) -> tuple[SweepSpec, str, Path]:
    """Three compared poolings, two rates each: mean is a good deal better."""
    folder = tmp_path_factory.mktemp("confirming")
    tune = {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}}
    spec = SweepSpec.from_mapping(tree_of(folder, analysis_corpus, tiny_bert, tune=tune), source="simulated.yaml")
    return spec, simulate_sweep(spec, skill_of), folder


@pytest.fixture
def again(swept, tmp_path):
    """The sweep with confirming trials of its own: (settings of the leaders, luck) -> evidence."""
    spec, sweep_id, folder = swept

    def confirming(leaders, luck=LUCK, seeds=3, fold_drawings=2, skill=skill_of) -> Evidence:
        shutil.copytree(folder / "storage", tmp_path / "storage")
        own = spec.model_copy(update={"storage": str(tmp_path / "storage")})
        simulate_confirmation(own, sweep_id, leaders, skill, seeds, fold_drawings, luck)
        return evidence_of(own, sweep_id)

    return confirming


def leaders(evidence: Evidence) -> list[dict]:
    places = compared_values(evidence, lambda: []).leaders(evidence).values()
    return [evidence.complete[place].settings for place in places]


@pytest.fixture
def plain(swept) -> Evidence:
    return evidence_of(*swept[:2])


def answered(evidence: Evidence) -> tuple[Answer, Confirmation | None]:
    """The answer without the rest of the report."""
    draws = Draws.of(evidence, repetitions=400)
    compared = compared_values(evidence, lambda: [])
    confirmation = confirm(evidence, draws, compared)
    return find_answer(evidence, draws, [], honest_score(draws), confirmation), confirmation


def test_the_best_of_each_compared_value_is_what_is_confirmed(plain):
    """Not the best few of the sweep, which may all have one value."""
    chosen = leaders(plain)
    assert [settings["model.pooling_strategy"] for settings in chosen] == ["mean", "cls", "max"]
    ranked = sorted(plain.complete, key=lambda trial: -plain.scores()[trial.place])
    for settings in chosen:
        same = [t for t in ranked if t.settings["model.pooling_strategy"] == settings["model.pooling_strategy"]]
        assert settings == same[0].settings


def test_a_confirming_trial_is_no_candidate(plain, again):
    """Not even one that is far better than every trial of the sweep."""
    evidence = again(leaders(plain), luck=0.0, skill=lambda settings: 4.0)
    assert [trial.key for trial in evidence.trials] == [trial.key for trial in plain.trials]
    assert len(evidence.confirmations) == 3 * 3 * 2
    assert evidence.complete[evidence.winner].key == plain.complete[plain.winner].key
    assert {row.key for row in leaderboard(evidence, Draws.of(evidence, 100))} == {t.key for t in plain.trials}


def test_without_confirmation_the_headline_says_that_each_trial_was_trained_once(plain):
    answer, confirmation = answered(plain)
    assert answer.first.endswith(", one training per trial.")
    assert confirmation is None


def test_a_lead_that_holds_over_trainings_is_claimed_with_their_number(plain, again):
    answer, _ = answered(again(leaders(plain), luck=0.02))
    assert answer.verdict == "shown"
    assert "mean beats" in answer.first
    assert "counting posts and 6 trainings of each" in answer.first
    assert "one training per trial" not in answer.first
    assert "3 seeds on each of 2 fold drawings" in answer.second


def test_a_lead_within_the_luck_of_trainings_is_not_claimed(plain, again):
    """Over posts alone it would be."""
    answer, _ = answered(again(leaders(plain), luck=1.0))
    assert any(contrast.over_posts.p_value < 0.05 for contrast in answer.contrasts)
    assert answer.verdict == "open"
    assert "beats" not in answer.first


def test_the_leader_is_the_one_that_trainings_confirm(plain, again):
    """The sweep's one training favours mean; trained again, max is better."""
    better = {"mean": 0.3, "cls": 0.3, "max": 2.0}
    answer, _ = answered(
        again(leaders(plain), luck=0.02, skill=lambda settings: better[settings["model.pooling_strategy"]])
    )
    assert answer.first.startswith("max beats every other")
    assert "which is the one registered, has mean" in answer.second


def test_where_a_value_has_no_confirming_trial_the_claim_is_over_posts_and_says_which(plain, again):
    found = find(again(leaders(plain)[:2]))
    assert found.answer.first.endswith("one training per trial.")
    assert any("(not max): posts alone count" in line for line in found.warnings)


def test_training_seeds_that_are_compared_are_not_confirmed_by_other_seeds(plain):
    compared = compared_values(dataclasses.replace(plain, compared=["model.pooling_strategy"]), lambda: [])
    assert len(compared.leaders(plain)) == 3
    assert list(dataclasses.replace(compared, keys=("training.seed",)).leaders(plain).values()) == [plain.winner]


def test_a_trial_that_is_no_longer_the_best_of_its_value_confirms_nothing(plain, again):
    worst = {**leaders(plain)[0], "training.learning_rate": 1e-3}
    assert worst not in leaders(plain)
    assert answered(again([worst]))[1] is None


def test_a_sweep_that_confirmed_its_leaders_by_repeats_is_reported(plain, again):
    """An earlier version: one seed on each drawing, the top few of the sweep."""
    found = find(again(leaders(plain), seeds=1, fold_drawings=4))
    assert found.confirmation.decides
    assert "counting posts and 4 trainings of each" in found.answer.first
    assert "fold drawing and seed" in markdown(found, {})


def test_the_report_tells_variance_by_posts_seeds_and_folds(plain, again):
    found = find(again(leaders(plain)))
    text = markdown(found, {}).split("## Confirmed")[1].split("\n## ")[0]
    assert "| of | other posts | training seed | fold drawing | mean of 6 trainings |" in text
    for name in ("mean", "cls", "max", "mean less max"):
        assert f"| {name} |" in text
    sd = facts_of(found)["confirmed"]["values"]["mean"]["sd"]
    assert sd["seeds"] > 2 * sd["posts"] / 6**0.5 > 0


@pytest.mark.parametrize("metric", ["auc", "macro_auc", "ap"])
def test_any_metric_that_decides_is_confirmed(plain, again, metric):
    evidence = again(leaders(plain))
    spec = evidence.spec.model_copy(
        update={"metric": f"cv_aggregate/mean_{metric}" if metric != "macro_auc" else "cv_aggregate/macro_auc"}
    )
    evidence = dataclasses.replace(evidence, spec=spec)
    draws = Draws.of(evidence, repetitions=200)
    found = confirm(evidence, draws, compared_values(evidence, lambda: []))
    assert found.decides
    for place, value in enumerate(found.values):
        low, high = found.luck.interval(place)
        assert low < value.score_DR.mean() < high


def trainings_of(rng, values=2, drawings=3, seeds=4, folds=5, seed_sd=0.0, fold_sd=0.0, draws=300) -> Trainings:
    fold_ADK = fold_sd * rng.normal(size=(values, drawings, 1, folds))
    score_ADRK = 0.7 + fold_ADK + seed_sd * rng.normal(size=(values, drawings, seeds, folds))
    return Trainings(score_ADRK, np.zeros((draws, *score_ADRK.shape)))


def test_components_are_those_that_made_the_scores():
    rng, seen = np.random.default_rng(0), []
    for _ in range(200):
        found = trainings_of(rng, seed_sd=0.03, fold_sd=0.05)
        luck = CountedLuck(found, found.mean_A, found.noise_SA)
        seen.append([luck.of_seeds(luck.one(0)) ** 2, luck.of_folds(luck.one(0)) ** 2])
    seeds, folds = np.mean(seen, axis=0)
    assert seeds == pytest.approx(0.03**2 / 5, rel=0.1)
    assert folds == pytest.approx(0.05**2 / 5, rel=0.4), "the larger of two estimates: rather too much than too little"
    assert folds >= 0.05**2 / 5


def test_the_error_of_a_lead_is_that_of_means_of_trainings():
    rng = np.random.default_rng(1)
    errors, leads = [], []
    for _ in range(300):
        found = trainings_of(rng, seed_sd=0.05)
        pair = CountedLuck(found, found.mean_A, found.noise_SA)
        errors.append(pair.error(pair.one(0) - pair.one(1)))
        leads.append(pair.values[0] - pair.values[1])
    assert np.std(leads) == pytest.approx(0.05 * np.sqrt(2 / 60), rel=0.1)
    assert np.std(leads) <= np.mean(errors) < 1.5 * np.std(leads)


def test_the_noise_of_pairs_counts_once():
    """Where trainings differ no more than their pairs' noise makes them, posts say it all."""
    rng = np.random.default_rng(2)
    shape = (2, 2, 3, 5)
    noise = 0.03 * rng.normal(size=(500, *shape))
    shares = []
    for _ in range(100):
        found = Trainings(0.7 + 0.03 * rng.normal(size=shape), noise)
        pair = CountedLuck(found, found.mean_A, found.noise_SA)
        lead = pair.one(0) - pair.one(1)
        shares.append(pair.luck(lead) / pair.posts(lead))
    assert np.median(shares) < 1.0


def test_too_few_trainings_to_know_their_luck_decide_nothing():
    few = trainings_of(np.random.default_rng(3), drawings=2, seeds=1, folds=1, seed_sd=0.02)
    assert not CountedLuck(few, few.mean_A, few.noise_SA).counted


def test_the_same_posts_are_drawn_whatever_folds_they_stand_in():
    rng = np.random.default_rng(4)
    posts, labels = np.repeat(np.arange(40), 3), rng.integers(0, 2, 120)
    drawn = DrawnPosts.of(posts, 50)
    folds = [np.arange(120) // 3 % k for k in (1, 2)]
    one, two = (PostBootstrap(posts, labels, folds=each, drawn=drawn) for each in folds)
    values = rng.random((120, 1))
    assert one.by_fold(values, "auc").shape == (50, 1, 1)
    assert two.by_fold(values, "auc").shape == (50, 1, 2)
    assert float(one.folds[0].weights_SP.sum()) == float(sum(fold.weights_SP.sum() for fold in two.folds)) == 50 * 40
