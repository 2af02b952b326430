"""The kinds of parts that a run chooses by a setting, and which settings count for the trial's key because of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemma_nli.base.part_registry import Part, Registry, find_parts

if TYPE_CHECKING:
    from pydantic import BaseModel

    from gemma_nli.config.run import RunConfig


class WhereRead:
    """Marks a setting that counts only where a chosen part reads it: `pooling_k: Annotated[int, WhereRead()]`."""


class Later:
    """Marks a setting that came after trials were stored: at the value that the code had before, it is no part of a
    trial's key, so that stored trials keep theirs."""

    def __init__(self, was: Any = ...) -> None:
        """
        Args:
            was: what the code did before; ...: the default.
        """
        self.was = was


class SettingsRead:
    """A section of settings as a part sees it: what counts for every trial, and what the part declares to read."""

    def __init__(self, section: str, settings: BaseModel, registry: Registry[Any], part: str) -> None:
        """
        Args:
            section: its dotted name, as `training`.
            part: the reader's name in `registry`.
        """
        self._section, self._settings, self._registry, self._part = section, settings, registry, part

    def __getattr__(self, name: str) -> Any:
        field, setting = type(self._settings).model_fields.get(name), f"{self._section}.{name}"
        if field is not None and _is_marked(field) and not self._registry.reads(self._part, setting):
            raise TypeError(
                f"{self._registry.setting} {self._part} reads {setting} without saying so: "
                f"its decorator needs reads=('{setting}',)"
            )
        return getattr(self._settings, name)


POOLINGS = find_parts("model/pooling", "pooler")
HEADS = find_parts("model/heads", "head")
HEAD_NORMS = find_parts("model/head_norms.py", "head_norm")
LOSSES = find_parts("training/losses", "loss")
SCHEDULES = find_parts("training/rate_schedules.py", "rate_schedule")
EPOCH_SELECTIONS = find_parts("training/epoch_selections.py", "epoch_selection")
THRESHOLD_RULES = find_parts("training/threshold_rules.py", "threshold_rule")
CALIBRATIONS = find_parts("training/calibrations.py", "calibration")
TRAINED = find_parts("model/adapters.py", "trains")


@dataclass(frozen=True)
class Kind:
    """Parts of one kind, and which of them a configuration has chosen."""

    parts: Mapping[str, Part]
    chosen: Callable[[RunConfig], str]


KINDS: dict[str, Kind] = {
    "pooling": Kind(POOLINGS, lambda config: config.model.pooling_strategy),
    "head": Kind(HEADS, lambda config: config.model.head),
    "head norm": Kind(HEAD_NORMS, lambda config: config.model.head_norm),
    "loss": Kind(LOSSES, lambda config: config.training.loss),
    "schedule": Kind(SCHEDULES, lambda config: config.training.schedule),
    "threshold rule": Kind(THRESHOLD_RULES, lambda config: config.training.threshold),
    "calibration": Kind(CALIBRATIONS, lambda config: config.training.calibration),
    "epoch selection": Kind(EPOCH_SELECTIONS, lambda config: config.training.epoch_selection),
    "what is trained": Kind(TRAINED, lambda config: config.model.trained),
}


def dormant_settings(config: RunConfig, fields: Mapping[str, Any]) -> set[str]:
    """Settings that none of the configuration's parts reads; none where a part does not say what it reads.

    Args:
        fields: every setting with its pydantic field.
    """
    chosen = [kind.parts[kind.chosen(config)] for kind in KINDS.values()]
    read: set[str] = set()
    for part in chosen:
        if part.reads is None:
            return set()
        if not part.reads <= fields.keys():
            unknown = ", ".join(sorted(part.reads - fields.keys()))
            raise TypeError(f"{part.file}: '{part.name}' says that it reads {unknown}, and there is no such setting")
        read |= part.reads
    return {name for name, field in fields.items() if _is_marked(field)} - read


def as_they_were(config: RunConfig, fields: Mapping[str, Any]) -> set[str]:
    """Settings marked `Later` that have the value of before.

    Args:
        fields: every setting with its pydantic field.
    """
    return {name for name, was in later_settings(fields).items() if _value_of(config, name) == was}


def later_settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Settings marked `Later`, and what the code did before they were settings."""
    found = {}
    for name, field in fields.items():
        for mark in field.metadata:
            if isinstance(mark, Later):
                found[name] = field.default if mark.was is ... else mark.was
    return found


def _value_of(config: Any, setting: str) -> Any:
    for part in setting.split("."):
        config = getattr(config, part)
    return config


def readers(setting: str, field: Any, *more: Mapping[str, Part]) -> list[str]:
    """The parts, chosen by name, that may read a setting which counts only where one does; else none.

    Args:
        more: parts besides those of a run.
    """
    if not _is_marked(field):
        return []
    every = [POOLINGS, HEADS, HEAD_NORMS, LOSSES, SCHEDULES, EPOCH_SELECTIONS, THRESHOLD_RULES, CALIBRATIONS, *more]
    return [name for parts in every for name, part in parts.items() if part.reads is None or setting in part.reads]


def _is_marked(field: Any) -> bool:
    return any(isinstance(mark, WhereRead) for mark in field.metadata)
