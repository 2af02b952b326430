"""A report's numbers counted a second time, by other code, from what the journals keep.

Taken over from the report: which posts each bootstrap draw drew, and its random numbers for luck. Everything else is
recounted with scikit-learn, scipy and optuna. Letters: N evaluation pairs, S draws, T trials, K folds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import optuna
from scipy import optimize, special, stats
from sklearn import metrics
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.training.fold import plan_fold
from gemma_nli.trial import TrialRecord


def three(value: float) -> str:
    return f"{value:.3f}"


def interval(values: Sequence[float] | np.ndarray) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{low:.3f} to {high:.3f}"


def p_among(value: float, error: float, largest_S: np.ndarray, differences: int) -> float:
    """How often the largest standardized difference goes so far; by the normal tail where it never does."""
    beyond = (largest_S >= abs(value) / error).sum()
    p = (beyond + 1) / (len(largest_S) + 1)
    return float(min(p, differences * 2 * stats.norm.sf(abs(value) / error)) if beyond == 0 else p)


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"


def worth(scores: Sequence[float], noises: Sequence[np.ndarray], student: float, best: int | None = None) -> np.ndarray:
    """(S,) around what the best is worth: its score less what the best of a draw owes to noise, where the trials within
    twice its simultaneous reach differ by as much as their merit does.
    """
    best = int(np.argmax(scores)) if best is None else best
    gaps = [noises[best] - noise_S for noise_S in noises]
    others = [place for place in range(len(scores)) if place != best]
    if not others:
        return scores[best] + noises[best]
    reach = np.quantile(np.max([np.abs(gaps[o]) / gaps[o].std() for o in others], axis=0), 0.95)
    near = [best] + [o for o in others if scores[best] - scores[o] <= 2 * reach * gaps[o].std()]
    if len(near) == 1:
        return scores[best] + noises[best]
    mean = np.mean([scores[n] for n in near])
    own = [noise_S / student for noise_S in noises]  # without what few posts add to an interval
    noise = np.mean(np.var([own[n] for n in near], axis=0, ddof=1))
    merit = math.sqrt(max(0.0, 1 - noise / np.var([scores[n] for n in near], ddof=1)))
    luck = []
    for draw in range(len(noises[best])):
        drawn = [(mean + merit * (scores[n] - mean) + own[n][draw], own[n][draw]) for n in sorted(near)]
        luck.append(max(drawn, key=lambda one: one[0])[1])
    return np.asarray(scores[best] - max(0.0, float(np.mean(luck))) + noises[best])


class Recount:
    """Everything by trial key; `drawn` is its F1 on the posts drawn, `noise` how far a draw moves it."""

    def __init__(self, evidence: Evidence, draws: Draws, records: dict[str, TrialRecord]) -> None:
        self.evidence, self.records = evidence, records
        self.pairs = evidence.pairs
        self.folds = sorted(next(iter(records.values())).folds)
        self.weights = [fold.weights_SP[:, fold.post_R].astype(np.float64) for fold in draws.bootstrap.folds]
        self.drawn = {key: self.f1_draws(self.decisions(key)) for key in records}
        self.noise = {key: self.widened(drawn_S - drawn_S.mean(), 0.0) for key, drawn_S in self.drawn.items()}
        self.score = {key: float(np.mean(self.fold_f1(key))) for key in records}
        self.winner = min(records, key=lambda key: (-self.score[key], key))

    @cached_property
    def labels(self) -> list[np.ndarray]:
        record = next(iter(self.records.values()))
        return [record.folds[fold].labels for fold in self.folds]

    @cached_property
    def rows(self) -> list[np.ndarray]:
        record = next(iter(self.records.values()))
        return [record.folds[fold].rows for fold in self.folds]

    def probabilities(self, key: str) -> list[np.ndarray]:
        return [self.records[key].folds[fold].probabilities for fold in self.folds]

    def decisions(self, key: str) -> list[np.ndarray]:
        folds = [self.records[key].folds[fold] for fold in self.folds]
        return [fold.probabilities >= np.float64(fold.threshold) for fold in folds]

    def fold_f1(self, key: str) -> list[float]:
        return [float(metrics.f1_score(y, z)) for y, z in zip(self.labels, self.decisions(key), strict=True)]

    def fold_auc(self, key: str) -> list[float]:
        return [float(metrics.roc_auc_score(y, p)) for y, p in zip(self.labels, self.probabilities(key), strict=True)]

    def auc_within(self, criterion: int, scores: Sequence[np.ndarray]) -> float:
        """Mean over the folds in which the criterion has both classes; NaN if there are none."""
        areas = []
        for rows, y, s in zip(self.rows, self.labels, scores, strict=True):
            here = self.pairs.criterion_N[rows] == criterion
            if len(set(y[here])) == 2:
                areas.append(metrics.roc_auc_score(y[here], s[here]))
        return float(np.mean(areas)) if areas else math.nan

    @property
    def averaged(self) -> list[int]:
        """Criteria with at least five positive and five other pairs."""
        criterion_N, y = self.pairs.criterion_N[np.concatenate(self.rows)], np.concatenate(self.labels)
        counts = [np.bincount(y[criterion_N == c], minlength=2) for c in range(len(self.pairs.criterion_ids))]
        return [c for c, count in enumerate(counts) if min(count) >= 5]

    def macro_auc(self, scores: Sequence[np.ndarray]) -> float:
        return float(np.mean([self.auc_within(c, scores) for c in self.averaged]))

    def f1_draws(self, decisions: list[np.ndarray]) -> np.ndarray:
        """(S,) mean over folds of 2 TP / (2 TP + FP + FN), each pair counted as often as its post was drawn."""
        total_S = np.zeros(len(self.weights[0]))
        for weight_SR, y, z in zip(self.weights, self.labels, decisions, strict=True):
            real, called = y.astype(bool), z.astype(bool)
            hits_S = weight_SR @ (real & called)
            wrong_S = weight_SR @ (real ^ called)
            total_S += np.where(hits_S + wrong_S > 0, 2 * hits_S / np.maximum(2 * hits_S + wrong_S, 1), 0.0)
        return total_S / len(self.weights)

    def tuned(self, keys: Sequence[str]) -> np.ndarray:
        """(S,) draws of what the best of `keys` is worth, its mean the worth itself."""
        return worth([self.score[key] for key in keys], [self.noise[key] for key in keys], self.student)

    def tuned_overall(self, groups: Sequence[Sequence[str]]) -> np.ndarray:
        """The same of the winner: its luck within its value, and its value's among the values."""
        parts_S = [self.tuned(keys) for keys in groups]
        winning = next(place for place, keys in enumerate(groups) if self.winner in keys)
        means = [float(part_S.mean()) for part_S in parts_S]
        return worth(means, [part_S - part_S.mean() for part_S in parts_S], self.student, winning)

    def widened(self, draws_S: np.ndarray, center: float) -> np.ndarray:
        return center + (draws_S - center) * math.sqrt(self.posts / (self.posts - len(self.folds))) * self.student

    @property
    def posts(self) -> int:
        return len(np.unique(np.concatenate([self.pairs.group_N[rows] for rows in self.rows])))

    @property
    def student(self) -> float:
        return float(stats.t.ppf(0.975, self.posts - len(self.folds)) / stats.norm.ppf(0.975))

    def values(self, setting: str) -> dict[str, list[str]]:
        """Keys of the trials by a setting's value, in the matrices' order."""
        found: dict[str, list[str]] = {}
        for trial in self.evidence.complete:
            found.setdefault(str(trial.settings[setting]), []).append(trial.key)
        return found

    def best_of(self, keys: Sequence[str]) -> str:
        return max(keys, key=lambda key: self.score[key])

    # --- pair tests of two trials, or of a trial and (scores, decisions) a fold of something else

    def over_folds(self, a: str, b: str | Sequence[float]) -> tuple[float, float, float, tuple[float, float, float]]:
        """(difference, low, high, chances of better, equal, worse beyond 0.01): Nadeau-Bengio and its posterior."""
        d_K = np.array(self.fold_f1(a)) - np.array(self.fold_f1(b) if isinstance(b, str) else b)
        scale = math.sqrt((1 / len(d_K) + 1 / (len(d_K) - 1)) * d_K.var(ddof=1))
        belief = stats.t(len(d_K) - 1, loc=d_K.mean(), scale=scale)
        low, high = belief.interval(0.95)
        better, worse = belief.sf(0.01), belief.cdf(-0.01)
        return float(d_K.mean()), float(low), float(high), (better, 1 - better - worse, worse)

    def accuracy(self, a: str, b: str | Sequence[np.ndarray]) -> tuple[float, float]:
        """(difference, p): McNemar's chi-square with posts as clusters (Durkalski et al. 2003)."""
        y = np.concatenate(self.labels).astype(bool)
        decided = [self.decisions(a), self.decisions(b) if isinstance(b, str) else b]
        right = [np.concatenate(of).astype(bool) == y for of in decided]
        d_N = right[0].astype(float) - right[1]
        posts = self.pairs.group_N[np.concatenate(self.rows)]
        of_post = np.array([d_N[posts == post].sum() for post in np.unique(posts)])
        return float(d_N.mean()), float(stats.chi2.sf(of_post.sum() ** 2 / (of_post**2).sum(), 1))

    def auc(self, a: str, b: str | Sequence[np.ndarray]) -> tuple[float, float]:
        """(difference, p): DeLong by its definition, placements counted pair by pair, posts as clusters."""
        y = np.concatenate(self.labels).astype(bool)
        posts = self.pairs.group_N[np.concatenate(self.rows)]
        areas, placed = [], []
        for of in (self.probabilities(a), self.probabilities(b) if isinstance(b, str) else b):
            p = np.concatenate(of).astype(np.float64)
            above = (p[y][:, None] > p[~y][None]) + 0.5 * (p[y][:, None] == p[~y][None])
            areas.append(above.mean())
            part = np.empty(len(y))
            part[y], part[~y] = (above.mean(1) - above.mean()) / y.sum(), (above.mean(0) - above.mean()) / (~y).sum()
            placed.append(part)
        shift = placed[0] - placed[1]
        of_post = np.array([shift[posts == post].sum() for post in np.unique(posts)])
        scale = math.sqrt((of_post**2).sum() * len(of_post) / (len(of_post) - 1))
        value = areas[0] - areas[1]
        return float(value), float(2 * stats.norm.sf(abs(value) / scale))

    # --- baselines

    def threshold(self, tuned: np.ndarray, labels: np.ndarray) -> float:
        """Of the best F1, halfway to the next score below."""
        steps = np.unique(tuned)[::-1]
        best = int(np.argmax([metrics.f1_score(labels, tuned >= step) for step in steps]))
        return float((steps[best] + (steps[best + 1] if best + 1 < len(steps) else 0.0)) / 2)

    def criterion_only(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(decisions, scores) a fold: a criterion's share of positives among training posts, as evaluation counts."""
        pairs = self.pairs
        config = self.evidence.spec.base.with_settings({"training.epoch_selection": "inner"})
        decided, scored = [], []
        for fold, rows in zip(self.folds, self.rows, strict=True):
            plan = plan_fold(config, pairs, fold)
            trained = set(pairs.post_N[pairs.inner_split(fold, "all")[0]]) - set(pairs.post_N[plan.selection])
            measured = np.concatenate([pairs.evaluation_rows(other) for other in self.folds if other != fold])
            counted = measured[[pairs.post_N[row] in trained for row in measured]]
            every = pairs.label_N[counted].mean()
            share = {}
            for criterion in range(len(pairs.criterion_ids)):
                labels = pairs.label_N[counted[pairs.criterion_N[counted] == criterion]]
                share[criterion] = labels.mean() if len(labels) else every
            scores = np.array([share[c] for c in pairs.criterion_N[rows]])
            tuned = np.array([share[c] for c in pairs.criterion_N[plan.selection]])
            decided.append(scores >= self.threshold(tuned, pairs.label_N[plan.selection]))
            scored.append(scores)
        return decided, scored

    def tfidf(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(decisions, scores) a fold: fitted on its training pairs, threshold from training posts."""
        pairs, texts = self.pairs, [self.evidence.corpus.posts[post] for post in self.pairs.post_ids]
        config = self.evidence.spec.base.with_settings({"training.epoch_selection": "inner"})
        decided, scored = [], []
        for fold, rows in zip(self.folds, self.rows, strict=True):
            plan = plan_fold(config, pairs, fold)
            assert not set(pairs.post_N[plan.fit]) & set(pairs.post_N[rows])
            assert not set(pairs.post_N[plan.selection]) & set(pairs.post_N[rows])
            words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
            words.fit([texts[post] for post in sorted(set(pairs.post_N[plan.fit]))] + ["word", "word"])
            score_of: dict[int, float] = {}
            for criterion in range(len(pairs.criterion_ids)):
                fit = plan.fit[pairs.criterion_N[plan.fit] == criterion]
                of_criterion = [r for r in (*rows, *plan.selection) if pairs.criterion_N[r] == criterion]
                if not of_criterion:
                    continue
                y = pairs.label_N[fit]
                if len(set(y)) < 2:
                    score_of |= dict.fromkeys(of_criterion, (y.sum() + 0.5) / (len(y) + 1))
                    continue
                model = LogisticRegression(C=10.0, solver="liblinear", random_state=0)
                model.fit(words.transform([texts[p] for p in pairs.post_N[fit]]), y)
                p = model.predict_proba(words.transform([texts[pairs.post_N[r]] for r in of_criterion]))[:, 1]
                score_of |= dict(zip(of_criterion, p, strict=True))
            tuned = np.array([score_of[row] for row in plan.selection])
            scored.append(np.array([score_of[row] for row in rows]))
            decided.append(scored[-1] >= self.threshold(tuned, pairs.label_N[plan.selection]))
        return decided, scored

    # --- settings

    def importance(self, method: str) -> dict[str, float]:
        keys = list(self.evidence.varied)
        study = optuna.create_study(direction="maximize")
        domains = {key: self.evidence.spec.space.domain(key) for key in keys}
        for trial in self.evidence.complete:
            params = {key: domains[key].to_param(trial.settings[key]) for key in keys}
            distributions = {key: domains[key].distribution() for key in keys}
            score = self.score[trial.key]
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
        evaluator = {
            "fANOVA": optuna.importance.FanovaImportanceEvaluator(seed=0, n_trees=32),
            "PED-ANOVA": optuna.importance.PedAnovaImportanceEvaluator(),
        }[method]
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    def interaction(self, first: str, second: str) -> float:
        """Root mean square of what cell means leave over when both effects are taken off, less its noise."""
        a, b = self.values(first), self.values(second)
        cells = [[sorted(set(x) & set(y)) for y in b.values()] for x in a.values()]
        mean_IJ = np.array([[np.mean([self.score[k] for k in cell]) for cell in row] for row in cells])
        drawn_IJS = np.array([[np.mean([self.drawn[k] for k in cell], axis=0) for cell in row] for row in cells])

        def left_over(m: np.ndarray) -> np.ndarray:
            return m - m.mean(0, keepdims=True) - m.mean(1, keepdims=True) + m.mean((0, 1), keepdims=True)

        noise = left_over(drawn_IJS).var(axis=2).mean()
        return math.sqrt(max((left_over(mean_IJ) ** 2).mean() - noise, 0.0))

    def effect_draws(self, setting: str, others: Sequence[str]) -> tuple[dict[tuple[str, str], float], np.ndarray]:
        """(standard error of each difference of two values, (S,) the largest standardized difference in each draw).

        A balanced grid: plain means; what an additive model leaves over is the luck of trials, half of what posts
        explain of it taken off.
        """
        keys = list(self.records)
        values = {name: [keys.index(k) for k in of] for name, of in self.values(setting).items()}
        table_TX = np.ones((len(keys), 1))
        for key in (setting, *others):
            columns = [[float(k in of) for k in keys] for of in list(self.values(key).values())[1:]]
            table_TX = np.column_stack([table_TX, *columns])
        freedom = len(keys) - table_TX.shape[1]
        score_T = np.array([self.score[k] for k in keys])
        noise_ST = np.stack([self.noise[k] for k in keys], axis=1)

        def left_over(rows_RT: np.ndarray) -> float:
            _, squares_R, *_ = np.linalg.lstsq(table_TX, rows_RT.T, rcond=None)
            return float(np.mean(squares_R)) / freedom

        half = left_over(noise_ST) / 2
        luck = max(0.0, left_over(score_T[None]) - half)
        rng, draws = np.random.default_rng([0, 1, 1]), len(noise_ST)
        own_ST = rng.standard_normal(noise_ST.shape)
        luck_S = np.maximum(0.0, (luck + half) * rng.chisquare(freedom, draws) / freedom - half)
        errors, largest_S = {}, np.zeros(draws)
        for a, b in itertools.combinations(values, 2):
            posts_S = noise_ST[:, values[a]].mean(1) - noise_ST[:, values[b]].mean(1)
            own_S = own_ST[:, values[a]].mean(1) - own_ST[:, values[b]].mean(1)
            posts, span = posts_S.var(ddof=1), 1 / len(values[a]) + 1 / len(values[b])
            errors[a, b] = errors[b, a] = math.sqrt(posts + luck * span)
            standardized_S = (posts_S + math.sqrt(luck) * own_S) / np.sqrt(posts + luck_S * span)
            largest_S = np.maximum(largest_S, np.abs(standardized_S))
        return errors, largest_S

    # --- the winner's errors

    def truncated(self) -> np.ndarray:
        """(N,) whether post and criterion together are longer than the encoder reads."""
        model = self.records[self.winner].config.model
        tokenizer = AutoTokenizer.from_pretrained(model.name)
        rows, pairs, corpus = np.concatenate(self.rows), self.pairs, self.evidence.corpus
        posts = [corpus.posts[pairs.post_ids[p]] for p in pairs.post_N[rows]]
        criteria = [corpus.criteria[pairs.criterion_ids[c]] for c in pairs.criterion_N[rows]]
        return np.array([len(ids) > model.max_length for ids in tokenizer(posts, criteria)["input_ids"]])

    def slice(self, name: str, here: np.ndarray) -> list[str]:
        """A line of a slice's table."""
        y = np.concatenate(self.labels)[here].astype(int)
        z = np.concatenate(self.decisions(self.winner))[here].astype(int)
        p = np.concatenate(self.probabilities(self.winner))[here]
        accuracy = three(metrics.accuracy_score(y, z))
        if not y.any():
            return [name, str(len(y)), "0", "-", "", "-", "-", accuracy, "-"]
        posts = self.pairs.group_N[np.concatenate(self.rows)][here]
        fold = PostBootstrap(posts, y, 500).folds[0]
        weight_SR = fold.weights_SP[:, fold.post_R].astype(np.float64)
        hits_S, wrong_S = weight_SR @ (y & z), weight_SR @ (y ^ z)
        drawn_S = np.divide(2 * hits_S, 2 * hits_S + wrong_S, out=np.zeros_like(hits_S), where=hits_S + wrong_S > 0)
        precision, recall = metrics.precision_score(y, z), metrics.recall_score(y, z)
        reported = [three(metrics.f1_score(y, z)), interval(drawn_S), three(precision), three(recall), accuracy]
        return [name, str(len(y)), str(y.sum()), *reported, three(metrics.roc_auc_score(y, p))]

    def temperatures(self) -> list[float]:
        """One a fold, from the other folds' predictions, by Newton's method on the likelihood."""
        found = []
        for fold in range(len(self.folds)):
            y = np.concatenate([labels for i, labels in enumerate(self.labels) if i != fold]).astype(float)
            p = [p for i, p in enumerate(self.probabilities(self.winner)) if i != fold]
            z = special.logit(np.clip(np.concatenate(p).astype(np.float64), 1e-7, 1 - 1e-7))
            slope = optimize.root_scalar(lambda b, z=z, y=y: (z * (special.expit(b * z) - y)).sum(), bracket=(0.02, 20))
            found.append(1 / slope.root)
        return found

    def stated(self, temperatures: list[float] | None) -> list[np.ndarray]:
        """The winner's probabilities a fold, scaled where temperatures are given."""
        p = [p.astype(np.float64) for p in self.probabilities(self.winner)]
        if temperatures is None:
            return p
        logits = [special.logit(np.clip(of_fold, 1e-7, 1 - 1e-7)) for of_fold in p]
        return [special.expit(z / t) for z, t in zip(logits, temperatures, strict=True)]

    def calibration(self, temperatures: list[float] | None) -> tuple[float, float]:
        """(expected calibration error in 15 bins, Brier score) of the winner."""
        stated, y = np.concatenate(self.stated(temperatures)), np.concatenate(self.labels)
        bins = np.minimum((stated * 15).astype(int), 14)
        error = sum((bins == b).mean() * abs(stated[bins == b].mean() - y[bins == b].mean()) for b in set(bins))
        return float(error), float(metrics.brier_score_loss(y, stated))
