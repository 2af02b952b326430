"""What one setting of a search space may be: a list of values, or a range whose high end is included."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from gemma_nli.base.errors import ConfigError, Problems, did_you_mean
from gemma_nli.config import check_value, setting_names
from gemma_nli.config.typed_values import kinds

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

LISTS = ("grid", "choice")
RANGES = ("uniform", "loguniform", "int")
KINDS = (*LISTS, *RANGES)
Number = int | float


def plain(value: Any) -> Any:
    """A checked setting as JSON holds it: sections become mappings, tuples lists."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Choices:
    """`grid: [...]` or `choice: [...]`, each value once and as the setting's own type parses it."""

    key: str
    kind: str
    values: tuple[Any, ...]

    @property
    def corners(self) -> tuple[Any, ...]:
        return self.values

    def contains(self, value: Any) -> bool:
        return identity(value) in self._own

    @functools.cached_property
    def _own(self) -> dict[Hashable, Any]:
        """Each value by its identity: looked up for every cell and trial, of which there may be 100,000."""
        return {identity(value): value for value in self.values}

    @functools.cached_property
    def _params(self) -> dict[Hashable, Any]:
        """The value that each of Optuna's params stands for, in the order of the values."""
        return {identity(_param(value)): value for value in self.values}

    def sample(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([_param(value) for value in self.values])

    def suggest(self, trial: Trial) -> Any:
        return self.from_param(trial.suggest_categorical(self.key, [_param(value) for value in self.values]))

    def to_param(self, value: Any) -> Any:
        return _param(self._own.get(identity(value), value))

    def from_param(self, param: Any) -> Any:
        return self._params.get(identity(param), param)

    def tree(self) -> dict[str, Any]:
        return {self.kind: list(self.values)}

    def __str__(self) -> str:
        return f"{self.kind} [{', '.join(shown(value) for value in self.values)}]"


def _param(value: Any) -> Any:
    """Optuna stores plain scalars only: a list or a section is stored as its JSON."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value


@dataclass(frozen=True)
class Range:
    """`uniform`, `loguniform` or `int` from low to high, both ends included."""

    key: str
    kind: str
    low: Number
    high: Number
    step: Number | None = None
    log: bool = False

    @property
    def corners(self) -> tuple[Any, ...]:
        return (self._typed(self.low), self._typed(self.high))

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        if self.step is not None:
            steps = float((Decimal(str(value)) - Decimal(str(self.low))) / Decimal(str(self.step)))
            return math.isclose(steps, round(steps), abs_tol=1e-6)
        return self.kind != "int" or value == int(value)

    def sample(self, rng: np.random.Generator) -> Any:
        if self.kind == "int" and self.log:
            drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return self._typed(min(max(round(drawn), int(self.low)), int(self.high)))
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return self._typed(min(max(drawn, self.low), self.high))
        if self.step is None:
            return self._typed(float(rng.uniform(self.low, self.high)))
        count = round((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(self.step)))
        return self._typed(self._at(int(rng.integers(count + 1))))

    def _at(self, index: int) -> Number:
        value = Decimal(str(self.low)) + index * Decimal(str(self.step))
        return int(value) if self.kind == "int" else float(value)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    def suggest(self, trial: Trial) -> Any:
        if self.kind == "int":
            step = int(self.step or 1)
            return self.from_param(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log, step=step))
        low, high = float(self.low), float(self.high)
        return self.from_param(trial.suggest_float(self.key, low, high, log=self.log, step=self.step))

    def to_param(self, value: Any) -> Any:
        return int(value) if self.kind == "int" else float(value)

    def from_param(self, param: Any) -> Any:
        return self._typed(param)

    def _typed(self, value: Number) -> Any:
        return plain(check_value(self.key, value))

    def tree(self) -> dict[str, Any]:
        ends = {"low": self.low, "high": self.high}
        if self.kind == "int" and self.log:
            return {"int": {**ends, "log": True}}
        if self.step is None or (self.kind == "int" and self.step == 1):
            return {self.kind: [self.low, self.high]}
        return {self.kind: {**ends, "step": self.step}}

    def __str__(self) -> str:
        step = f" in steps of {self.step}" if self.step is not None and self.step != 1 else ""
        return f"{self.kind} [{self.low}, {self.high}]{step}"


Domain = Choices | Range


def parse_domain(key: str, tree: Any, problems: Problems, where: str) -> Domain | None:
    """The domain of `key`, each value parsed and checked by the setting's own type; None if problems were added."""
    if not isinstance(tree, Mapping):
        example = "{grid: [...]}" if isinstance(tree, list) else "{grid: [...]}, or move a fixed value to base"
        problems.add(where, f"expected one of {', '.join(KINDS)}; write {example}.")
        return None
    for name in tree:
        if name not in (*KINDS, "when"):
            problems.add(where, f"unknown kind {name!r}{did_you_mean(str(name), [*KINDS, 'when'])}")
            return None
    kinds = [name for name in KINDS if name in tree]
    if len(kinds) != 1:
        problems.add(where, f"needs exactly one of {', '.join(KINDS)}, got {', '.join(kinds) or 'none'}.")
        return None
    kind, body = kinds[0], tree[kinds[0]]
    return _choices(key, kind, body, problems, where) if kind in LISTS else _range(key, kind, body, problems, where)


def _choices(key: str, kind: str, body: Any, problems: Problems, where: str) -> Choices | None:
    if not isinstance(body, list) or not body:
        problems.add(f"{where}.{kind}", f"must be a list of at least one value, got {shown(body)}.")
        return None
    values: dict[Hashable, Any] = {}
    before = len(problems.lines)
    for index, value in enumerate(body):
        checked = checked_value(key, value, problems, f"{where}.{kind}[{index}]")
        if len(problems.lines) == before:
            values.setdefault(identity(checked), checked)
    return Choices(key, kind, tuple(values.values())) if len(problems.lines) == before else None


def _range(key: str, kind: str, body: Any, problems: Problems, where: str) -> Range | None:
    at = f"{where}.{kind}"
    extra: Mapping[str, Any] = {}
    if isinstance(body, Mapping):
        unknown = [name for name in body if name not in ("low", "high", "step", "log")]
        if unknown or "low" not in body or "high" not in body:
            hint = f", got {', '.join(map(str, body)) or 'nothing'}."
            problems.add(at, f"needs low and high, and may have step or log{hint}")
            return None
        body, extra = [body["low"], body["high"]], body
    if not isinstance(body, list) or len(body) != 2:
        problems.add(at, f"must be [low, high], got {shown(body)}.")
        return None
    before = len(problems.lines)
    low, high = (_number(key, body[i], kind, problems, f"{at}.{end}") for i, end in enumerate(("low", "high")))
    log, step = extra.get("log", kind == "loguniform"), extra.get("step")
    if not isinstance(log, bool):
        problems.add(f"{at}.log", f"must be true or false, got {shown(log)}.")
    if step is not None and (isinstance(step, bool) or not isinstance(step, (int, float)) or not 0 < step < math.inf):
        problems.add(f"{at}.step", f"must be a number above 0, got {shown(step)}.")
    if len(problems.lines) > before:
        return None
    assert low is not None
    assert high is not None
    found = Range(key, kind, low, high, step if step is not None else (1 if kind == "int" and not log else None), log)
    _check_range(found, problems, at)
    return found if len(problems.lines) == before else None


def _check_range(found: Range, problems: Problems, at: str) -> None:
    low, high, step = found.low, found.high, found.step
    if not low < high:
        problems.add(at, f"low must be below high, got [{low}, {high}]; a single value belongs in base.")
        return
    if found.log and low <= 0:
        problems.add(at, f"low must be above 0 for a logarithmic range, got {low}.")
    elif found.log and step is not None:
        problems.add(at, "log and step are both set; choose one.")
    elif found.kind == "loguniform" and not found.log:
        problems.add(at, "log is false; write uniform.")
    elif found.kind == "int" and step is not None and step != int(step):
        problems.add(f"{at}.step", f"must be a whole number, got {step}.")
    elif step is not None:
        steps = (Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step))
        if steps > 2**53:
            problems.add(f"{at}.step", f"{step} is too small for [{low}, {high}].")
        elif steps != int(steps):
            reached = Decimal(str(low)) + int(steps) * Decimal(str(step))
            problems.add(at, f"step {step} from {low} misses high {high}; write high {reached}, or another step.")
    if found.kind != "int" and step is None and not _takes_fractions(found):
        instead = f"int: {{low: {low}, high: {high}, log: true}}" if found.log else f"int: [{low}, {high}]"
        problems.add(at, f"the setting takes whole numbers only; write {instead}.")


def _takes_fractions(found: Range) -> bool:
    between = found.low + (found.high - found.low) * 0.3819
    if between == int(between):
        return True  # so large that all floats are whole
    try:
        check_value(found.key, between)
    except ConfigError:
        return False
    return True


def checked_value(key: str, value: Any, problems: Problems, where: str) -> Any:
    """`value` as the setting parses it and JSON holds it; a refusal is added as a problem under `where`."""
    try:
        return plain(check_value(key, value))
    except ConfigError as error:
        problems.add(where, str(error))
        return None


def _number(key: str, value: Any, kind: str, problems: Problems, where: str) -> Number | None:
    before = len(problems.lines)
    is_switch = bool in kinds(setting_names()[key].annotation)
    checked = None if is_switch else checked_value(key, value, problems, where)
    if len(problems.lines) > before:
        return None
    if isinstance(checked, bool) or isinstance(value, bool) or not isinstance(checked, (int, float)):
        problems.add(where, f"must be a number, got {shown(value)}; other settings take grid or choice.")
        return None
    if kind == "int" and checked != int(checked):
        problems.add(where, f"must be a whole number, got {shown(value)}.")
        return None
    return int(checked) if kind == "int" else checked


def same(a: Any, b: Any) -> bool:
    """Equality that distinguishes true from 1, as YAML does."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def identity(value: Any) -> Hashable:
    """Equal for values that are `same`, and for no others; for lookups where comparing all pairs would be slow."""
    return (isinstance(value, bool), _hashable(value))


def _hashable(value: Any) -> Hashable:
    if isinstance(value, (list, tuple)):
        return (type(value), *(_hashable(item) for item in value))
    if isinstance(value, Mapping):
        return (dict, frozenset((key, _hashable(item)) for key, item in value.items()))
    held: Hashable = value
    return held


def shown(value: Any) -> str:
    text = json.dumps(value, default=str) if isinstance(value, (list, dict, bool, type(None))) else str(value)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)  # a template's line breaks
    return text if len(text) <= 80 else text[:77] + "..."
