"""A search space: which settings a sweep varies, over what, and when.

    model.pooling_strategy: {grid: [mean, max, last_k]}
    model.pooling_k:        {int: [1, 8], when: {model.pooling_strategy: last_k}}
    training.learning_rate: {loguniform: [1e-5, 1e-2]}

A setting with `when` varies only where each setting named there is itself varied and has one of the values given;
elsewhere it keeps the value of the sweep's base.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from gemma_nli.base.errors import Problems, SpecError
from gemma_nli.base.random_streams import RANDOM_CELLS
from gemma_nli.config import RunConfig, read_yaml, set_dotted, validation_lines
from gemma_nli.spec.conditions import Varied, parse_varied
from gemma_nli.spec.domain import Domain, Range, identity, plain, same, shown

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

MAX_CELLS = 100_000


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep, and the varied settings that turn the base into it (plain JSON values)."""

    settings: dict[str, Any]
    config: RunConfig

    @cached_property
    def identity(self) -> str:
        return config_identity(self.config)


def config_identity(config: RunConfig) -> str:
    """Equal for configurations that are one trial; unlike `canonical()` it distinguishes encoders by name."""
    return json.dumps([config.model.name, config.model.revision, config.canonical()], sort_keys=True)


@dataclass(frozen=True)
class SearchSpace:
    """The varied settings, those that others depend on first."""

    varied: tuple[Varied, ...]
    source: str = "space"

    @classmethod
    def from_mapping(cls, tree: Any, source: str = "space") -> SearchSpace:
        """A checked space of a mapping of dotted settings.

        Raises:
            SpecError: with every problem, before any trial could start.
        """
        problems = Problems(source)
        varied = parse_varied(tree, problems)
        problems.raise_if_any(SpecError)
        return cls(varied, source)

    @classmethod
    def from_file(cls, path: str | Path) -> SearchSpace:
        """A checked space of a YAML file; raises SpecError, or ConfigError if it is not YAML."""
        return cls.from_mapping(read_yaml(Path(path)), str(path))

    def __len__(self) -> int:
        return len(self.varied)

    @property
    def keys(self) -> list[str]:
        return [varied.key for varied in self.varied]

    def domain(self, key: str) -> Domain | None:
        return next((varied.domain for varied in self.varied if varied.key == key), None)

    def encoder_settings_vary(self) -> set[str]:
        """The varied `model.*` settings: each of their combinations may need an encoding of its own."""
        return {key for key in self.keys if key.startswith("model.")}

    def given(self, settings: Mapping[str, Any]) -> SearchSpace:
        """The space that is left to vary when these settings have these values."""
        left = []
        for varied in self.varied:
            fixed = [(key, values) for key, values in varied.when if key in settings]
            if varied.key in settings or not all(any(same(settings[k], v) for v in values) for k, values in fixed):
                continue
            left.append(Varied(varied.key, varied.domain, tuple(c for c in varied.when if c not in fixed)))
        known = {varied.key for varied in left}
        alive = tuple(varied for varied in left if all(key in known for key, _ in varied.when))
        return SearchSpace(alive, self.source)

    def tree(self) -> dict[str, Any]:
        """The mapping that recreates this space."""
        conditions = {v.key: {key: list(values) for key, values in v.when} for v in self.varied}
        return {v.key: {**v.domain.tree(), **({"when": conditions[v.key]} if v.when else {})} for v in self.varied}

    def algorithm_problems(self, algorithm: str) -> list[tuple[str, str]]:
        """(setting, sentence) for each domain that the search algorithm cannot use."""
        found = []
        for varied in self.varied:
            domain = varied.domain
            if algorithm == "grid" and isinstance(domain, Range):
                what = f"{domain} lists no values for a grid; write grid: [...] with the values to try, or set "
                found.append((varied.key, what + "search.algorithm to random or optuna."))
            if algorithm == "optuna" and domain.kind == "grid":
                choice = str(domain).replace("grid", "choice:", 1)
                what = f"{domain} asks for every value, but search.algorithm optuna samples; write {choice} instead, "
                found.append((varied.key, what + "or set search.algorithm to grid."))
        return found

    def cells(self, base: RunConfig) -> list[Cell]:
        """Every cell of the grid in the file's order, conditions applied, equal configurations once.

        Raises:
            SpecError: more than 100,000 cells, or impossible ones: each (of the first ten) with its reason.
        """
        problems = Problems(self.source)
        for key, what in self.algorithm_problems("grid"):
            problems.add(key, what)
        problems.raise_if_any(SpecError)
        combinations = list(itertools.islice(self._combinations(), MAX_CELLS + 1))
        if len(combinations) > MAX_CELLS:
            count = math.prod(len(varied.domain.corners) for varied in self.varied)
            before = " before conditions" if any(varied.when for varied in self.varied) else ""
            raise SpecError(
                f"{self.source}: a grid of {count:,} cells{before}, more than {MAX_CELLS:,}; "
                "list fewer values, or set search.algorithm to random or optuna."
            )
        different: dict[str, Cell] = {}
        for cell in self._possible(base, combinations):
            different.setdefault(cell.identity, cell)
        return list(different.values())

    def probe(self, base: RunConfig) -> list[Cell]:
        """The space's corners (or a sample, where they are many), which must be possible configurations.

        Raises:
            SpecError: with the impossible ones found and their reasons.
        """
        corners = list(itertools.islice(self._combinations(), 4097))
        if len(corners) > 4096:
            rng = np.random.default_rng(0)
            corners = [self._draw(rng) for _ in range(1024)]
        return self._possible(base, corners)

    def sample(self, base: RunConfig, rng: np.random.Generator, known: dict[Hashable, Cell] | None = None) -> Cell:
        """One seeded draw; grid values are drawn like choices, impossible configurations drawn again.

        Args:
            known: what was drawn before, which is not configured again; gains this draw.
        Raises:
            SpecError: 1,000 draws in a row were impossible.
        """
        reason = ""
        for _ in range(1000):
            settings = self._draw(rng)
            drawn = tuple((key, identity(value)) for key, value in settings.items())
            if known is not None and drawn in known:
                return known[drawn]
            try:
                cell = Cell(settings, self.configure(base, settings))
                if known is not None:
                    known[drawn] = cell
                return cell
            except ValidationError as error:
                reason = _reason(error)
        raise SpecError(f"{self.source}: 1,000 draws in a row were impossible configurations; the last: {reason}")

    def draw(self, base: RunConfig, num_trials: int, seed: int) -> list[Cell]:
        """Different cells at random, fewer if the space has fewer; more trials of a seed begin with the same cells."""
        rng = RANDOM_CELLS.generator(seed)
        found: dict[str, Cell] = {}
        known: dict[Hashable, Cell] = {}
        misses = 0
        while len(found) < num_trials and misses < 1000:
            cell = self.sample(base, rng, known)
            misses = misses + 1 if cell.identity in found else 0
            found.setdefault(cell.identity, cell)
        return list(found.values())

    def configure(self, base: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
        """`base` with these settings; pydantic's ValidationError if they do not fit together."""
        changed = {key.split(".")[0] for key in settings}  # the other sections are frozen, and shared by all cells
        tree: dict[str, Any] = {**dict(base), **(base.given(*changed) if changed else {})}
        for key, value in settings.items():
            set_dotted(tree, key, dict(value) if isinstance(value, dict) else value)
        return RunConfig.model_validate(tree)

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """The varied settings that an Optuna trial proposes, conditions applied."""
        settings: dict[str, Any] = {}
        for varied in self.varied:
            if varied.active(settings):
                settings[varied.key] = varied.domain.suggest(trial)
        return settings

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each varied setting."""
        return {varied.key: varied.domain.distribution() for varied in self.varied}

    def settings_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that Optuna's params stand for."""
        settings: dict[str, Any] = {}
        for varied in self.varied:
            if varied.key in params and varied.active(settings):
                settings[varied.key] = varied.domain.from_param(params[varied.key])
        return settings

    def params_of(self, settings: Mapping[str, Any], partial: bool = False) -> dict[str, Any] | None:
        """Optuna's params of settings; None if they are not in the space (or, unless `partial`, one is missing)."""
        taken: dict[str, Any] = {}
        for varied in self.varied:
            if not varied.active(taken):
                continue
            if varied.key not in settings:
                if partial:
                    continue
                return None
            if not varied.domain.contains(settings[varied.key]):
                return None
            taken[varied.key] = settings[varied.key]
        return {varied.key: varied.domain.to_param(taken[varied.key]) for varied in self.varied if varied.key in taken}

    def settings_for(self, base: RunConfig, config: RunConfig) -> dict[str, Any] | None:
        """The varied settings that turn `base` into a trial with `config`'s numbers; None if the space has none."""
        settings: dict[str, Any] = {}
        for varied in self.varied:
            if varied.active(settings):
                value = _value_of(config, varied.key)
                if not varied.domain.contains(value):
                    return None
                settings[varied.key] = value
        try:
            same_numbers = self.configure(base, settings).canonical() == config.canonical()
        except ValidationError:
            return None
        return settings if same_numbers else None

    def _draw(self, rng: np.random.Generator) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for varied in self.varied:
            if varied.active(settings):
                settings[varied.key] = varied.domain.sample(rng)
        return settings

    def _combinations(self) -> Iterator[dict[str, Any]]:
        """Every choice of listed values and range ends, the first setting slowest."""

        def walk(index: int, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if index == len(self.varied):
                yield settings
                return
            varied = self.varied[index]
            if not varied.active(settings):
                yield from walk(index + 1, settings)
                return
            for value in varied.domain.corners:
                yield from walk(index + 1, {**settings, varied.key: value})

        return walk(0, {})

    def _possible(self, base: RunConfig, combinations: list[dict[str, Any]]) -> list[Cell]:
        cells, refused = [], []
        for settings in combinations:
            try:
                cells.append(Cell(settings, self.configure(base, settings)))
            except ValidationError as error:
                refused.append((settings, _reason(error)))
        if refused:
            problems = Problems(self.source)
            for settings, reason in refused[:10]:
                problems.add(", ".join(f"{k}={shown(v)}" for k, v in settings.items()), reason)
            more = f"\n  ... and {len(refused) - 10:,} more" if len(refused) > 10 else ""
            raise SpecError(
                f"{self.source}: {len(refused):,} of {len(combinations):,} configurations are impossible; "
                "narrow the space, or add a `when`:\n  " + "\n  ".join(problems.lines) + more
            )
        return cells


def _value_of(config: RunConfig, key: str) -> Any:
    """A setting's value as JSON holds it; None if its section is unset."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return plain(value)


def _reason(error: ValidationError) -> str:
    lines = validation_lines(error, RunConfig)
    return "; ".join(f"{where}: {message}" if where else message for where, message in lines)
