from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gemma_nli.corpus.pairs import INNER_SLOTS, PairTable, build_pairs
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.model.pooling import POOLERS
from gemma_nli.training.fallbacks import fallback_note
from gemma_nli.training.fold import plan_fold
from gemma_nli.training.frozen.head_inputs import VectorInputs
from gemma_nli.training.frozen.train_folds import fit_head, train_folds, train_seeds
from gemma_nli.training.metrics import best_threshold, fold_metrics, sigmoid
from gemma_nli.training.results import DIVERGED, FINISHED, summarize
from tests.training.frozen_setup import FrozenSetup, assert_same_fold


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # these are small sums: a second thread costs more than it brings


@pytest.fixture(scope="module")
def setup(tiny_sentences, tmp_path_factory) -> FrozenSetup:
    """40 posts in five folds of unequal size on a tiny BERT."""
    return FrozenSetup.make(tmp_path_factory.mktemp("frozen"), tiny_sentences, synthetic_corpus(40, seed=3))


def evaluated_on(pairs: PairTable, fold: int, labels: np.ndarray) -> PairTable:
    """The same table with other labels on one fold's evaluation pairs."""
    label_N = pairs.label_N.copy()
    label_N[pairs.evaluation_rows(fold)] = labels
    return replace(pairs, label_N=label_N)


class TestTogether:
    """Folds that train together give what each gives alone."""

    def test_fold_4_of_this_bench_sleeps_while_longer_ones_go_on(self, setup):
        steps = [-(-len(plan_fold(setup.base, setup.pairs, fold).fit) // 8) for fold in range(1, 6)]
        assert steps[3] < max(steps)

    @pytest.mark.parametrize("pooling", sorted(POOLERS))
    @pytest.mark.parametrize("pair_encoding", ["joint", "separate"])
    @pytest.mark.parametrize("head", ["linear", "mlp"])
    def test_folds_together_equal_folds_one_by_one(self, setup, pooling, pair_encoding, head):
        settings = {
            "model__pooling_strategy": pooling,
            "model__pair_encoding": pair_encoding,
            "model__head": head,
            "training__patience": 1,
            "training__schedule": "cosine",
            "training__warmup_ratio": 0.2,
            "training__loss": "weighted",
        }
        if head == "mlp":
            settings |= {"model__head_norm": "standardize"}
        if POOLERS[pooling].learned:
            settings |= {"training__num_epochs": 2, "training__learning_rate": 0.003}
        together = setup.train(**settings)
        assert_same_fold(together[3], setup.train([4], **settings)[0], tolerance=1e-5)

    @pytest.mark.parametrize(("pooling", "head"), [("mean", "linear"), ("cls", "mlp"), ("attention", "linear")])
    def test_seeds_together_equal_seeds_one_by_one(self, setup, pooling, head):
        """Batches, dropout, first weights and early stops are each seed's own, whatever seeds train beside it."""
        config = setup.config(
            model__pooling_strategy=pooling, model__head=head, model__dropout=0.3, training__patience=2
        )
        folds = list(range(1, setup.pairs.num_folds + 1))
        together = train_seeds(config, [7, 42, 3], setup.pairs, folds, setup.inputs(config))
        assert len({found[0].probabilities.tobytes() for found in together}) == 3, "three seeds, three trainings"
        for seed, found in zip([7, 42, 3], together, strict=True):
            alone = train_folds(config.with_settings({"training.seed": seed}), setup.pairs, folds, setup.inputs(config))
            for one, other in zip(found, alone, strict=True):
                assert_same_fold(one, other, tolerance=1e-5)

    def test_folds_that_stop_early_stop_where_they_would_alone(self, setup):
        settings = {"training__patience": 2, "training__num_epochs": 12}
        together = setup.train(**settings)
        assert len({fold.epochs for fold in together}) > 1, "this seed should stop folds at different epochs"
        for fold in together:
            assert_same_fold(fold, setup.train([fold.fold], **settings)[0], tolerance=1e-5)
            assert fold.epochs == 12 or fold.epochs == fold.selected_epoch + 2

    def test_the_same_seed_gives_the_same_numbers_to_the_last_bit_and_another_seed_others(self, setup):
        first, again, other = setup.train(), setup.train(), setup.train(training__seed=43)
        for one, two, three in zip(first, again, other, strict=True):
            assert_same_fold(one, two)
            assert not np.array_equal(one.probabilities, three.probabilities)
            assert not torch.equal(one.state["head.weight_KD"], three.state["head.weight_KD"])

    def test_each_fold_starts_from_weights_of_its_own(self, setup):
        first, second = setup.train([1, 2], training__learning_rate=1e-12, training__num_epochs=1)
        assert not torch.allclose(first.state["head.weight_KD"], second.state["head.weight_KD"])

    @pytest.mark.parametrize(
        "setting",
        [
            {"training__label_smoothing": 0.3},
            {"training__weight_decay": 5.0},
            {"training__max_grad_norm": 0.01},
            {"training__schedule": "linear"},
            {"training__warmup_ratio": 0.5},
            {"training__loss": "weighted", "data__negative_ratio": 3.0},
            {"training__loss": "focal"},
            {"training__batch_size": 4},
            {"model__dropout": 0.5},
            {"model__head": "mlp"},
        ],
        ids=lambda setting: next(iter(setting)),
    )
    def test_every_setting_of_training_changes_numbers(self, setup, setting):
        changed, plain = setup.train([2], **setting)[0], setup.train([2])[0]
        assert not np.array_equal(changed.probabilities, plain.probabilities)


class TestSelection:
    """Which epoch and threshold a fold is measured at."""

    def test_inner_takes_epoch_and_threshold_from_the_inner_split(self, setup):
        for fold in setup.train(training__num_epochs=8):
            assert fold.selected_epoch == int(np.argmax(fold.history["inner_f1"])) + 1
            assert 0 < fold.threshold < 1
            labels = setup.pairs.label_N[setup.pairs.evaluation_rows(fold.fold)]
            assert fold.metrics | {"peeked_f1": 0} == fold_metrics(fold.probabilities, labels, fold.threshold) | {
                "peeked_f1": 0
            }

    def test_inner_never_looks_at_the_evaluation_pairs(self, setup):
        honest = setup.train(training__num_epochs=8, training__patience=3)
        for fold in honest:
            flipped = evaluated_on(setup.pairs, fold.fold, 1 - fold.labels)
            blind = setup.train([fold.fold], flipped, training__num_epochs=8, training__patience=3)[0]
            assert (blind.selected_epoch, blind.threshold, blind.epochs) == pytest.approx(
                (fold.selected_epoch, fold.threshold, fold.epochs)
            )
            np.testing.assert_allclose(blind.probabilities, fold.probabilities, atol=1e-6)
            assert blind.history["val_loss"] != fold.history["val_loss"]

    def test_inner_fits_on_no_post_that_it_chooses_by(self, setup):
        for fold in range(1, 6):
            plan = plan_fold(setup.base, setup.pairs, fold)
            posts = [set(setup.pairs.post_N[rows].tolist()) for rows in (plan.fit, plan.selection, plan.evaluation)]
            assert not posts[0] & posts[1]
            assert not (posts[0] | posts[1]) & posts[2]

    def test_last_takes_the_last_epoch_at_a_half_and_never_stops_early(self, setup):
        for fold in setup.train(training__epoch_selection="last", training__patience=1, training__num_epochs=6):
            assert (fold.selected_epoch, fold.epochs, fold.threshold) == (6, 6, 0.5)
            assert "inner_f1" not in fold.history
            assert fold.metrics["f1"] == pytest.approx(fold.history["val_f1"][-1])
            assert fold.metrics["auc"] == pytest.approx(fold.history["val_auc"][-1])

    def test_best_takes_the_first_best_epoch_of_the_fold_itself_at_a_half(self, setup):
        for fold in setup.train(training__epoch_selection="best", training__num_epochs=8):
            assert fold.selected_epoch == fold.best_epoch == int(np.argmax(fold.history["val_f1"])) + 1
            assert fold.threshold == 0.5
            assert fold.metrics["f1"] == pytest.approx(max(fold.history["val_f1"])) == fold.metrics["peeked_f1"]

    @pytest.mark.parametrize("selection", ["inner", "last", "best"])
    def test_the_kept_weights_are_those_of_the_selected_epoch(self, setup, selection):
        settings = {"training__epoch_selection": selection, "training__num_epochs": 8, "model__head_norm": "none"}
        config = setup.config(**settings)
        inputs = setup.inputs(config)
        for fold in setup.train([2, 3], **settings):
            bias, weight = fold.state["head.bias_K"], fold.state["head.weight_KD"]
            vectors_MH, place_N = inputs.vectors[0]
            z_V = vectors_MH[place_N[torch.from_numpy(fold.rows)]] @ weight[0] + bias[0]
            np.testing.assert_allclose(torch.sigmoid(z_V).numpy(), fold.probabilities, atol=1e-5)
            assert fold.trained_parameters == 33

    @pytest.mark.parametrize("selection", ["inner", "last", "best"])
    def test_each_curve_at_the_selected_epoch_is_the_folds_own_metric(self, setup, selection):
        for fold in setup.train(training__epoch_selection=selection, training__num_epochs=5):
            for name, value in fold.metrics.items():
                if name != "peeked_f1":
                    assert fold.at(f"val_{name}", fold.selected_epoch) == value, name

    def test_a_figure_at_a_half_says_so_in_its_name(self, setup):
        folds = setup.train(training__num_epochs=5)
        for fold in folds:
            halved = fold_metrics(fold.probabilities, fold.labels, 0.5)["f1"]
            assert fold.at("val_f1_at_half", fold.selected_epoch) == halved
            assert fold.summary()[f"cv_summary/fold_{fold.fold}_best_f1_at_half"] == max(fold.history["val_f1_at_half"])
        assert any(fold.history["val_f1"] != fold.history["val_f1_at_half"] for fold in folds)
        for fold in setup.train(training__num_epochs=2, training__epoch_selection="last"):
            assert fold.history["val_f1"] == fold.history["val_f1_at_half"], "nothing chose another threshold"

    def test_peeking_is_the_same_freedom_used_on_the_fold_itself(self, setup):
        for fold in setup.train(training__num_epochs=6):
            assert fold.metrics["peeked_f1"] >= max(fold.metrics["f1"], max(fold.history["val_f1"])) - 1e-9

    def test_a_higher_negative_ratio_adds_training_pairs_and_changes_no_evaluation_row(self, setup):
        low, high = (setup.train(data__negative_ratio=ratio, training__num_epochs=1) for ratio in (0.5, 4.0))
        for one, four in zip(low, high, strict=True):
            np.testing.assert_array_equal(one.rows, four.rows)
            np.testing.assert_array_equal(one.labels, four.labels)
            fits = [plan_fold(setup.config(data__negative_ratio=r), setup.pairs, one.fold).fit for r in (0.5, 4.0)]
            assert set(fits[0]) < set(fits[1])


def without_inner(pairs: PairTable, fold: int, side: str) -> PairTable:
    """The table where this fold's inner split is of no use on one side."""
    slot = (fold - 1) % INNER_SLOTS
    inner_N = pairs.inner_N.copy()
    others = pairs.fold_N != fold
    if side == "empty selection":
        inner_N[others & (inner_N == slot)] = (slot + 1) % INNER_SLOTS
    elif side == "empty fit":
        inner_N[others] = slot
    else:
        selected = pairs.inner_split(fold, 1.0)[1]
        positive = selected[pairs.label_N[selected] == 1]
        if side == "positive selection":  # its negatives fall behind in their folds' order
            rank_N = pairs.rank_N.copy()
            rank_N[np.setdiff1d(selected, positive)] = 10**6
            return replace(pairs, rank_N=rank_N)
        inner_N[np.isin(pairs.post_N, pairs.post_N[positive])] = (slot + 1) % INNER_SLOTS
    return replace(pairs, inner_N=inner_N)


class TestNoInnerSplit:
    """A small corpus can leave a fold's inner split empty or of one class."""

    @pytest.mark.parametrize("side", ["empty selection", "empty fit", "negative selection", "positive selection"])
    def test_a_fold_without_a_useful_inner_split_is_measured_as_last_and_says_so(self, setup, side):
        pairs = without_inner(setup.pairs, 2, side)
        assert plan_fold(setup.base, pairs, 1).chosen_by == "inner", "fold 1 should keep its split"
        results = setup.train(None, pairs, training__patience=1)
        fallen = results[1]
        assert (fallen.status, fallen.selected_epoch, fallen.threshold) == (FINISHED, 4, 0.5)
        assert "inner split" in fallen.detail
        assert "last epoch, threshold 0.5" in fallen.detail
        assert "inner_f1" not in fallen.history
        assert [fold.lacks_inner_split for fold in results] == [False, True, False, False, False]
        assert fallback_note(results) == f"fold 2: {fallen.detail}"
        assert results[0].detail == ""
        assert "inner_f1" in results[0].history
        last = setup.train([2], pairs, training__epoch_selection="last")[0]
        assert_same_fold(replace(fallen, detail=""), last, tolerance=1e-5)

    def test_all_folds_may_lack_it(self, setup):
        inner_N = setup.pairs.inner_N.copy()
        inner_N[:] = 0
        table = replace(setup.pairs, inner_N=inner_N)
        results = setup.train(None, table)
        assert all("inner split" in fold.detail for fold in results)
        assert all(str(fold.fold) in fallback_note(results) for fold in results)
        assert np.isfinite(summarize(results, table).aggregates["cv_aggregate/mean_f1"])

    def test_a_fold_that_falls_back_never_looks_at_its_evaluation_labels(self, setup):
        pairs = without_inner(setup.pairs, 2, "empty selection")
        honest = setup.train([2], pairs, training__patience=1)[0]
        blind = setup.train([2], evaluated_on(pairs, 2, 1 - honest.labels), training__patience=1)[0]
        np.testing.assert_array_equal(blind.probabilities, honest.probabilities)

    def test_a_real_corpus_of_a_few_posts_trains(self, tiny_bert, tmp_path):
        small = FrozenSetup.make(tmp_path, tiny_bert, synthetic_corpus(8, seed=3), data__num_folds=2)
        chosen = {plan_fold(small.base, small.pairs, fold).chosen_by for fold in (1, 2)}
        assert "last" in chosen, "this corpus should be too small for some inner split"
        assert [fold.status for fold in small.train()] == [FINISHED] * 2


class TestHeadNorm:
    """What a fold's head is normed by is of the pairs that the fold is fitted on, and goes with its weights."""

    @pytest.mark.parametrize("selection", ["inner", "last"])
    def test_mean_and_spread_are_of_the_pairs_that_a_fold_is_fitted_on_and_of_no_others(self, setup, selection):
        settings = {"model__head_norm": "standardize", "training__epoch_selection": selection}
        config = setup.config(**settings)
        vectors_MH, place_N = setup.inputs(config).vectors[0]
        for fold in setup.train([2, 3], **settings):
            plan = plan_fold(config, setup.pairs, fold.fold)
            x_BD = vectors_MH[place_N[plan.fit]].double()
            torch.testing.assert_close(fold.state["norm.mean_KD"][0].double(), x_BD.mean(0), atol=1e-6, rtol=1e-5)
            spread_D = 1 / fold.state["norm.scale_KD"][0].double()
            torch.testing.assert_close(spread_D, x_BD.std(0, correction=0), atol=1e-6, rtol=1e-5)
            assert fold.trained_parameters == x_BD.shape[1] + 1

    def test_dimensions_of_any_scale_train_alike_under_it_and_not_without(self, setup):
        vectors_MH, place_N = setup.inputs(setup.base).vectors[0]
        huge_MH = vectors_MH * torch.where(torch.arange(vectors_MH.shape[1]) % 16 == 3, 1000.0, 1.0) + 7
        inputs = VectorInputs([(huge_MH, place_N)], setup.inputs(setup.base).device)
        for norm, alike in (("standardize", True), ("none", False)):
            config = setup.config(model__head_norm=norm)
            plain, scaled = (
                train_folds(config, setup.pairs, [1], each)[0].probabilities for each in (setup.inputs(config), inputs)
            )
            assert np.allclose(plain, scaled, atol=5e-3) == alike


class TestDivergence:
    """A fold whose loss is no number is told apart and poisons nothing."""

    def hurt(self, setup: FrozenSetup, fold: int, value: float) -> VectorInputs:
        """The inputs with one vector of the fold's evaluation pairs replaced."""
        (vectors_MH, place_N) = setup.inputs(setup.base).vectors[0]
        vectors_MH = vectors_MH.clone()
        vectors_MH[place_N[setup.pairs.evaluation_rows(fold)[0]]] = value
        return VectorInputs([(vectors_MH, place_N)], setup.inputs(setup.base).device)

    @pytest.mark.parametrize("value", [float("inf"), float("nan")])
    def test_a_vector_that_is_no_number_diverges_the_folds_that_use_it(self, setup, value, recwarn):
        results = train_folds(setup.base, setup.pairs, [1, 2, 3], self.hurt(setup, 2, value))
        assert results[1].status == DIVERGED
        for fold in results:
            if fold.status == DIVERGED:
                assert "epoch 1" in fold.detail
                assert "learning_rate" in fold.detail
                assert (len(fold.rows), fold.metrics, fold.epochs) == (0, {}, 0)
        assert [str(w.message) for w in recwarn if issubclass(w.category, RuntimeWarning)] == []

    def test_a_diverged_fold_leaves_its_neighbours_and_the_mean_as_they_were(self, setup):
        pairs = build_pairs(setup.corpus, setup.config(data__eval_negative_ratio=4.0).data)
        (vectors_MH, place_N) = setup.inputs(setup.config(data__negative_ratio=4.0)).vectors[0]
        first = plan_fold(setup.base, pairs, 1)
        seen_by_1 = np.concatenate([first.fit, first.selection, first.evaluation])
        only_2 = np.setdiff1d(pairs.evaluation_rows(2), seen_by_1)
        assert len(only_2), "some pair should be fold 2's alone"
        hurt_MH = vectors_MH.clone()
        hurt_MH[place_N[torch.from_numpy(only_2[:1])]] = float("inf")
        plain, hurt = (
            train_folds(setup.base, pairs, [1, 2], VectorInputs([(vectors, place_N)], torch.device("cpu")))
            for vectors in (vectors_MH, hurt_MH)
        )
        assert [fold.status for fold in hurt] == [FINISHED, DIVERGED]
        assert_same_fold(hurt[0], plain[0])
        found = summarize(hurt, pairs)
        assert [fold.fold for fold in found.diverged] == [2]
        assert found.aggregates["cv_aggregate/mean_f1"] == hurt[0].metrics["f1"]
        assert found.aggregates["cv_aggregate/folds_finished"] == 1

    def test_a_fold_that_diverges_later_keeps_the_history_of_its_finite_epochs(self, setup):
        (vectors_MH, place_N) = setup.inputs(setup.base).vectors[0]
        config = setup.config(training__learning_rate=1.0, training__num_epochs=6)
        results = train_folds(
            config, setup.pairs, [1, 2], VectorInputs([(vectors_MH * 1e18, place_N)], torch.device("cpu"))
        )
        for fold in results:
            assert fold.status in (FINISHED, DIVERGED)
            assert all(np.isfinite(values).all() for values in fold.history.values())
            assert {len(values) for values in fold.history.values()} == {fold.epochs}


def test_the_refit_learns_all_its_rows_and_repeats(setup):
    config = setup.config(model__dropout=0.0, training__learning_rate=0.05)
    rows = setup.pairs.all_rows(1.0)
    first, again = (fit_head(config, setup.pairs, rows, 15, setup.inputs(config)) for _ in range(2))
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    with torch.no_grad():
        z_N = first(setup.inputs(config).sides(first, torch.from_numpy(rows)[None]))[0].numpy()
    labels_N = setup.pairs.label_N[rows]
    assert best_threshold(sigmoid(z_N), labels_N)[1] > best_threshold(np.zeros(len(rows)), labels_N)[1]
    assert fold_metrics(z_N, labels_N, 0.0)["accuracy"] > 0.5
