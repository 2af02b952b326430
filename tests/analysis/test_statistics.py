"""Each test against a published or simulated value, and (slow) its error rate where there is nothing to find."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.significance import (
    corrected_resampled_t,
    correlated_bayes,
    delong,
    mcnemar,
    paired_bootstrap,
)


@pytest.fixture(scope="module")
def moons() -> tuple[np.ndarray, np.ndarray]:
    """AUCs of an RBF and a linear SVC over 10 x 10 folds, as scikit-learn's documentation has them.

    Source: "Statistical comparison of models using grid search", scikit-learn's gallery.
    """
    from sklearn.datasets import make_moons
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    X, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    scores = [
        cross_val_score(SVC(kernel=kernel, random_state=0), X, y, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    ]
    return scores[0], scores[1]


def test_the_corrected_t_test_gives_the_published_values(moons: tuple[np.ndarray, np.ndarray]) -> None:
    rbf, linear = moons
    found = corrected_resampled_t(rbf, linear, test_share=1 / 9)
    t = found.value / np.sqrt((1 / 100 + 1 / 9) * np.var(rbf - linear, ddof=1))
    assert t == pytest.approx(0.750, abs=5e-4)
    assert found.p_value / 2 == pytest.approx(0.227, abs=5e-4)  # published one-sided
    assert found.low < 0 < found.high


def test_the_bayesian_t_test_gives_the_published_values(moons: tuple[np.ndarray, np.ndarray]) -> None:
    found = correlated_bayes(*moons, test_share=1 / 9, rope=0.01)
    assert found.equal == pytest.approx(0.432, abs=5e-4)
    assert found.worse + found.equal + found.better == pytest.approx(1)
    assert correlated_bayes(*moons, test_share=1 / 9, rope=1e-12).better == pytest.approx(0.773, abs=5e-4)


def test_fold_scores_that_never_differ_are_no_difference() -> None:
    same = corrected_resampled_t([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], 0.5)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert correlated_bayes([0.5, 0.6], [0.5, 0.6], 1.0).equal == 1


def test_mcnemar_gives_the_published_p_value() -> None:
    """Agresti 1990, "Categorical Data Analysis", p. 350, as in R's ?mcnemar.test: 794, 86, 150, 570; p = 4.115e-05."""
    y = np.ones(1600, dtype=int)
    a = np.repeat([1, 1, 0, 0], [794, 150, 86, 570])
    b = np.repeat([1, 0, 1, 0], [794, 150, 86, 570])
    found = mcnemar(y, a, b)
    assert found.p_value == pytest.approx(2 * stats.binom.cdf(86, 236, 0.5))
    assert found.value == pytest.approx(64 / 1600)
    assert (found.low, found.high) == pytest.approx((0.021, 0.059), abs=6e-4)  # Agresti: 0.04 +- 0.019
    clustered = mcnemar(y, a, b, posts=np.arange(1600))
    assert stats.chi2.isf(clustered.p_value, 1) == pytest.approx(17.36, abs=0.005)  # 64^2 / 236, uncorrected


def test_delong_is_the_variance_of_the_placements() -> None:
    """By its definition: every positive against every negative."""
    rng = np.random.default_rng(0)
    y = rng.random(60) < 0.4
    a, b = (np.round(y + rng.normal(size=60), 1) for _ in range(2))
    parts = []
    for scores in (a, b):
        wins = (scores[y][:, None] > scores[~y]) + 0.5 * (scores[y][:, None] == scores[~y])
        parts.append((wins.mean(1), wins.mean(0)))
    s10 = np.cov(parts[0][0], parts[1][0]) / y.sum()
    s01 = np.cov(parts[0][1], parts[1][1]) / (~y).sum()
    variance = np.array([1, -1]) @ (s10 + s01) @ np.array([1, -1])
    found = delong(y.astype(int), a, b)
    assert found.value == pytest.approx(parts[0][0].mean() - parts[1][0].mean())
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(found.value) / np.sqrt(variance)))
    assert found.high - found.low == pytest.approx(2 * 1.959964 * np.sqrt(variance))


def test_repeating_every_pair_in_its_post_tells_nothing_new() -> None:
    """Twice the rows without a new post: the clustered tests see no more evidence, the others fool themselves."""
    rng = np.random.default_rng(1)
    y = rng.random(300) < 0.5
    a, b = y + rng.normal(scale=1.0, size=300), y + rng.normal(scale=1.2, size=300)
    posts, twice = np.arange(300), np.r_[0:300, 0:300]
    once = delong(y, a, b, posts)
    assert delong(y[twice], a[twice], b[twice], posts[twice]).p_value == pytest.approx(once.p_value)
    assert delong(y[twice], a[twice], b[twice]).p_value < once.p_value
    once = mcnemar(y, a > 0.5, b > 0.5, posts)
    assert mcnemar(y[twice], a[twice] > 0.5, b[twice] > 0.5, posts[twice]).p_value == pytest.approx(once.p_value)
    one = paired_bootstrap(posts, y, a, b, "auc", 500)
    two = paired_bootstrap(posts[twice], y[twice], a[twice], b[twice], "auc", 500)
    assert (two.low, two.high) == pytest.approx((one.low, one.high), abs=1e-9)


@pytest.mark.parametrize("metric", ["f1", "accuracy", "precision", "recall", "auc", "ap"])
def test_a_draw_scores_as_scikit_learn_does_on_the_drawn_rows(metric: str) -> None:
    from sklearn import metrics

    rng = np.random.default_rng(2)
    posts = np.repeat([f"p{i}" for i in range(20)], 3)
    labels = rng.integers(0, 2, 60)
    scores = np.round(labels + rng.normal(size=60), 1)
    folds = np.repeat([1, 2], 30)
    bootstrap = PostBootstrap(posts, labels, repetitions=5, seed=3, folds=folds)
    values = scores if metric in ("auc", "ap") else scores > 0.5
    by = {"f1": metrics.f1_score, "accuracy": metrics.accuracy_score, "precision": metrics.precision_score}
    by |= {"recall": metrics.recall_score, "auc": metrics.roc_auc_score}
    by |= {"ap": metrics.average_precision_score}
    drawn = bootstrap.draws(values, metric)  # type: ignore[arg-type]
    for draw in range(5):
        wanted = []
        for fold in bootstrap.folds:
            rows = np.repeat(fold.rows_R, fold.weights_SP[draw][fold.post_R].astype(int))
            wanted.append(by[metric](labels[rows], values[rows]))
        assert drawn[draw] == pytest.approx(np.mean(wanted))


def test_the_interval_of_a_paired_bootstrap_is_as_wide_as_theory_says() -> None:
    """The accuracy difference of independent posts has a known standard error."""
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 2000)
    a, b = (np.where(rng.random(2000) < right, y, 1 - y) for right in (0.8, 0.75))
    found = paired_bootstrap(np.arange(2000), y, a, b, "accuracy", 4000)
    exact = mcnemar(y, a, b)
    assert found.value == pytest.approx(exact.value)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.003)
    assert found.p_value == pytest.approx(exact.p_value, abs=0.01)


def test_two_equal_models_differ_by_nothing() -> None:
    y = np.tile([0, 1], 30)
    found = paired_bootstrap(np.arange(60), y, y, y, "f1", 100)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert not found.significant


def test_a_paired_bootstrap_refuses_what_it_would_misread() -> None:
    y, posts = [0, 1, 0, 1], [1, 2, 3, 4]
    with pytest.raises(ValueError, match="apply the threshold first"):
        paired_bootstrap(posts, y, [0.2, 0.9, 0.1, 0.7], y, "f1")
    with pytest.raises(ValueError, match="a post stands in two folds"):
        paired_bootstrap([1, 1, 2, 2], y, y, y, "f1", folds=[1, 2, 1, 2])
    with pytest.raises(ValueError, match="shape"):
        paired_bootstrap(posts, y, [0, 1], y, "f1")
    with pytest.raises(ValueError, match="metric must be one of"):
        paired_bootstrap(posts, y, y, y, "f2")  # type: ignore[arg-type]


def _equal_models(rng: np.random.Generator, posts: int) -> tuple[np.ndarray, ...]:
    """Three pairs a post; two models of one skill whose errors share what is hard about a post."""
    post = np.repeat(np.arange(posts), 3)
    y = rng.integers(0, 2, len(post))
    hard = rng.normal(size=posts)[post]
    a, b = (y + 0.7 * hard + 0.7 * rng.normal(size=posts)[post] + rng.normal(size=len(y)) for _ in range(2))
    return post, y, a, b


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("posts", [60, 300])
def test_no_test_rejects_equal_models_more_often_than_it_says(posts: int) -> None:
    """600 data sets in which nothing is to be found: at level 0.05 at most 0.05 + 0.02 are called different."""
    rng = np.random.default_rng(posts)
    tests: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]] = {
        "bootstrap f1": lambda p, y, a, b: paired_bootstrap(p, y, a > 0.5, b > 0.5, "f1", 1000).p_value,
        "bootstrap auc": lambda p, y, a, b: paired_bootstrap(p, y, a, b, "auc", 600).p_value,
        "bootstrap f1 in folds": lambda p, y, a, b: (
            paired_bootstrap(p, y, a > 0.5, b > 0.5, "f1", 1000, folds=p % 5).p_value
        ),
        "mcnemar": lambda p, y, a, b: mcnemar(y, a > 0.5, b > 0.5, p).p_value,
        "delong": lambda p, y, a, b: delong(y, a, b, p).p_value,
    }
    rejected = dict.fromkeys(tests, 0)
    for _ in range(600):
        data = _equal_models(rng, posts)
        for name, test in tests.items():
            rejected[name] += test(*data) < 0.05
    rates = {name: count / 600 for name, count in rejected.items()}
    print(posts, rates)
    assert max(rates.values()) <= 0.07, rates


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_corrected_t_test_keeps_its_level_over_real_folds_and_the_plain_one_does_not() -> None:
    """Two equally good learners (random halves of equal features), cross-validated: a null with overlapping folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, cross_val_score

    rng = np.random.default_rng(5)
    corrected = plain = surely = 0
    runs = 400
    for _ in range(runs):
        y = rng.integers(0, 2, 120)
        X = 0.4 * y[:, None] + rng.normal(size=(120, 8))
        scores: list[list[float]] = [[], []]
        for repeat in range(3):
            folds = KFold(5, shuffle=True, random_state=repeat)
            for side, columns in enumerate((slice(0, 4), slice(4, 8))):
                scores[side] += list(cross_val_score(LogisticRegression(), X[:, columns], y, cv=folds))
        corrected += corrected_resampled_t(*scores, test_share=1 / 4).p_value < 0.05
        plain += stats.ttest_rel(*scores).pvalue < 0.05
        belief = correlated_bayes(*scores, test_share=1 / 4, rope=0.0)
        surely += max(belief.worse, belief.better) > 0.975
    print(corrected / runs, plain / runs, surely / runs)
    assert plain / runs > 0.15  # what the correction is for
    assert corrected / runs <= 0.07
    assert surely / runs <= 0.07
