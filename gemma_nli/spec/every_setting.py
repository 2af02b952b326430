"""Every setting of a run and every key of a sweep file, read from the classes that check them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from gemma_nli.base.errors import ConfigError, did_you_mean
from gemma_nli.config import RunConfig, setting_names
from gemma_nli.config.parts import readers
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.spec.sweep_sections import SCHEDULERS

_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
_SIGNS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}


_PREFACE = """\
# Every setting

This page is generated from the classes that check the settings: `gemma-nli settings --markdown > docs/settings.md`.
`gemma-nli settings NAME` shows one, or a section, in the terminal. A setting of a run is an override of
`gemma-nli train` and `gemma-nli sweep` (`training.batch_size=16`) and a key of a config file or of a sweep file's
`base:`. The keys of a sweep file stand below them.

A number is written in plain digits (`16`, `0.1`, `1e-4`); what YAML 1.1 would turn into a number (`010`, `12:30`,
`1_000`, `0x1F`, a date) is refused where a number is wanted, and is text where text is wanted. Tags and names keep
their text as typed: `1.10`, `010`, `no`.
"""


@dataclass(frozen=True)
class Setting:
    """One setting, described. `of` is `run` (an override of train and sweep, a key of `base:`) or `sweep`."""

    name: str
    of: Literal["run", "sweep"]
    kind: str
    default: str
    bounds: str
    meaning: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def every_setting() -> list[Setting]:
    """All settings in the order of their classes: a run's sections, then a sweep file's keys."""
    run = [_setting(name, "run", info) for name, info in setting_names(RunConfig).items()]
    sweep = [
        _setting(name, "sweep", info) for name, info in setting_names(SweepSpec).items() if not name.startswith("base")
    ]
    return run + sweep


def find_settings(name: str | None = None) -> list[Setting]:
    """The settings of that name (full, or its last parts: `lora.rank`) or of that section; all without a name.

    Raises:
        ConfigError: neither a setting nor a section, with the nearest names.
    """
    settings = every_setting()
    if name is None:
        return settings
    found = [setting for setting in settings if f".{name}." in f".{setting.name}."]
    if not found:
        sections = {setting.name.split(".")[0] for setting in settings}
        raise ConfigError(f"no setting is called '{name}'{did_you_mean(name, {s.name for s in settings} | sections)}")
    return found


def settings_page() -> str:
    """`docs/settings.md`: a table per section."""
    sections: dict[str, list[str]] = {}
    for setting in every_setting():
        section = setting.name.split(".")[0] if "." in setting.name else "a sweep file's own keys"
        cells = (f"`{setting.name}`", setting.kind, setting.default, setting.bounds, setting.meaning)
        sections.setdefault(section, []).append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = ["| setting | type | default | bounds | meaning |", "|---|---|---|---|---|"]
    tables = ["\n".join([f"\n## {section}\n", *head, *rows]) for section, rows in sections.items()]
    return _PREFACE + "\n".join(tables) + "\n"


def _setting(name: str, of: Literal["run", "sweep"], info: FieldInfo) -> Setting:
    kind = " or ".join(dict.fromkeys(_kinds(info.annotation)))
    parts = readers(name, info, SCHEDULERS)
    meaning = "; read by ".join(filter(None, [info.description, ", ".join(parts)]))
    return Setting(name, of, kind, _default(info), ", ".join(_bounds(info.metadata)), meaning)


def _kinds(annotation: Any) -> Iterator[str]:
    """A type in words; a closed list with all its names."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(annotation):
            yield from _kinds(option)
    elif origin is Literal:
        yield from (f"`{value}`" for value in typing.get_args(annotation))
    elif origin is typing.Annotated:
        yield from _kinds(typing.get_args(annotation)[0])
    elif origin in (tuple, list):
        yield "list"
    elif origin is dict:
        yield "mapping"
    else:
        yield _WORDS.get(annotation, "mapping")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        return "see the meaning"
    value = info.default
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if value in ((), {}, ""):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for rule in metadata:
        for kind, (sign, attribute) in _SIGNS.items():
            if isinstance(rule, kind):
                yield f"{sign} {getattr(rule, attribute):g}"
        if isinstance(rule, MinLen) and rule.min_length == 1:
            yield "not empty"
        elif isinstance(rule, MaxLen):
            yield f"at most {rule.max_length} long"
        elif getattr(rule, "pattern", None):
            yield f"of the form `{rule.pattern}`"
