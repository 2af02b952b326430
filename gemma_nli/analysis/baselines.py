"""Baselines on the same folds and pairs, which cost almost nothing; their thresholds are chosen as the trials' are.

Letters: N evaluation pairs, P posts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.significance import Difference
from gemma_nli.analysis.paired_tests import PairedTests
from gemma_nli.base.errors import EncoderError
from gemma_nli.base.metrics import measured_by
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureRequest, FeatureStore
from gemma_nli.model.loading.language_head import read_answer_head, why_no_language_head
from gemma_nli.training.criterion_only import Scorer, criterion_only, score_folds
from gemma_nli.training.fold import FoldPlan
from gemma_nli.training.frozen.head_inputs import VectorInputs, feature_request, load_inputs
from gemma_nli.training.zero_shot import zero_shot, zero_shot_request

Floats = NDArray[np.float64]
CRITERION_ONLY, ALWAYS_POSITIVE, TFIDF, COSINE, ZERO_SHOT = (
    "criterion only",
    "always positive",
    "TF-IDF",
    "cosine",
    "zero-shot",
)
NAMES = (CRITERION_ONLY, ALWAYS_POSITIVE, TFIDF, COSINE, ZERO_SHOT)
ONE_WORD = "word"  # so that a vocabulary is never empty, not even of posts without a word


@dataclass(frozen=True)
class Baseline:
    """Scored pair by pair, so that it can be compared with a trial; `score_N` is constant where it ranks nothing.

    `outside`: another tool's predictions, read from a file.
    """

    name: str
    about: str
    decision_N: NDArray[np.bool_]
    score_N: Floats
    outside: bool = False

    def values(self, metric: str) -> NDArray[Any]:
        """(N,) what the metric is measured on."""
        values_N: NDArray[Any] = measured_by(metric).takes(self.decision_N, self.score_N)
        return values_N

    def score(self, evidence: Evidence, metric: str) -> float:
        """Mean over folds, or over criteria, as for a trial."""
        return float(evidence.observed.scores(self.values(metric)[None], metric)[0])


@dataclass(frozen=True)
class BaselineFinding:
    """`ahead`: how far the winner is ahead of it, the luck of the winner's choice taken off; interval and p-value hold
    for all baselines at once.

    `smallest`: the true difference that would be found in 80% of cases. `tests`: of the winner as it is.
    """

    name: str
    about: str
    score: float
    f1: float
    auc: float
    macro_auc: float
    ahead: Difference
    smallest: float
    tests: PairedTests
    outside: bool = False

    @property
    def outcome(self) -> Literal["beats", "loses", "not told apart"]:
        """Of the best trial against this baseline."""
        return "beats" if self.ahead.low > 0 else "loses" if self.ahead.high < 0 else "not told apart"

    def facts(self) -> dict[str, Any]:
        """As `--json` has it."""
        ahead = self.ahead
        return {
            "about": self.about,
            "score": self.score,
            "lead_of_winner": ahead.value,
            "low": ahead.low,
            "high": ahead.high,
            "p_value": ahead.p_value,
            "winner": self.outcome,
        }


def decided_alike(evidence: Evidence) -> RunConfig:
    """The sweep's base, with what the winner's thresholds are chosen by: a baseline is decided by the same rule."""
    rule = evidence.complete[evidence.winner].config.training.threshold
    chosen = {"training.epoch_selection": "inner", "training.threshold": rule}
    return evidence.spec.base.with_settings(chosen)


def of_criterion(evidence: Evidence) -> Baseline:
    about = "the criterion's share of positives; never reads the post"
    return Baseline(CRITERION_ONLY, about, *criterion_only(decided_alike(evidence), evidence.pairs, evidence.rows_N))


def always_positive(evidence: Evidence) -> Baseline:
    rows = len(evidence.rows_N)
    return Baseline(
        ALWAYS_POSITIVE, "calls every pair matched", np.ones(rows, dtype=bool), np.full(rows, 0.5, dtype=np.float64)
    )


def tfidf(evidence: Evidence) -> Baseline:
    found = tfidf_scores(decided_alike(evidence), evidence.corpus, evidence.pairs, evidence.rows_N)
    return Baseline(TFIDF, "words of the post, a logistic regression per criterion", *found)


def tfidf_scores(
    config: RunConfig, corpus: Corpus, pairs: PairTable, rows_N: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], Floats]:
    """(N,) decisions and (N,) scores by TF-IDF of words and word pairs that two posts have, one logistic regression per
    criterion, fitted on each fold's training pairs.

    A criterion without both classes among them gets its share of positives.
    """
    texts = [corpus.posts[post] for post in pairs.post_ids]

    def fit(plan: FoldPlan) -> Scorer:
        return fit_words(texts, pairs, plan.fit).scorer(texts, pairs)

    return score_folds(pairs, rows_N, config, fit)


@dataclass(frozen=True)
class WordModel:
    """What `tfidf` fits: the words' weights, and per criterion a regression, or the share of positives."""

    vectorizer: TfidfVectorizer
    by_criterion: tuple[LogisticRegression | float, ...]

    def scorer(self, texts: Sequence[str], pairs: PairTable) -> Scorer:
        """Of the pairs of `texts` (in the order of the table's posts)."""
        words_PV = self.vectorizer.transform(texts)
        score_PC = np.empty((len(texts), len(self.by_criterion)))
        for criterion, model in enumerate(self.by_criterion):
            score_PC[:, criterion] = model if isinstance(model, float) else model.predict_proba(words_PV)[:, 1]
        return lambda rows: np.asarray(score_PC[pairs.post_N[rows], pairs.criterion_N[rows]])


def fit_words(texts: Sequence[str], pairs: PairTable, rows: NDArray[np.int64]) -> WordModel:
    """Fitted on these rows' posts."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    posts = np.unique(pairs.post_N[rows])
    words_PV = vectorizer.fit([texts[post] for post in posts] + 2 * [ONE_WORD]).transform([texts[p] for p in posts])
    models: list[LogisticRegression | float] = []
    for criterion in range(len(pairs.criterion_ids)):
        own = rows[pairs.criterion_N[rows] == criterion]
        labels = pairs.label_N[own]
        if len(np.unique(labels)) < 2:
            models.append(float((labels.sum() + 0.5) / (len(labels) + 1)))
            continue
        model = LogisticRegression(C=10.0, solver="liblinear", random_state=0)
        models.append(model.fit(words_PV[np.searchsorted(posts, pairs.post_N[own])], labels))
    return WordModel(vectorizer, tuple(models))


def cosine(evidence: Evidence, encode: bool = False) -> Baseline | None:
    """Cosine of the encoder's mean-pooled vectors of post and criterion, with only a threshold learned.

    Args:
        encode: compute vectors that the store lacks; without, None where it lacks some or the encoder is not here.
    """
    base = decided_alike(evidence)
    config = base.with_settings(
        {
            "model.pair_encoding": "separate",
            "model.pooling_strategy": "mean",
            "model.layers": "last",
            "model.freeze_encoder": True,
            "model.lora": None,
            "model.unfreeze_last_n": None,
            "model.template": "native",
        }
    )
    rows = evidence.pairs.rows_used(config.data.negative_ratio)
    try:
        request = feature_request(config, evidence.corpus, evidence.pairs, rows)
        store = FeatureStore(evidence.storage / "features", config.features)
        if not encode and not is_stored(store, request):
            return None
        inputs = load_inputs(config, evidence.corpus, evidence.pairs, rows, store)
    except EncoderError:
        if encode:
            raise
        return None
    assert isinstance(inputs, VectorInputs), "mean pooling is not learned"
    sides = []
    for vectors_MH, place_N in inputs.vectors:
        unit_MH = vectors_MH.float().cpu().numpy()
        unit_MH = unit_MH / np.maximum(np.linalg.norm(unit_MH, axis=1, keepdims=True), 1e-12)
        sides.append((unit_MH, place_N.cpu().numpy()))
    (post_MH, post_N), (criterion_MH, criterion_N) = sides
    cosine_N = np.full(len(evidence.pairs), np.nan)
    cosine_N[rows] = (1 + np.einsum("rh,rh->r", post_MH[post_N[rows]], criterion_MH[criterion_N[rows]])) / 2
    decided, scored = score_folds(
        evidence.pairs, evidence.rows_N, config, lambda plan: lambda rows: np.asarray(cosine_N[rows])
    )
    return Baseline(COSINE, "of the encoder's mean-pooled vectors of post and criterion", decided, scored)


def zero_shot_of(evidence: Evidence, encode: bool = False) -> Baseline | None:
    """What the encoder's own language model answers, where it has one and `report.zero_shot` does not exclude it.

    Args:
        encode: compute states that the store lacks; without, None where it lacks some or the encoder is not here.
    """
    asked, base = evidence.spec.report.zero_shot, decided_alike(evidence)
    if asked == "never":
        return None
    try:
        if why_no_language_head(base.model):
            return None
        store = FeatureStore(evidence.storage / "features", base.features)
        request = zero_shot_request(base, evidence.corpus, evidence.pairs)
        if not encode and asked == "auto" and not is_stored(store, request):
            return None
        found = zero_shot(base, evidence.corpus, evidence.pairs, evidence.rows_N, store)
    except EncoderError:
        if encode:
            raise
        return None
    return Baseline(ZERO_SHOT, found.about, found.decision_N, found.score_N)


def zero_shot_left_out(evidence: Evidence) -> str:
    """Why a zero-shot baseline that was asked for is missing; empty if it is not, or was not asked for."""
    if evidence.spec.report.zero_shot != "always":
        return ""
    try:
        read_answer_head(evidence.spec.base.model)
    except EncoderError as error:
        return f"report.zero_shot is always, and the baseline is left out: {error}"
    return ""


def is_stored(store: FeatureStore, request: FeatureRequest) -> bool:
    """Whether nothing has to be encoded; a store that never held such features is not opened."""
    return (store.root / request.key).is_dir() and not store.missing(request)


def measure_baselines(evidence: Evidence, encode: bool = False) -> list[Baseline]:
    """Every baseline that can be computed here, the one that never reads a post first; other tools' last.

    Of a corpus without texts those that read none.
    """
    found = [of_criterion(evidence), always_positive(evidence)]
    if evidence.corpus.has_texts:
        reading = [tfidf(evidence), cosine(evidence, encode), zero_shot_of(evidence, encode)]
        found += [baseline for baseline in reading if baseline is not None]
    outside = [Baseline(each.name, each.about, each.decision_N, each.score_N, True) for each in evidence.outside]
    return [*found, *outside]
