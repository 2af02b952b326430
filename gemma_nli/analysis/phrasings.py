"""Whether what wins also wins in other words: the winner's other settings in each template and wording that was tried.

In the phrasing that won, the winner leads partly by luck. The others did not choose it, so what it leads by there is
its own. All leads are judged at once, its nearest rival in each being known only after the fact; whether the lead
depends on the phrasing is an interaction, judged over all pairs of phrasings.

Letters: T trials, S draws, P phrasings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gemma_nli.analysis.effects import settings_text
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.adjusted_means import ENOUGH, adjusted_means
from gemma_nli.analysis.inference.best_of_trials import LEVEL
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.inference.significance import Difference
from gemma_nli.analysis.inference.simultaneous import Family
from gemma_nli.analysis.wording import points
from gemma_nli.base.metrics import measured_by
from gemma_nli.config.templates import PLACES

SETTINGS = ("data.wording", *(f"model.{name}" for name in PLACES))
"""The settings that put a pair into other words, its evaluation pairs being the same."""
METHOD = "paired bootstrap over posts, all phrasings and rivals at once"


@dataclass(frozen=True)
class Phrasing:
    """One combination of wording and templates; `lead`: the winner's other settings over their nearest rival there."""

    name: str
    won: bool
    rivals: int
    score: float
    lead: Difference


@dataclass(frozen=True)
class Phrasings:
    """`kept`: the winner's settings that are no phrasing. `change`: the largest difference between two phrasings of its
    lead over the mean of the rivals that both have; None where no two have the same rivals.

    `outcome`: holds (highest in each phrasing, and no interaction shown), depends (a rival beats it in some phrasing,
    or an interaction is shown), or open.
    """

    kept: str
    phrasings: tuple[Phrasing, ...]
    change: Difference | None
    outcome: Literal["holds", "depends", "open"]
    score: str

    @property
    def sentence(self) -> str:
        first = sum(each.lead.value > 0 for each in self.phrasings)
        beaten = [each for each in self.phrasings if each.lead.high < 0]
        shown_first = sum(each.lead.low > 0 for each in self.phrasings)
        head = {
            "holds": f"The winner is not one lucky phrase: {self.kept} scores highest in each of "
            f"{len(self.phrasings)} phrasings",
            "depends": f"The winner depends on the phrasing: {self.kept} scores highest in {first} of "
            f"{len(self.phrasings)} phrasings",
            "open": f"It is not settled whether the winner holds in other words: {self.kept} scores highest in {first} "
            f"of {len(self.phrasings)} phrasings",
        }[self.outcome]
        parts = [f"{head} (shown in {shown_first})"]
        if beaten:
            worst = min(beaten, key=lambda each: each.lead.value)
            parts.append(f"with {worst.name} another beats it by {points(worst.lead, self.score, behind=True)}")
        if self.change is not None:
            change = f"{points(self.change, self.score)} between phrasings"
            shown_change = "" if self.change.low > 0 else ", no interaction shown"
            parts.append(f"its lead over the others changes by up to {change}{shown_change}")
        return f"{'; '.join(parts)}."


def in_other_words(evidence: Evidence, draws: Draws) -> Phrasings | None:
    """None where no phrasing varies, or the winner's other settings stand beside others in fewer than two of them."""
    phrased = [key for key in evidence.varied if key in SETTINGS]
    rest = [key for key in evidence.varied if key not in SETTINGS]
    if not phrased or not rest:
        return None
    places: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
    for place, trial in enumerate(evidence.complete):
        places.setdefault(_values(trial.settings, phrased), {})[_values(trial.settings, rest)] = place
    winner = evidence.complete[evidence.winner].settings
    own, won = _values(winner, rest), _values(winner, phrased)
    beside = {name: there for name, there in places.items() if own in there and len(there) > 1}
    if len(beside) < 2:
        return None
    said = {_values(trial.settings, phrased): settings_text(trial.settings, phrased) for trial in evidence.complete}
    phrasings = _leads(draws, beside, own, won, said)
    change = _change(draws, beside, own)
    interacts = change is not None and change.p_value < 1 - LEVEL
    outcome: Literal["holds", "depends", "open"] = "open"
    if interacts or any(each.lead.high < 0 for each in phrasings):
        outcome = "depends"
    elif all(each.lead.value > 0 for each in phrasings):
        outcome = "holds"
    return Phrasings(settings_text(winner, rest), phrasings, change, outcome, measured_by(draws.metric).label)


def _leads(
    draws: Draws,
    beside: Mapping[tuple[str, ...], Mapping[tuple[str, ...], int]],
    own: tuple[str, ...],
    won: tuple[str, ...],
    said: Mapping[tuple[str, ...], str],
) -> tuple[Phrasing, ...]:
    family, errors = Family(len(draws.noise_ST), LEVEL), {}
    for name, there in beside.items():
        for place in there.values():
            noise_S = draws.noise_ST[:, there[own]] - draws.noise_ST[:, place]
            errors[name, place] = float(noise_S.std())
            if errors[name, place] > 0:
                family.add(noise_S / errors[name, place])
    found = []
    for name, there in beside.items():
        rivals = [place for rest, place in there.items() if rest != own]
        nearest = max(rivals, key=lambda place: draws.score_T[place])
        score, other = float(draws.score_T[there[own]]), float(draws.score_T[nearest])
        lead = family.difference(score, other, errors[name, nearest], METHOD)
        found.append(Phrasing(said[name], name == won, len(rivals), score, lead))
    return tuple(sorted(found, key=lambda each: -each.score))


def _change(
    draws: Draws, beside: Mapping[tuple[str, ...], Mapping[tuple[str, ...], int]], own: tuple[str, ...]
) -> Difference | None:
    """The luck of a single trial is estimated from the rivals, as what an additive model of them leaves over."""
    rivals = sorted(set.intersection(*({*there} for there in beside.values())) - {own})
    if not rivals:
        return None
    places_T = np.array([there[rest] for there in beside.values() for rest in rivals])
    level_T = np.tile(np.arange(len(rivals)), len(beside))
    phrasing_TQ = np.eye(len(beside))[np.repeat(np.arange(len(beside)), len(rivals))][:, 1:]
    left = adjusted_means(level_T, phrasing_TQ, draws.score_T[places_T], draws.noise_ST[:, places_T], balanced=True)
    weight_PT = np.zeros((len(beside), draws.noise_ST.shape[1]))
    for row, there in enumerate(beside.values()):
        weight_PT[row, there[own]] = 1.0
        weight_PT[row, [there[rest] for rest in rivals]] = -1.0 / len(rivals)
    model = dataclasses.replace(left, weight_LT=weight_PT)
    family = Family(len(draws.noise_ST), LEVEL)
    model.add_to(family, draws.noise_ST)
    ahead_P, error_PP = model.means(draws.score_T), model.errors(draws.noise_ST)
    high, low = int(ahead_P.argmax()), int(ahead_P.argmin())
    method = "posts and the luck of single trials" if left.freedom >= ENOUGH else "posts alone"
    return family.difference(float(ahead_P[high]), float(ahead_P[low]), float(error_PP[high, low]), method)


def _values(settings: Mapping[str, Any], keys: list[str]) -> tuple[str, ...]:
    return tuple(repr(settings.get(key)) for key in keys)
