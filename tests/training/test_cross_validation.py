from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from gemma_nli.base.metrics.macro import LEAST
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.features import FeatureRequest
from gemma_nli.features.feature_block import FeatureBlock
from gemma_nli.training.cross_validation import cross_validate, run_folds
from gemma_nli.training.results import DIVERGED, CvResult, FoldResult, aggregate, criterion_scores, summarize
from tests.training.frozen_setup import FrozenSetup, assert_same_fold


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # these are small sums: a second thread costs more than it brings


@pytest.fixture(scope="module")
def setup(tiny_bert, tmp_path_factory) -> FrozenSetup:
    """40 posts in three folds on a tiny BERT."""
    return FrozenSetup.make(tmp_path_factory.mktemp("cv"), tiny_bert, synthetic_corpus(40, seed=3), data__num_folds=3)


@pytest.fixture(scope="module")
def found(setup) -> CvResult:
    torch.set_num_threads(1)
    return cross_validate(setup.base, setup.corpus, setup.pairs, setup.store)


def fold_of(number: int, f1: float, auc: float = 0.5, status: str = "finished", **metrics: float) -> FoldResult:
    facts = {"f1": f1, "auc": auc, "ap": 0.5, "accuracy": 0.5, "precision": 0.5, "recall": 0.5, "peeked_f1": f1}
    rows, values = np.zeros(0, dtype=np.int64), {"train_loss": [1.0], "val_f1": [f1], "val_auc": [auc]}
    return FoldResult(
        number, status, values, 1, 1, 0.5, rows, rows.astype(np.float32), rows.astype(np.int8), {**facts, **metrics}
    )


class TestTheMainWay:
    def test_every_pair_is_measured_out_of_fold_by_the_fold_it_stands_in(self, setup, found):
        assert [fold.fold for fold in found.folds] == [1, 2, 3]
        for fold in found.folds:
            np.testing.assert_array_equal(fold.rows, setup.pairs.evaluation_rows(fold.fold))
            np.testing.assert_array_equal(fold.labels, setup.pairs.label_N[fold.rows])
            assert len(fold.probabilities) == len(fold.rows)

    def test_a_second_run_gives_the_same_bits_and_encodes_nothing(self, setup, found):
        again = cross_validate(setup.base, setup.corpus, setup.pairs, setup.store)
        for one, two in zip(found.folds, again.folds, strict=True):
            assert_same_fold(one, two)
        assert again.aggregates == found.aggregates
        assert again.criteria == found.criteria

    def test_a_run_that_goes_on_equals_one_that_was_never_interrupted(self, setup, found):
        done = {2: found.folds[1]}
        resumed = cross_validate(setup.base, setup.corpus, setup.pairs, setup.store, done=done)
        assert resumed.folds[1] is found.folds[1]
        for one, two in zip(found.folds, resumed.folds, strict=True):
            assert_same_fold(one, two, tolerance=1e-5)
        assert resumed.aggregates["cv_aggregate/mean_f1"] == pytest.approx(found.aggregates["cv_aggregate/mean_f1"])

    def test_a_finished_run_asks_for_no_features(self, setup, found):
        class Nothing:
            def load(self, request: FeatureRequest) -> FeatureBlock:
                raise AssertionError("nothing was left to encode")

        done = {fold.fold: fold for fold in found.folds}
        assert list(run_folds(setup.base, setup.corpus, setup.pairs, Nothing(), done)) == []
        again = cross_validate(setup.base, setup.corpus, setup.pairs, Nothing(), done=done)
        assert again.aggregates == found.aggregates

    def test_only_the_pairs_that_are_used_are_encoded(self, setup, tmp_path):
        asked = []

        class Listening:
            def load(self, request: FeatureRequest) -> FeatureBlock:
                asked.append(len(request))
                return setup.store.load(request)

        cross_validate(setup.base, setup.corpus, setup.pairs, Listening())
        assert asked == [len(setup.pairs.rows_used(1.0))]
        assert asked[0] < len(setup.pairs)

    def test_learned_poolings_and_texts_alone_go_the_same_way(self, setup):
        changes = {"model__pooling_strategy": "attention", "model__pair_encoding": "separate"}
        config = setup.config(**changes, training__num_epochs=1)
        result = cross_validate(config, setup.corpus, setup.pairs, setup.store)
        assert len(result.folds) == 3
        assert "pooler.query_KH" in result.folds[0].state


class TestAggregates:
    def test_mean_spread_and_median_are_over_folds(self):
        values = aggregate([fold_of(1, 0.5), fold_of(2, 0.7), fold_of(3, 0.9)], {})
        assert values["cv_aggregate/mean_f1"] == pytest.approx(0.7)
        assert values["cv_aggregate/std_f1"] == pytest.approx(statistics.stdev([0.5, 0.7, 0.9]))
        assert values["cv_aggregate/median_f1"] == pytest.approx(0.7)
        assert values["cv_aggregate/folds_finished"] == 3

    def test_one_fold_has_no_spread(self):
        assert aggregate([fold_of(1, 0.5)], {})["cv_aggregate/std_f1"] == 0.0

    def test_no_finished_fold_gives_no_aggregates(self, setup):
        assert aggregate([], {}) == {}
        assert summarize([fold_of(1, 0.5, status=DIVERGED)], setup.pairs).aggregates == {}

    def test_a_fold_of_one_class_warns_and_leaves_the_auc_to_the_others(self):
        with pytest.warns(UserWarning, match=r"folds \[2\] have validation labels of one class"):
            values = aggregate([fold_of(1, 0.5, auc=0.8), fold_of(2, 0.7, auc=math.nan)], {})
        assert values["cv_aggregate/mean_auc"] == pytest.approx(0.8)
        assert values["cv_aggregate/mean_f1"] == pytest.approx(0.6)

    def test_no_auc_at_all_is_nan_and_no_crash(self):
        with pytest.warns(UserWarning, match="one class"):
            values = aggregate([fold_of(1, 0.5, auc=math.nan)], {})
        assert math.isnan(values["cv_aggregate/mean_auc"])
        assert math.isnan(values["cv_aggregate/median_auc"])

    def test_optimism_is_what_peeking_would_have_added(self):
        values = aggregate([fold_of(1, 0.5, peeked_f1=0.8), fold_of(2, 0.7, peeked_f1=0.8)], {})
        assert values["cv_aggregate/optimism_f1"] == pytest.approx(0.2)

    def test_peeking_never_takes_away(self, found):
        assert found.aggregates["cv_aggregate/optimism_f1"] >= 0

    def test_best_epochs_are_reported_beside_the_honest_ones(self, found):
        metrics = found.metrics()
        for fold in found.folds:
            name = f"cv_summary/fold_{fold.fold}"
            best = int(np.argmax(fold.history["val_f1"]))
            assert metrics[f"{name}_best_f1"] == max(fold.history["val_f1"])
            assert metrics[f"{name}_best_auc"] == fold.history["val_auc"][best]
            assert metrics[f"{name}_best_epoch"] == best + 1
            assert metrics[f"{name}_selected_f1"] == fold.metrics["f1"]
        best_f1s = [metrics[f"cv_summary/fold_{k}_best_f1"] for k in (1, 2, 3)]
        assert metrics["cv_aggregate/mean_best_f1"] == pytest.approx(statistics.mean(best_f1s))

    def test_optimism_is_the_mean_of_the_peeked_scores_less_the_honest_mean(self, found):
        metrics = found.metrics()
        peeked = statistics.mean(metrics[f"cv_summary/fold_{k}_peeked_f1"] for k in (1, 2, 3))
        optimism = metrics["cv_aggregate/optimism_f1"]
        assert optimism == pytest.approx(peeked - metrics["cv_aggregate/mean_f1"])

    def test_a_diverged_fold_counts_for_nothing_and_is_named(self, setup, found):
        lost = replace(found.folds[0], status=DIVERGED, metrics={}, rows=found.folds[0].rows[:0])
        result = summarize([lost, *found.folds[1:]], setup.pairs)
        assert result.diverged == [lost]
        expected = statistics.mean(fold.metrics["f1"] for fold in found.folds[1:])
        assert result.aggregates["cv_aggregate/mean_f1"] == pytest.approx(expected)

    def test_the_size_of_what_is_trained_is_told(self, found):
        assert found.aggregates["model/trained_parameters"] == 33


class TestCriteria:
    def test_each_criterions_f1_is_over_the_decisions_of_all_folds(self, setup, found):
        rows = np.concatenate([fold.rows for fold in found.folds])
        chosen = np.concatenate([fold.probabilities.astype(np.float64) >= fold.threshold for fold in found.folds])
        labels = setup.pairs.label_N[rows]
        scores = []
        for index, criterion in enumerate(setup.pairs.criterion_ids):
            mine = setup.pairs.criterion_N[rows] == index
            reported = found.criteria[criterion]
            assert reported["support"] == labels[mine].sum()
            if mine.any():
                assert reported["f1"] == pytest.approx(f1_score(labels[mine], chosen[mine], zero_division=0))
            if min(labels[mine].sum(), (labels[mine] == 0).sum()) >= LEAST:
                scores.append(reported["f1"])
        assert found.aggregates["cv_aggregate/macro_criteria"] == len(scores) > 0
        assert found.aggregates["cv_aggregate/macro_f1"] == pytest.approx(statistics.mean(scores))

    def test_each_criterions_auc_is_a_mean_over_folds_and_their_mean_is_the_macro_auc(self, setup, found):
        scores = {criterion: [] for criterion in setup.pairs.criterion_ids}
        pairs_of = {criterion: np.zeros(2, dtype=int) for criterion in setup.pairs.criterion_ids}
        for fold in found.folds:
            for index, criterion in enumerate(setup.pairs.criterion_ids):
                mine = setup.pairs.criterion_N[fold.rows] == index
                pairs_of[criterion] += np.bincount(fold.labels[mine], minlength=2)
                if len(set(fold.labels[mine])) == 2:
                    scores[criterion].append(roc_auc_score(fold.labels[mine], fold.probabilities[mine]))
        for criterion, of_folds in scores.items():
            expected = statistics.mean(of_folds) if of_folds else math.nan
            assert found.criteria[criterion]["auc"] == pytest.approx(expected, nan_ok=True)
        averaged = [statistics.mean(scores[name]) for name, counts in pairs_of.items() if counts.min() >= LEAST]
        assert found.aggregates["cv_aggregate/macro_auc"] == pytest.approx(statistics.mean(averaged))

    def test_the_first_folds_alone_are_averaged_over_the_criteria_of_all(self, setup, found):
        some = summarize(found.folds[:1], setup.pairs)
        assert some.aggregates["cv_aggregate/macro_criteria"] == found.aggregates["cv_aggregate/macro_criteria"]
        assert math.isfinite(some.aggregates["cv_aggregate/macro_auc"])

    def test_decisions_are_the_same_for_folds_and_criteria_where_scores_are_saturated(self, setup):
        """A threshold between two float32 neighbours must not be rounded to one of them."""
        below_one = np.float32(1) - np.float32(2**-24)
        rows = setup.pairs.evaluation_rows(1)
        fold = replace(
            fold_of(1, 0.0),
            rows=rows,
            labels=setup.pairs.label_N[rows],
            probabilities=np.full(len(rows), below_one, dtype=np.float32),
            threshold=float(below_one) + 2**-26,
        )
        scores = criterion_scores([fold], setup.pairs)
        assert {s["recall"] for s in scores.values() if s["support"]} == {0.0}

    def test_a_criterion_without_pairs_is_nan_and_out_of_the_macro_mean(self, setup, found):
        fold = found.folds[0]
        kept = setup.pairs.criterion_N[fold.rows] != 0
        some = replace(fold, rows=fold.rows[kept], labels=fold.labels[kept], probabilities=fold.probabilities[kept])
        result = summarize([some], setup.pairs)
        assert math.isnan(result.criteria[setup.pairs.criterion_ids[0]]["f1"])
        assert math.isfinite(result.aggregates["cv_aggregate/macro_f1"])
