"""What each setting did: marginal means with intervals, importance, interactions, and ranges that end too early.

Letters: T trials, S draws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.importance import domain_of, importances, null_is_a_value
from gemma_nli.analysis.inference.adjusted_means import ENOUGH, AdjustedMeans, adjusted_means, confounded
from gemma_nli.analysis.inference.best_of_trials import LEVEL
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.inference.significance import Difference
from gemma_nli.analysis.inference.simultaneous import Family
from gemma_nli.spec.domain import Range, shown

Floats = NDArray[np.float64]
BINS = 4
MAX_LEVELS = 12


Design = Literal["balanced", "adjusted", "confounded"]


@dataclass(frozen=True)
class Level:
    """A value of a setting (or a stretch of its range) and its trials; `mean` with the other settings held equal."""

    name: str
    places: tuple[int, ...]
    mean: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class Effect:
    """What a setting did, the other settings held equal.

    `spread`: best value's mean less the worst's; interval and p-value hold for all pairs of values of all settings at
    once. `design`: balanced (every combination of the others stands beside each value), adjusted (by a model over the
    trials), or confounded (changes together with other settings, or in too few trials: no p-value).

    `smallest`: the true difference that would be found in 80% of cases.
    """

    key: str
    levels: tuple[Level, ...]
    spread: Difference
    smallest: float
    design: Design
    importance: dict[str, float]
    edge: str | None = None

    @property
    def judged(self) -> bool:
        return self.design != "confounded"

    @property
    def matters(self) -> bool:
        return self.judged and self.spread.p_value < 1 - LEVEL

    @property
    def possible(self) -> float:
        """The largest true difference, either way, that its interval holds."""
        return max(self.spread.high, -self.spread.low)


@dataclass(frozen=True)
class Interaction:
    """How far the cell means of two settings lie from the sum of their effects; `size` has the noise subtracted."""

    keys: tuple[str, str]
    size: float
    names: tuple[tuple[str, ...], tuple[str, ...]]
    mean_IJ: Floats
    count_IJ: NDArray[np.int64]


def main_effects(evidence: Evidence, draws: Draws) -> list[Effect]:
    """One per setting that took at least two values, the most important first."""
    importance = importances(evidence)
    groups = {key: grouped(evidence, key) for key in evidence.varied}
    fitted = {key: _fit(evidence, draws, key, levels) for key, levels in groups.items() if len(levels) > 1}
    family = Family(len(draws.inside_ST), LEVEL)
    for fit in fitted.values():
        if fit.design != "confounded":
            fit.model.add_to(family, draws.noise_ST[:, fit.places])
    effects = [
        _effect(key, groups[key], fit, family, draws, edge_of(evidence, key), importance) for key, fit in fitted.items()
    ]
    return sorted(effects, key=lambda e: (-e.importance.get("fANOVA", 0.0), not e.judged, -e.spread.value))


@dataclass(frozen=True)
class _Fit:
    """A setting's adjusted means over the trials that have it."""

    places: NDArray[np.int64]
    model: AdjustedMeans
    design: Design


def _fit(evidence: Evidence, draws: Draws, key: str, levels: list[tuple[str, list[int]]]) -> _Fit:
    level_of = {place: index for index, (_, places) in enumerate(levels) for place in places}
    places_T = np.array(sorted(level_of))
    level_T = np.array([level_of[place] for place in places_T])
    others = [other for other in evidence.varied if other != key]
    balanced = _balanced(evidence, others, levels)
    other_TQ = _columns(evidence, others, places_T)
    score_T, noise_ST = draws.score_T[places_T], draws.noise_ST[:, places_T]
    model = adjusted_means(level_T, other_TQ, score_T, noise_ST, balanced)
    if balanced:
        return _Fit(places_T, model, "balanced")
    if model.freedom >= ENOUGH and not confounded(level_T, other_TQ):
        return _Fit(places_T, model, "adjusted")
    plain = adjusted_means(level_T, other_TQ[:, :0], score_T, noise_ST, False)
    return _Fit(places_T, plain, "confounded")


def _balanced(evidence: Evidence, others: Sequence[str], levels: list[tuple[str, list[int]]]) -> bool:
    """Whether each value stands beside the same combinations of the other settings, equally often."""
    beside = [
        sorted(repr([evidence.complete[place].settings.get(other) for other in others]) for place in places)
        for _, places in levels
    ]
    return all(combinations == beside[0] for combinations in beside)


def _columns(evidence: Evidence, keys: Sequence[str], places_T: NDArray[np.int64]) -> Floats:
    """(T, Q) what a model takes of settings: a number's place in its range, its square last, else one column a value.

    Where a conditional setting does not apply it is at its mean: the setting it hangs on has a column of its own.
    """
    straight: list[Floats] = []
    squares: list[Floats] = []
    for key in keys:
        values = [evidence.complete[place].settings.get(key) for place in places_T]
        numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) == sum(v is not None for v in values) and len(set(numbers)) > 2:
            domain = domain_of(evidence, key)
            log = min(numbers) > 0 and (domain.log if isinstance(domain, Range) else max(numbers) > 20 * min(numbers))
            at_T = np.array([math.nan if v is None else math.log(v) if log else float(v) for v in values])
            at_T = np.nan_to_num(at_T - np.nanmean(at_T))
            straight.append(at_T / max(float(np.abs(at_T).max()), 1e-12))
            squares.append(straight[-1] ** 2)
        else:
            names = sorted({repr(value) for value in values if value is not None or null_is_a_value(evidence, key)})
            straight += [np.array([float(repr(value) == name) for value in values]) for name in names[1:]]
    return np.column_stack([*straight, *squares]) if straight else np.empty((len(places_T), 0))


def _effect(
    key: str,
    groups: list[tuple[str, list[int]]],
    fit: _Fit,
    family: Family,
    draws: Draws,
    edge: str | None,
    importance: dict[str, dict[str, float]],
) -> Effect:
    score_T, noise_ST = draws.score_T[fit.places], draws.noise_ST[:, fit.places]
    mean_L, error_LL = fit.model.means(score_T), fit.model.errors(noise_ST)
    low_L, high_L = np.quantile(mean_L + noise_ST @ fit.model.weight_LT.T, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    levels = tuple(
        Level(name, tuple(places), *map(float, (mean, low, high, draws.score_T[places].max())))
        for (name, places), mean, low, high in zip(groups, mean_L, low_L, high_L, strict=True)
    )
    top, bottom = int(mean_L.argmax()), int(mean_L.argmin())
    best, worst, error = float(mean_L[top]), float(mean_L[bottom]), float(error_LL[top, bottom])
    if fit.design == "confounded":
        nothing = math.nan
        spread = Difference(best - worst, nothing, nothing, nothing, LEVEL, best, worst, "plain means")
        smallest = nothing
    else:
        spread = family.difference(best, worst, error, f"means over trials, {fit.design}")
        smallest = family.smallest_found(error)
    shares = {name: values[key] for name, values in importance.items() if key in values}
    return Effect(key, levels, spread, smallest, fit.design, shares, edge)


def grouped(evidence: Evidence, key: str) -> list[tuple[str, list[int]]]:
    """(name, places) of each value of a setting in order; a wide range is cut into quarters of its trials."""
    by_value: dict[str, tuple[Any, list[int]]] = {}
    for place, trial in enumerate(evidence.complete):
        value = trial.settings.get(key)
        if value is None and not null_is_a_value(evidence, key):
            continue  # a conditional setting that does not apply
        by_value.setdefault(repr(value), (value, []))[1].append(place)
    values = [value for value, _ in by_value.values()]
    if values and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        ordered = sorted(by_value.values(), key=lambda item: float(item[0]))
        if len(ordered) > MAX_LEVELS or (len(ordered) > BINS and isinstance(domain_of(evidence, key), Range)):
            return _quarters(ordered)
        return [(shown(value), places) for value, places in ordered]
    domain = domain_of(evidence, key)
    order = [repr(v) for v in domain.corners] if domain is not None and not isinstance(domain, Range) else []
    names = sorted(by_value, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [(shown(by_value[name][0]), by_value[name][1]) for name in names]


def _quarters(ordered: list[tuple[Any, list[int]]]) -> list[tuple[str, list[int]]]:
    spread = [(value, place) for value, places in ordered for place in places]
    parts = np.array_split(np.arange(len(spread)), BINS)
    named = []
    for part in parts:
        low, high = spread[part[0]][0], spread[part[-1]][0]
        named.append((f"{low:.3g} to {high:.3g}", [spread[i][1] for i in part]))
    return named


def interactions(evidence: Evidence, draws: Draws) -> list[Interaction]:
    """Pairs of settings whose every combination was tried, the largest interaction first."""
    groups = {key: grouped(evidence, key) for key in evidence.varied}
    usable = {key: levels for key, levels in groups.items() if 2 <= len(levels) <= MAX_LEVELS}
    found = []
    for first, second in itertools.islice(itertools.combinations(usable, 2), 60):
        cells = [[sorted(set(a) & set(b)) for _, b in usable[second]] for _, a in usable[first]]
        count_IJ = np.array([[len(places) for places in row] for row in cells])
        if count_IJ.min() == 0:
            continue
        observed_IJ = np.array([[draws.score_T[places].mean() for places in row] for row in cells])
        drawn_SIJ = np.stack([np.stack([draws.inside_ST[:, p].mean(1) for p in row], axis=1) for row in cells], axis=1)
        noise = float(_beyond_sum(drawn_SIJ).var(0).mean())
        size = math.sqrt(max(float((_beyond_sum(observed_IJ[None])[0] ** 2).mean()) - noise, 0.0))
        names = tuple(n for n, _ in usable[first]), tuple(n for n, _ in usable[second])
        found.append(Interaction((first, second), size, names, observed_IJ, count_IJ))
    return sorted(found, key=lambda interaction: -interaction.size)


def _beyond_sum(mean_SIJ: Floats) -> Floats:
    """What is left of cell means when row and column effects are subtracted."""
    rows, columns = mean_SIJ.mean(2, keepdims=True), mean_SIJ.mean(1, keepdims=True)
    return np.asarray(mean_SIJ - rows - columns + mean_SIJ.mean((1, 2), keepdims=True))


def edge_of(evidence: Evidence, key: str) -> str | None:
    """`low` or `high` where the winner's value lies at an end of a numeric range (or of its three or more values)."""
    value = evidence.complete[evidence.winner].settings.get(key)
    domain = domain_of(evidence, key)
    if domain is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    corners = [v for v in domain.corners if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if isinstance(domain, Range):
        low, high = float(domain.low), float(domain.high)
        scale = math.log if domain.log else float
        share = (scale(value) - scale(low)) / (scale(high) - scale(low))
        return "low" if share < 0.05 else "high" if share > 0.95 else None
    if len(corners) < 3 or len(corners) < len(domain.corners):
        return None
    return "low" if value == min(corners) else "high" if value == max(corners) else None


def end_of(evidence: Evidence, key: str, end: str) -> float:
    """The `low` or `high` end of what was tried of a number."""
    domain = domain_of(evidence, key)
    if isinstance(domain, Range):
        return float(domain.low if end == "low" else domain.high)
    tried = [trial.settings[key] for trial in evidence.complete if trial.settings.get(key) is not None]
    return float(min(tried) if end == "low" else max(tried))


def settings_text(settings: Mapping[str, Any], keys: Sequence[str] | None = None) -> str:
    """`pooling_strategy mean, learning_rate 0.001`, settings that do not apply left out."""
    chosen = keys if keys is not None else list(settings)
    return ", ".join(f"{k.split('.')[-1]} {shown(settings[k])}" for k in chosen if settings.get(k) is not None)
