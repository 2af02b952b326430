"""What a reader should know before believing the answer, ordered by what it does to the conclusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from gemma_nli.analysis.answer import Answer
from gemma_nli.analysis.baselines import BaselineFinding, zero_shot_left_out
from gemma_nli.analysis.confirmation import Confirmation
from gemma_nli.analysis.effects import Effect
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.honest_score import HonestScore
from gemma_nli.analysis.mistakes import Mistakes
from gemma_nli.analysis.phrasings import Phrasings
from gemma_nli.analysis.wording import listed, points
from gemma_nli.base.metrics import measured_by, metric_of
from gemma_nli.corpus.corpus_notes import corpus_notes, unmatched_criteria
from gemma_nli.model.gguf_conversion import quantization_notes

RARE = 10
ENOUGH_FOR_AP = 60
"""Posts from which intervals of AP hold as often as they say (`benchmarks/simulated_claims.py`)."""


class Weight(IntEnum):
    """What a caution does to the conclusion; the heaviest are read first."""

    OVERTURNS = 0
    """It may be false, or of no use."""
    WEAKENS = 1
    """It holds for less than it says."""
    LEAVES_OPEN = 2
    """It holds, and something may still be gained or is not known."""
    NOTED = 3
    """It is as it was: the numbers count this in already."""


@dataclass(frozen=True)
class Caution:
    weight: Weight
    text: str


def cautions(
    evidence: Evidence,
    answer: Answer,
    overall: HonestScore,
    baselines: Sequence[BaselineFinding],
    effects: Sequence[Effect],
    mistakes: Mistakes,
    confirmation: Confirmation | None,
    phrasings: Phrasings | None = None,
) -> list[Caution]:
    """All of them, the heaviest first; those of one weight in the order in which they are found."""
    score = measured_by(overall.metric).label
    found = [
        *_of_the_best_trial(evidence, overall, baselines, confirmation, score),
        *_of_the_trials(evidence, answer),
        *_of_the_phrasing(phrasings),
        *_of_settings(answer, effects, score),
        *_of_the_encoders(evidence),
        *_of_the_corpus(evidence, mistakes),
    ]
    return sorted(found, key=lambda caution: caution.weight)


def lost_to(baselines: Sequence[BaselineFinding], score: str) -> list[str]:
    """A sentence per lead with which baselines beat the best trial, the furthest first; equal leads are said once."""
    lost = sorted((b for b in baselines if b.outcome == "loses"), key=lambda b: b.ahead.value)
    groups = _by_text(lost, lambda b: points(b.ahead, score, behind=True))
    return [
        f"The {listed(names)} baseline{'s beat' if len(names) > 1 else ' beats'} the best trial by {lead}."
        for lead, names in groups.items()
    ]


def _of_the_best_trial(
    evidence: Evidence,
    overall: HonestScore,
    baselines: Sequence[BaselineFinding],
    confirmation: Confirmation | None,
    score: str,
) -> Iterator[Caution]:
    unlearned = evidence.unlearned()
    if evidence.winner in unlearned:
        why = unlearned[evidence.winner]
        yield Caution(
            Weight.OVERTURNS, f"The best trial did not learn in every fold ({why}): its F1 means nothing there."
        )
    for sentence in lost_to(baselines, score)[1:]:  # the first is the headline
        yield Caution(Weight.OVERTURNS, sentence)
    level = [baseline for baseline in baselines if baseline.outcome == "not told apart"]
    if level:
        groups = _by_text(level, lambda b: points(b.ahead, score))
        named = f"the {listed([b.name for b in level])} baseline{'s' if len(level) > 1 else ''}"
        leads = [f"over {listed(names)} is {lead}" for lead, names in groups.items()]
        lead = f"is {next(iter(groups))}" if len(groups) == 1 else ", ".join(leads)
        yield Caution(Weight.OVERTURNS, f"The best trial is not shown to beat {named}: its lead {lead}.")
    if confirmation is not None and confirmation.missing:
        missing = listed(confirmation.missing)
        yield Caution(Weight.WEAKENS, f"Not every compared value is confirmed (not {missing}): posts alone count.")
    if evidence.spec.base.training.epoch_selection == "best":
        yield Caution(
            Weight.OVERTURNS,
            "training.epoch_selection is best: each fold's epoch was chosen on the pairs it is measured on.",
        )
    if metric_of(evidence.spec.metric) is None or evidence.spec.mode == "min":
        yield Caution(
            Weight.OVERTURNS,
            f"The sweep is decided by {evidence.spec.metric} ({evidence.spec.mode}), which cannot be recomputed on "
            f"resampled posts; this report ranks by the highest mean {score}.",
        )
    if evidence.winner not in unlearned and unlearned:
        first = next(iter(unlearned.values()))
        yield Caution(
            Weight.WEAKENS,
            f"{len(unlearned)} of {len(evidence.complete)} trials did not learn in every fold (one of them, {first}).",
        )
    yield from _of_fallbacks(evidence)
    if overall.optimism > 0.01:
        yield Caution(
            Weight.NOTED,
            f"Winner's curse: the best of {overall.candidates} trials scores {overall.raw:.3f}, of which "
            f"{overall.optimism:.3f} comes from choosing the best.",
        )


def _of_fallbacks(evidence: Evidence) -> Iterator[Caution]:
    """Trials with folds that could not choose all by their inner split, the best one's folds first."""
    fallen, best = [trial for trial in evidence.complete if trial.fallback], evidence.complete[evidence.winner]
    who = "The best trial" if best.fallback else f"{len(fallen)} of {len(evidence.complete)} trials"
    which = best.fallback if best.fallback else f"one of them, {fallen[0].fallback}" if fallen else ""
    if which:
        yield Caution(Weight.WEAKENS, f"{who} could not choose everything on the inner split in every fold ({which}).")


def _of_the_trials(evidence: Evidence, answer: Answer) -> Iterator[Caution]:
    if len({len(variant.places) for variant in answer.variants}) > 1:
        summary = ", ".join(f"{variant.name} {len(variant.places)}" for variant in answer.variants)
        yield Caution(Weight.WEAKENS, f"The compared values had unequal budgets of trials ({summary}).")
    lost = [trial for trial in evidence.trials if trial.place is None]
    if lost:
        fates = Counter(trial.fate for trial in lost)
        counts = ", ".join(f"{fates[fate]} {fate}" for fate in sorted(fates))
        yield Caution(Weight.WEAKENS, f"Not every trial could be compared: {counts}.")


def _of_the_phrasing(phrasings: Phrasings | None) -> Iterator[Caution]:
    if phrasings is not None and phrasings.outcome != "holds":
        weight = Weight.WEAKENS if phrasings.outcome == "depends" else Weight.LEAVES_OPEN
        yield Caution(weight, phrasings.sentence)


def _of_settings(answer: Answer, effects: Sequence[Effect], score: str) -> Iterator[Caution]:
    """A line for each thing to say, whatever the number of settings; the compared ones are judged by the headline."""
    for end in ("low", "high"):
        keys = [effect.key for effect in effects if effect.edge == end]
        if keys:
            lie = "lie" if len(keys) > 1 else "lies"
            ranges = "ranges" if len(keys) > 1 else "range"
            yield Caution(
                Weight.LEAVES_OPEN,
                f"The best {listed(keys)} {lie} at the {end} end of what was tried; extend the {ranges}.",
            )
    together = [effect.key for effect in effects if effect.edge is None and not effect.judged]
    if together:
        many = "effects" if len(together) > 1 else "effect"
        yield Caution(
            Weight.LEAVES_OPEN,
            f"The {many} of {listed(together)} cannot be separated from that of the other settings in these trials.",
        )
    inert = [e for e in effects if e.edge is None and e.judged and not e.matters and e.key not in answer.keys]
    if len(inert) == 1:
        yield Caution(
            Weight.LEAVES_OPEN,
            f"No effect of {inert[0].key} shown: up to {inert[0].possible:.3f} {score} is possible.",
        )
    elif inert:
        possible = ", ".join(f"{effect.key} up to {effect.possible:.3f}" for effect in inert)
        yield Caution(
            Weight.LEAVES_OPEN, f"No effect shown of {len(inert)} settings; still possible, in {score}: {possible}."
        )


def _of_the_encoders(evidence: Evidence) -> Iterator[Caution]:
    for note in quantization_notes(trial.config.model for trial in evidence.complete):
        yield Caution(Weight.WEAKENS, note)
    left_out = zero_shot_left_out(evidence)
    if left_out:
        yield Caution(Weight.NOTED, left_out)


def _of_the_corpus(evidence: Evidence, mistakes: Mistakes) -> Iterator[Caution]:
    if not evidence.corpus.has_texts:
        yield Caution(
            Weight.WEAKENS,
            "Made without the posts, which are not on this machine: the baselines that read them and the slices by "
            "post length are missing.",
        )
    known = unmatched_criteria(evidence.pairs)
    for note in corpus_notes(evidence.corpus, evidence.pairs):
        yield Caution(Weight.WEAKENS if note in known else Weight.NOTED, note)
    posts = len(np.unique(evidence.group_N))
    if evidence.ranked_by.endswith("ap") and posts < ENOUGH_FOR_AP:
        yield Caution(
            Weight.WEAKENS,
            f"The 95% intervals of AP are too narrow for so few posts ({posts}): in simulated sweeps of 30 nine of ten "
            "held.",
        )
    rare = [item.name for item in mistakes.criteria if item.support < RARE * evidence.pairs.num_folds / 5]
    if rare:
        yield Caution(Weight.NOTED, f"Criteria with very few positive pairs, whose F1 says little: {', '.join(rare)}.")


def _by_text(baselines: Sequence[BaselineFinding], text: Callable[[BaselineFinding], str]) -> dict[str, list[str]]:
    """Names of those of which the same is said."""
    groups: dict[str, list[str]] = {}
    for baseline in baselines:
        groups.setdefault(text(baseline), []).append(baseline.name)
    return groups
