"""The answer in two sentences: which compared value wins when each is tuned alike, by how much, and how sure that
is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gemma_nli.analysis.compared_values import compared_values
from gemma_nli.analysis.confirmation import Confirmation
from gemma_nli.analysis.effects import Effect
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.best_of_trials import LEVEL
from gemma_nli.analysis.inference.honest_score import (
    BudgetCurve,
    Draws,
    HonestScore,
    expected_best,
    honest_score,
)
from gemma_nli.analysis.inference.significance import Difference
from gemma_nli.analysis.paired_tests import ROPE, PairedTests, paired_tests
from gemma_nli.analysis.wording import evidence_text, listed, p_text, points, power_text
from gemma_nli.base.metrics import measured_by


@dataclass(frozen=True)
class Variant:
    """A compared value (or combination), its trials, and the best of them."""

    name: str
    places: tuple[int, ...]
    best: int
    honest: HonestScore
    curve: BudgetCurve


@dataclass(frozen=True)
class Contrast:
    """The leading arm against another, each at its best.

    `tuned` counts in that the best was chosen, and its interval and p-value hold for all pairs of values at once; where
    the values are confirmed it is of their confirming trainings, whose seeds and folds it counts in, and `over_posts`
    is what the sweep's one training per trial says. The others compare the two chosen trials as they are: `fixed` over
    posts, and `tests`.

    `shown`: the leader beats the other. `smallest`: the true difference that this corpus and design would find in 80%
    of cases.
    """

    leader: str
    other: str
    tuned: Difference
    over_posts: Difference
    shown: bool
    smallest: float
    fixed: Difference
    tests: PairedTests


@dataclass(frozen=True)
class Answer:
    """`verdict`: shown (one value beats every other), partly (some of them), open, or alone (nothing to compare).

    `keys`: the settings whose values are the variants. `first` is the answer, `sure` what it rests on and what could
    have been found (empty where nothing was compared), `score` what the best trial scores.
    """

    setting: str
    keys: tuple[str, ...]
    chosen_by: Literal["compare", "only", "largest", "none"]
    variants: tuple[Variant, ...]
    contrasts: tuple[Contrast, ...]
    verdict: Literal["shown", "partly", "open", "alone"]
    first: str
    sure: str
    score: str
    trainings: int

    @property
    def second(self) -> str:
        """All that follows the answer's first sentence."""
        return " ".join(filter(None, (self.sure, self.score)))


def find_answer(
    evidence: Evidence,
    draws: Draws,
    effects: list[Effect],
    overall: HonestScore,
    confirmation: Confirmation | None = None,
) -> Answer:
    """What the sweep says about its compared settings; without any, about the setting with the largest effect.

    Values are ranked by their honest scores, or by their confirmed ones where every value has one; the first is
    contrasted with each other one, and the p-values of these contrasts are adjusted for all pairs of values.
    """
    again = confirmation if confirmation is not None and confirmation.decides else None
    compared = compared_values(evidence, lambda: effects)
    setting, chosen_by, groups = compared.setting, compared.chosen_by, compared.groups
    score = measured_by(draws.metric).label
    honest_sentence = _honest_sentence(evidence, overall, f"{score} {evidence.measured_at}")
    if len(groups) < 2:
        trials = len(evidence.complete)
        only = "is the only trial" if trials == 1 else f"is the best of {trials} trials"
        first = f"Nothing was compared: {evidence_text(evidence, evidence.winner)} {only}."
        count = confirmation.luck.trainings if confirmation else 0
        return Answer(setting, (), "none", (), (), "alone", first, "", honest_sentence, count)
    found = [_variant(evidence, name, places, draws) for name, places in groups]
    variants = tuple(sorted(found, key=lambda v: -v.honest.value if again is None else again.place(v.name)))
    # a setting that was asked about is tuned alike at each value; one that is found is also compared with the others
    may_claim = chosen_by == "compare" or effects[0].matters
    contrasts = _contrasts(evidence, draws, variants, may_claim, again)
    losers = [contrast for contrast in contrasts if contrast.shown]
    verdict: Literal["shown", "partly", "open"] = (
        "shown" if len(losers) == len(contrasts) else "partly" if losers else "open"
    )
    first = _first_sentence(setting, variants, contrasts, verdict, f"{score} {evidence.measured_at}", again)
    return Answer(
        setting,
        compared.keys,
        chosen_by,
        variants,
        contrasts,
        verdict,
        first,
        _evidence_sentence(evidence, variants, contrasts, verdict, score, again),
        honest_sentence,
        trainings=again.luck.trainings if again is not None else 0,
    )


def _variant(evidence: Evidence, name: str, places: list[int], draws: Draws) -> Variant:
    curve = expected_best(draws.score_T[places])
    return Variant(name, tuple(places), evidence.best_of(places), honest_score(draws, places), curve)


def _contrasts(
    evidence: Evidence, draws: Draws, variants: tuple[Variant, ...], may_claim: bool, again: Confirmation | None
) -> tuple[Contrast, ...]:
    """`may_claim`: False where the trials do not tell the setting's effect from that of the others."""
    leader, others = variants[0], variants[1:]
    over_posts = draws.pairs_of_tuned([variant.places for variant in variants])
    pairs = over_posts if again is None else again.luck  # in the order of the variants, both
    fold_TK = evidence.fold_scores(draws.metric)
    found = []
    for place, other in enumerate(others, start=1):
        a, b = leader.best, other.best
        tuned = pairs.difference(0, place)
        tests = paired_tests(
            evidence,
            (fold_TK[a], fold_TK[b]),
            (evidence.decision_TN[a], evidence.decision_TN[b]),
            (evidence.probability_TN[a], evidence.probability_TN[b]),
        )
        found.append(
            Contrast(
                leader=leader.name,
                other=other.name,
                tuned=tuned,
                over_posts=over_posts.difference(0, place),
                shown=may_claim and tuned.p_value < 1 - LEVEL and tuned.value > 0,
                smallest=pairs.smallest_found(0, place),
                fixed=draws.difference(a, b),
                tests=tests,
            )
        )
    return tuple(found)


def _first_sentence(
    setting: str,
    variants: tuple[Variant, ...],
    contrasts: tuple[Contrast, ...],
    verdict: str,
    score: str,
    again: Confirmation | None,
) -> str:
    leader, sizes = variants[0], sorted({len(variant.places) for variant in variants})
    budget = f"{sizes[0]} trials" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} trials"
    budget = "" if sizes[-1] == 1 else f", each tuned over {budget}"
    budget += (
        ", one training per trial"
        if again is None
        else f", counting posts and {again.luck.trainings} trainings of each"
    )
    nearest = contrasts[0]
    if len(contrasts) == 1 and nearest.shown:
        return f"{leader.name} beats {nearest.other} ({setting}) by {points(nearest.tuned, score)}{budget}."
    if verdict == "shown":
        return (
            f"{leader.name} beats every other {setting}: the nearest, {nearest.other}, by "
            f"{points(nearest.tuned, score)}{budget}."
        )
    if verdict == "partly":
        beaten = listed([contrast.other for contrast in contrasts if contrast.shown])
        level = next(contrast for contrast in contrasts if not contrast.shown)
        return (
            f"{leader.name} is the best {setting} and beats {beaten}, but is not shown to beat {level.other}: "
            f"the difference is {points(level.tuned, score)}{budget}."
        )
    return (
        f"No {setting} is shown to be better: {leader.name} leads {nearest.other} by "
        f"{points(nearest.tuned, score)}{budget}."
    )


def _evidence_sentence(
    evidence: Evidence,
    variants: tuple[Variant, ...],
    contrasts: tuple[Contrast, ...],
    verdict: str,
    score: str,
    again: Confirmation | None,
) -> str:
    nearest = contrasts[0] if verdict != "partly" else next(c for c in contrasts if not c.shown)
    belief = nearest.tests.belief
    most = {
        "that it is better by more than": belief.better,
        "that the difference is below": belief.equal,
        "that it is worse by more than": belief.worse,
    }
    chance = max(most, key=lambda name: most[name])
    adjusted = "adjusted p" if len(contrasts) > 1 else "p"
    posts, trainings = len(np.unique(evidence.group_N)), again.luck.trainings if again is not None else 0
    lines = [] if nearest.shown else [power_text(nearest.smallest, posts, score, trainings)]
    leader = variants[0]
    if evidence.winner not in leader.places:
        holder = next(variant.name for variant in variants if evidence.winner in variant.places)
        registered = "" if evidence.spec.finalize.ensemble else ", which is the one registered,"
        luck = "the luck of the choice" if again is None else "the luck of the choice and of its training"
        lines.append(
            f"The single best trial{registered} has {holder}: its lead over the best trial of "
            f"{leader.name} is within {luck}."
        )
    if again is None:
        sure = (
            f"How sure: over posts, {adjusted} {p_text(nearest.tuned.p_value)}; over trainings, the chance "
            f"{chance} {ROPE:g} {score} is {most[chance]:.0%}."
        )
    else:
        sure = (
            f"How sure: over posts and trainings, {adjusted} {p_text(nearest.tuned.p_value)} "
            f"({again.seeds} seeds on each of {again.drawings} fold drawings per value)."
        )
    return " ".join([*lines, sure])


def _honest_sentence(evidence: Evidence, overall: HonestScore, score: str) -> str:
    if overall.candidates == 1:
        return (
            f"The trial ({evidence_text(evidence, evidence.winner)}) scores {overall.value:.3f} {score} "
            f"({overall.level:.0%} interval {overall.low:.3f} to {overall.high:.3f})."
        )
    return (
        f"The best trial ({evidence_text(evidence, evidence.winner)}) scores {overall.value:.3f} {score} with the luck "
        f"of being chosen taken off ({overall.level:.0%} interval {overall.low:.3f} to {overall.high:.3f}); its "
        f"cross-validated score is {overall.raw:.3f}."
    )
