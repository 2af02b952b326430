"""What is known of a sealed test set: how many posts it has, how often it was looked at, and what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

ORDINALS = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass(frozen=True)
class SealedScore:
    """A model or a baseline on the sealed pairs, with 95% intervals over posts; NaN where there is no score.

    others: further scores by metric. foretold: the honest cross-validated score (a model's). apart: the sealed score
    less what was foretold. ahead: how far the first model is ahead of this one, on the same pairs.
    """

    name: str
    about: str
    kind: str  # model or baseline
    score: Interval
    others: Mapping[str, float]
    foretold: Interval | None = None
    apart: Interval | None = None
    ahead: Interval | None = None
    _OPTIONAL: ClassVar = ("foretold", "apart", "ahead")

    def to_json(self) -> dict[str, Any]:
        intervals = {name: getattr(self, name) for name in ("score", *self._OPTIONAL)}
        others = {name: _finite(value) for name, value in self.others.items()}
        facts = {"name": self.name, "about": self.about, "kind": self.kind, "others": others}
        return facts | {name: None if found is None else found.to_json() for name, found in intervals.items()}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> SealedScore:
        found = {name: Interval.from_json(facts[name]) if facts[name] else None for name in cls._OPTIONAL}
        others = {name: _real(value) for name, value in facts["others"].items()}
        score, named = Interval.from_json(facts["score"]), (facts["name"], facts["about"], facts["kind"])
        return cls(*named, score, others, found["foretold"], found["apart"], found["ahead"])


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        return {"value": _finite(self.value), "low": _finite(self.low), "high": _finite(self.high)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Interval:
        return cls(*(_real(facts[name]) for name in ("value", "low", "high")))

    @property
    def text(self) -> str:
        """`0.690 (0.630 to 0.750)`; of too few pairs without the interval, or without either."""
        if math.isnan(self.low) or math.isnan(self.value):
            return "no score" if math.isnan(self.value) else f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Look:
    """One look at the sealed posts, counted from 1; `scores` are None of one that ended before it had any."""

    number: int
    at_ms: int
    label: str = ""  # the metric's
    pairs: int = 0
    positives: int = 0
    scores: tuple[SealedScore, ...] | None = None

    @property
    def sentence(self) -> str:
        """Foretold and found, and whether they agree; what a later look is worth."""
        if not self.scores:
            return f"Look {self.number} ended before it gave a score; it counts."
        model = self.scores[0]
        foretold = "" if model.foretold is None else f"foretold {model.foretold.text}; "
        found = f"{self.label} of {model.name}: {foretold}on the sealed set {model.score.text}"
        return f"{found}, with 95% intervals over posts.{self._agreement(model)}{self._worth}"

    def _agreement(self, model: SealedScore) -> str:
        apart = model.apart
        if apart is None or math.isnan(apart.low):
            return ""
        if apart.low <= 0 <= apart.high:
            return f" The two are not told apart: {apart.text} from what was foretold."
        return f" It is {'lower' if apart.value < 0 else 'higher'} than was foretold, by {_flipped(apart).text}."

    @property
    def _worth(self) -> str:
        if self.number == 1:
            return " This was the first look."
        return (
            f" This was the {ordinal(self.number)} look: what was chosen since the first may fit these posts, so the "
            "score says less of new ones."
        )


@dataclass(frozen=True)
class SealedTest:
    """The sealed posts of a sweep: how many, which (a fingerprint), and the looks at them, oldest first."""

    sweep: str
    posts: int
    fingerprint: str
    looks: tuple[Look, ...] = ()

    @property
    def last(self) -> Look | None:
        """The latest look that has scores, else the latest."""
        scored = [look for look in self.looks if look.scores]
        return scored[-1] if scored else self.looks[-1] if self.looks else None

    @property
    def count(self) -> int:
        """How many looks there were; MLflow may know of more than the folder."""
        return max((look.number for look in self.looks), default=0)

    @property
    def sentence(self) -> str:
        """For the report and the terminal."""
        if self.last is None:
            return (
                f"{self.posts} sealed posts, which no trial has seen and nobody has looked at: when everything is "
                f"decided, gemma-nli test {self.sweep} scores the registered model on them."
            )
        times = {1: "once", 2: "twice"}.get(self.count, f"{self.count} times")
        return f"{self.posts} sealed posts, looked at {times}. {self.last.sentence}"

    def to_json(self) -> dict[str, Any]:
        """For report.json and `--json`."""
        facts: dict[str, Any] = {"posts": self.posts, "fingerprint": self.fingerprint, "looks": self.count}
        last = self.last
        if last is not None and last.scores:
            facts |= {"metric": last.label, "scored_in_look": last.number}
            facts |= {"scores": [score.to_json() for score in last.scores]}
        return {**facts, "sentence": self.sentence}


def ordinal(number: int) -> str:
    return ORDINALS[number] if 0 < number < len(ORDINALS) else f"{number}th"


def digest_of(tests: Sequence[SealedTest]) -> list[Any]:
    """What a report says of them, as JSON values."""
    return [[test.fingerprint, test.count, sum(bool(look.scores) for look in test.looks)] for test in tests]


def _flipped(apart: Interval) -> Interval:
    return apart if apart.value >= 0 else Interval(-apart.value, -apart.high, -apart.low)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _real(value: float | None) -> float:
    return math.nan if value is None else float(value)
