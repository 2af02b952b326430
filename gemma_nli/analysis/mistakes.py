"""Where the winner errs: criteria, slices of posts and pairs, and its most confident mistakes, by pair id.

Letters: N evaluation pairs.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.base.errors import EncoderError
from gemma_nli.base.metrics import METRICS, Counts, Metric, RankedMetric
from gemma_nli.base.metrics.f1 import f1_of
from gemma_nli.base.metrics.macro import within_criteria
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import ANNOTATED, SAMPLED, pair_texts
from gemma_nli.model.encoder import load_tokenizer
from gemma_nli.model.prompts import prompts_of
from gemma_nli.model.text_frames import Frame, tokens_beside

Floats = NDArray[np.float64]
SHOWN_MISTAKES = 10
REPETITIONS = 500


@dataclass(frozen=True)
class Slice:
    """Some of the evaluation pairs, over all folds at once; NaN where a score is not defined.

    scores: by metric, those of decisions first; `low` and `high` are of F1.
    """

    name: str
    pairs: int
    support: int
    scores: dict[str, float]
    low: float
    high: float

    @property
    def f1(self) -> float:
        return self.scores["f1"]


@dataclass(frozen=True)
class Mistake:
    """A pair on which the winner was confident and wrong. `text` only where data.log_text allows it."""

    pair_id: str
    label: int
    probability: float
    threshold: float
    source: str
    text: str = ""


@dataclass(frozen=True)
class Mistakes:
    """`thresholds`: the shared one of each fold; `own_thresholds`: of single criteria, means over folds."""

    confusion: dict[str, int]
    f1_at_half: float
    thresholds: tuple[float, ...]
    own_thresholds: dict[str, float]
    criteria: tuple[Slice, ...]
    slices: dict[str, tuple[Slice, ...]]
    most_confident: tuple[Mistake, ...]


def find_mistakes(evidence: Evidence, place: int, config: RunConfig) -> Mistakes:
    """The error analysis of one trial.

    Args:
        place: the trial's row.
        config: its configuration, for the tokens that its encoder keeps.
    """
    chosen_N, label_N = evidence.decision_TN[place], evidence.label_N.astype(bool)
    counts = {
        "true positives": int((chosen_N & label_N).sum()),
        "false positives": int((chosen_N & ~label_N).sum()),
        "false negatives": int((~chosen_N & label_N).sum()),
        "true negatives": int((~chosen_N & ~label_N).sum()),
    }
    criterion_N = evidence.pairs.criterion_N[evidence.rows_N]
    criteria = tuple(
        _within(evidence, place, index, slice_of(evidence, place, criterion_N == index, name))
        for index, name in enumerate(evidence.pairs.criterion_ids)
        if (criterion_N == index).any()
    )
    halves = [
        float(f1_of(Counts.of_rows(evidence.probability_TN[place, at].astype(np.float64) >= 0.5, evidence.label_N[at])))
        for at in (evidence.fold_N == fold for fold in range(1, evidence.pairs.num_folds + 1))
    ]
    return Mistakes(
        confusion=counts,
        f1_at_half=float(np.mean(halves)),
        thresholds=tuple(float(t) for t in evidence.threshold_TK[place]),
        own_thresholds=_own_thresholds(evidence, place),
        criteria=criteria,
        slices=_slices(evidence, place, config),
        most_confident=_most_confident(evidence, place, config),
    )


def _own_thresholds(evidence: Evidence, place: int) -> dict[str, float]:
    if evidence.own_threshold_TKC is None:
        return {}
    own_C, mean_C = ~np.isnan(evidence.own_threshold_TKC[place]).all(0), evidence.thresholds_by_criterion(place).mean(0)
    return {name: float(mean_C[c]) for c, name in enumerate(evidence.pairs.criterion_ids) if own_C[c]}


def slice_of(evidence: Evidence, place: int, here_N: NDArray[np.bool_], name: str) -> Slice:
    """The winner's scores on the pairs `here_N`; the interval of F1 by a bootstrap over their posts."""
    labels, chosen = evidence.label_N[here_N], evidence.decision_TN[place, here_N]
    ranked, positives = evidence.probability_TN[place, here_N].astype(np.float64), int(labels.sum())
    scores = {
        metric: float(each.of_rows(each.takes(chosen, ranked)[None], labels)[0])
        if positives or not each.needs_positives
        else math.nan
        for metric, each in sliced_metrics().items()
    }
    low = high = math.nan
    if positives:
        drawn_S = PostBootstrap(evidence.group_N[here_N], labels, REPETITIONS).draws(chosen, "f1")
        low, high = (float(q) for q in np.quantile(drawn_S, [0.025, 0.975]))
    return Slice(name, int(here_N.sum()), positives, scores, low, high)


def _within(evidence: Evidence, place: int, criterion: int, item: Slice) -> Slice:
    """A criterion's slice, ranks measured as the macro means have them: fold by fold."""
    labels_N, pairs_of = evidence.label_N, (evidence.pairs.criterion_N[evidence.rows_N], evidence.fold_N)
    ranked = {
        name: within_criteria(each, evidence.values(name)[[place]], labels_N, *pairs_of, [criterion])
        for name, each in sliced_metrics().items()
        if isinstance(each, RankedMetric)
    }
    return dataclasses.replace(item, scores={**item.scores, **{name: float(of[0, 0]) for name, of in ranked.items()}})


def sliced_metrics() -> dict[str, Metric]:
    """Those that slices are measured by: of decisions first, of ranks last."""
    kept = [each for each in METRICS.values() if each.in_slices]
    return {each.name: each for each in sorted(kept, key=lambda each: isinstance(each, RankedMetric))}


def _slices(evidence: Evidence, place: int, config: RunConfig) -> dict[str, tuple[Slice, ...]]:
    """Post length, the negatives' source, and how many criteria a post shows."""
    groups: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {}
    cut_N = truncated(evidence, config)
    if cut_N is not None:
        length = config.model.max_length
        groups["post length"] = [(f"whole in {length} tokens", ~cut_N), (f"cut at {length} tokens", cut_N)]
    source_N, positive_N = evidence.pairs.source_N[evidence.rows_N], evidence.label_N == 1
    groups["negatives"] = [
        ("annotated negatives", source_N == ANNOTATED),
        ("sampled negatives", source_N == SAMPLED),
    ]
    shows_P = np.bincount(evidence.pairs.post_N, weights=evidence.pairs.label_N, minlength=len(evidence.pairs.post_ids))
    shows_N = shows_P[evidence.post_N]
    groups["criteria a post shows"] = [
        ("none", shows_N == 0),
        ("one", shows_N == 1),
        ("two", shows_N == 2),
        ("three or more", shows_N >= 3),
    ]
    assert not (positive_N & (source_N != 0)).any(), "a positive pair has no negative's source"
    return {
        title: tuple(slice_of(evidence, place, here_N, name) for name, here_N in parts if here_N.any())
        for title, parts in groups.items()
    }


def truncated(evidence: Evidence, config: RunConfig) -> NDArray[np.bool_] | None:
    """(N,) whether the encoder saw only a part of the post; None where the posts or its tokenizer are elsewhere."""
    if not evidence.corpus.has_texts:
        return None
    try:
        tokenizer, prompts = load_tokenizer(config.model), prompts_of(config.model)
    except EncoderError:
        return None
    corpus = evidence.corpus.in_words(config.data.wording)
    posts, criteria = list(corpus.posts.values()), list(corpus.criteria.values())
    joint = config.model.pair_encoding == "joint"

    def lengths(texts: list[str]) -> NDArray[np.int64]:
        return np.array([len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]])

    frame = prompts.pair if joint else prompts.premise
    if isinstance(frame, Frame):
        beside = np.array(tokens_beside(tokenizer, frame, criteria if joint else None))
    else:
        beside = tokenizer.num_special_tokens_to_add(pair=joint) + (lengths(criteria) if joint else np.zeros(1, int))
    of_criterion = evidence.pairs.criterion_N[evidence.rows_N] if joint else 0
    return np.asarray(lengths(posts)[evidence.post_N] + beside[of_criterion] > config.model.max_length)


def _most_confident(evidence: Evidence, place: int, config: RunConfig) -> tuple[Mistake, ...]:
    """Half of them false positives, half false negatives, where there are enough of each."""
    probability_N, label_N = evidence.probability_TN[place], evidence.label_N
    wrong_N = evidence.decision_TN[place] != (label_N == 1)
    criterion_N = evidence.pairs.criterion_N[evidence.rows_N]
    threshold_N = evidence.thresholds_by_criterion(place)[evidence.fold_N - 1, criterion_N]
    confidence_N = np.where(label_N == 1, 1 - probability_N, probability_N)
    order = np.argsort(-confidence_N, kind="stable")
    picked = [
        place_N
        for side in (0, 1)
        for place_N in [i for i in order if wrong_N[i] and label_N[i] == side][:SHOWN_MISTAKES]
    ]
    rows = evidence.rows_N[picked] if picked else np.zeros(0, dtype=np.int64)
    texts = [""] * len(picked)
    if config.data.log_text and picked and evidence.corpus.has_texts:
        premises, hypotheses = pair_texts(evidence.corpus.in_words(config.data.wording), evidence.pairs, rows)
        texts = [f"{premise} / {hypothesis}" for premise, hypothesis in zip(premises, hypotheses, strict=True)]
    sources = ("positive", "annotated", "sampled")
    return tuple(
        Mistake(
            pair_id,
            int(label_N[i]),
            float(probability_N[i]),
            float(threshold_N[i]),
            sources[int(evidence.pairs.source_N[row])],
            text,
        )
        for pair_id, i, row, text in zip(evidence.pairs.pair_ids(rows), picked, rows, texts, strict=True)
    )
