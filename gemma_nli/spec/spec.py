"""A sweep file read, checked and frozen: the question, the base, the space, and how to search it.

Relative paths in `base` (data.data_dir, a local model.name) and a folder in `storage` are relative to the working
directory, as for a single run; the path in `space` is looked up beside the sweep file first (see `find_space`).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer, field_validator

from gemma_nli.base.errors import SpecError
from gemma_nli.base.masking import mask_tree
from gemma_nli.base.metrics import MEAN_F1
from gemma_nli.config import RunConfig, Settings, expanded, home, parse_overrides, read_yaml
from gemma_nli.config.semantics import SEMANTICS_VERSION, completed, version_of
from gemma_nli.spec.space import Cell, SearchSpace
from gemma_nli.spec.sweep_sections import (
    FinalizeSettings,
    Objective,
    ReportSettings,
    Resources,
    SchedulerSettings,
    SearchSettings,
    Slug,
    Tags,
    known_metric,
    stored_confirm,
)
from gemma_nli.storage import Prefix, address_forms, parse_address, place_of


class SweepSpec(Settings):
    """A whole sweep. Build it with `from_mapping` or `load_sweep`: both report all problems at once."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: Slug = Field(description="names the sweep's folder and run")
    question: str = Field(
        default="", max_length=5000, description="the question the sweep should answer, in one sentence"
    )
    base: RunConfig = Field(default=RunConfig(), description="every setting that the space does not vary")
    space: SearchSpace = Field(description="a file of search_spaces/, or the settings to vary")
    compare: tuple[str, ...] = Field(
        default=(), description="settings of the space that are compared; the others are tuned for each of their values"
    )
    search: SearchSettings = SearchSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    resources: Resources = Resources()
    metric: str = Field(default=MEAN_F1, description="what decides the best trial")
    mode: Literal["max", "min"] = Field(
        default="max", description="whether higher or lower values of the metric are better"
    )
    finalize: FinalizeSettings = FinalizeSettings()
    report: ReportSettings = ReportSettings()
    tags: Tags = Field(default={}, description="your own tags of every run; `note` is its description in MLflow")
    storage: str = Field(
        default_factory=lambda: str(home() / "storage"),
        min_length=1,
        description=f"folder, or {' or '.join(address_forms())}, for journals and features",
    )

    _cells: list[Cell] | None = PrivateAttr(default=None)
    _known = field_validator("metric")(known_metric)

    @field_validator("space", mode="before")
    @classmethod
    def _space_of_mapping(cls, value: Any) -> Any:
        return value if isinstance(value, SearchSpace) else SearchSpace.from_mapping(value)

    @field_serializer("space")
    def _space_tree(self, space: SearchSpace) -> dict[str, Any]:
        return space.tree()

    @field_validator("storage")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if "://" in value:
            return str(parse_address(value))
        try:
            return os.path.abspath(expanded(value))
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"not a folder's name: {error}") from None

    @classmethod
    def from_mapping(cls, tree: Any, source: str = "sweep", overrides: Iterable[str] = ()) -> SweepSpec:
        """A checked spec of a nested mapping, as a sweep file holds it.

        Args:
            source: what errors call the mapping; where it is a file's path, `space` is looked up beside it.
            overrides: `key=value` words, as of `load_sweep`.
        Raises:
            SpecError: with every problem; ConfigError where an override is not of the form key=value.
        """
        from gemma_nli.spec.parsing import parse_sweep

        return parse_sweep(tree, source, parse_overrides(overrides))

    @property
    def kept_in_bucket(self) -> bool:
        """Whether `storage` is a bucket prefix rather than a folder."""
        return isinstance(place_of(self.storage), Prefix)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the search optimizes: the sweep's metric unless `search.objectives` names several."""
        return self.search.objectives or (Objective(metric=self.metric, mode=self.mode),)

    def variants(self) -> list[tuple[dict[str, Any], SweepSpec]]:
        """Each combination of compared values with the sweep that tunes the rest for it; one for everything if nothing
        is compared.

        Every compared value has the same search: sampler, seed and number of trials.
        """
        if not self.compare:
            return [({}, self)]
        domains = [self.space.domain(key) for key in self.compare]
        found = []
        for values in itertools.product(*(domain.corners for domain in domains if domain is not None)):
            fixed = dict(zip(self.compare, values, strict=True))
            base = self.space.configure(self.base, fixed)
            variant = self.model_copy(update={"base": base, "space": self.space.given(fixed), "compare": ()})
            variant._cells = None
            found.append((fixed, variant))
        return found

    @property
    def total_trials(self) -> int:
        """How many trials the whole sweep has, as far as known before it runs: for optuna, the maximum."""
        if self.search.algorithm == "optuna":
            return self.search.num_trials * len(self.variants())
        return len(self.cells())

    def cells(self) -> list[Cell]:
        """The cells of a grid, or the draws of a random search (more draws begin with the same ones).

        Raises:
            SpecError: the grid is too large or has impossible cells; Optuna's trials are not known beforehand.
        """
        if self.search.algorithm == "optuna":
            raise SpecError(f"{self.name}: search.algorithm optuna has no cells before its trials run.")
        if self._cells is None:
            if self.search.algorithm == "grid":
                self._cells = self.space.cells(self.base)
            else:
                self._cells = [
                    Cell({**fixed, **cell.settings}, cell.config)
                    for fixed, variant in self.variants()
                    for cell in variant.space.draw(variant.base, self.search.num_trials, self.search.seed)
                ]
        return self._cells

    def to_yaml(self, masked: bool = True) -> str:
        """The whole spec, defaults and the space included; a URL's user and password are masked by default."""
        tree = {**self.model_dump(mode="json"), "base": self.base.given()}
        if self.search.algorithm == "grid":
            del tree["search"]["num_trials"]
        space, compared = tree.pop("space"), tree.pop("compare")
        if compared:
            tree |= {"compare": {key: space[key] for key in compared}}
            tree |= {"tune": {key: domain for key, domain in space.items() if key not in compared}}
        else:
            tree["space"] = space
        return yaml.safe_dump(mask_tree(tree) if masked else tree, sort_keys=False, allow_unicode=True, width=100)


def load_sweep(path: str | Path, overrides: Iterable[str] = ()) -> SweepSpec:
    """A checked SweepSpec of a sweep file and `key=value` overrides.

    An override names a setting of the base (`training.batch_size=16`) or a key of the sweep file
    (`search.num_trials=50`, `storage=/big/disk`). Base settings and sweep keys never share a first word, so no
    override is ambiguous.

    Raises:
        SpecError: with every problem of the file and the overrides, before anything is started or written.
        ConfigError: the file cannot be read as YAML, or an override is not of the form key=value.
    """
    source = os.fspath(path)
    return SweepSpec.from_mapping(read_yaml(Path(source)), source, overrides)


def load_stored_sweep(path: str | Path, overrides: Iterable[str] = (), to_run: bool = False) -> SweepSpec:
    """As `load_sweep`, of a file that `to_yaml` wrote, by this version of the package or an earlier one.

    Args:
        to_run: the sweep is to go on, so its trials' numbers must mean what they would mean now.
    Raises:
        SpecError: `to_run`, and it was run by other semantics.
    """
    tree, source = read_yaml(Path(path)), os.fspath(path)
    if isinstance(tree, dict) and "base" in tree:
        ran_by = version_of(tree["base"])
        if to_run and ran_by != SEMANTICS_VERSION:
            raise SpecError(
                f"{source}: this sweep was run by version {ran_by} of the training semantics, and now it is version "
                f"{SEMANTICS_VERSION}: its trials would be another measurement. `gemma-nli report` still reads it; to "
                "measure anew, run its sweep file."
            )
        tree["base"] = completed(tree["base"])
        if isinstance(finalize := tree.get("finalize"), dict) and finalize.get("confirm"):
            tree["finalize"] = {**finalize, "confirm": stored_confirm(finalize["confirm"])}
    return SweepSpec.from_mapping(tree, source, overrides)
