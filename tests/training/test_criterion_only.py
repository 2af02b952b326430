"""The baseline that never reads a post: chance where negatives are matched, ahead of it where they are pooled."""

from __future__ import annotations

import numpy as np
import pytest

from gemma_nli.config import build_config
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import Annotation, Corpus
from gemma_nli.training.criterion_only import criterion_only, mean_thresholds, scores_of_criterion_only
from gemma_nli.training.metrics import log_odds
from gemma_nli.training.threshold_rules import per_criterion


def corpus_of(frequent: int = 60, rare: int = 10, posts: int = 200) -> Corpus:
    """One criterion that many posts show, one that few do."""
    shown = [("A", place) for place in range(frequent)] + [("B", place) for place in range(100, 100 + rare)]
    annotations = tuple(Annotation(f"p{place}", f"s{name}{place}", "x", name, 1, "") for name, place in shown)
    texts = {f"p{place}": f"text number {place * 7919}" for place in range(posts)}
    return Corpus(texts, {"A": "often", "B": "seldom"}, annotations)


def settings(negatives: str):
    return build_config({"data": {"negatives": negatives}, "model": {"name": "nowhere"}}, "test")


def test_with_matched_negatives_the_criterion_ranks_at_chance_to_the_last_bit():
    config, corpus = settings("matched"), corpus_of()
    found = scores_of_criterion_only(config, build_pairs(corpus, config.data))
    assert found["auc"] == 0.5
    assert found["f1"] <= 2 / 3 + 1e-12


def test_with_pooled_negatives_how_frequent_a_criterion_is_looks_like_skill():
    config, corpus = settings("pooled"), corpus_of()
    assert scores_of_criterion_only(config, build_pairs(corpus, config.data))["auc"] > 0.65


def test_matched_training_negatives_do_not_hide_the_true_prevalence():
    config = settings("matched").with_settings({"data.eval_negative_ratio": "all"})
    assert scores_of_criterion_only(config, build_pairs(corpus_of(), config.data))["auc"] > 0.65


def test_each_folds_share_comes_from_other_folds_alone():
    config, corpus = settings("pooled"), corpus_of()
    pairs = build_pairs(corpus, config.data)
    for fold in range(1, 6):
        rows = pairs.evaluation_rows(fold)
        _, score_N = criterion_only(config, pairs, np.concatenate([pairs.evaluation_rows(k) for k in range(1, 6)]))
        at = np.concatenate([np.full(len(pairs.evaluation_rows(k)), k) for k in range(1, 6)]) == fold
        fit, _ = pairs.inner_split(fold, config.data.negative_ratio)
        for criterion in range(2):
            share = pairs.label_N[fit[pairs.criterion_N[fit] == criterion]].mean()
            assert score_N[at][pairs.criterion_N[rows] == criterion] == pytest.approx(share)


def test_a_scorer_of_all_folds_has_each_criterions_mean_threshold_whatever_its_scale():
    config = settings("matched").with_settings({"training.threshold": "per_criterion"})
    pairs = build_pairs(corpus_of(90, 90), config.data)
    rng = np.random.default_rng(0)
    likely_R = np.clip(0.3 * pairs.label_N + 0.2 * pairs.criterion_N + rng.uniform(0.1, 0.4, len(pairs)), 0.01, 0.99)
    found_C = mean_thresholds(pairs, config, lambda plan: lambda rows: likely_R[rows])
    folds = []
    for fold in range(1, 6):
        _, rows = pairs.inner_split(fold, 1.0)
        folds.append(per_criterion(likely_R[rows], pairs.label_N[rows], pairs.criterion_N[rows]).of(np.arange(2)))
    np.testing.assert_allclose(found_C, np.mean(folds, axis=0))
    assert found_C[1] > found_C[0] + 0.02
    logits_C = mean_thresholds(pairs, config, lambda plan: lambda rows: 4 * log_odds(likely_R[rows]))
    assert logits_C[1] > logits_C[0]
    shared_C = mean_thresholds(pairs, settings("matched"), lambda plan: lambda rows: likely_R[rows])
    assert shared_C[0] == shared_C[1]
