"""Words as typed: which plain YAML words are numbers, and what a word means where text or a number is wanted.

YAML 1.1, which PyYAML reads, takes `010` for 8, `12:30` for 750, `1_000` for 1000, `no` for false and 2024-01-01 for a
date. Here a number is written in plain digits, as in YAML 1.2 and JSON, and every other word is text.
"""

from __future__ import annotations

import functools
import re
import typing
from typing import Any

import yaml

INT = re.compile(r"-?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")
_PREFIXED = re.compile(r"[-+]?0(o[0-7]{1,40}|x[0-9a-f]{1,40}|b[01]{1,60})", re.IGNORECASE)
_LIKE_A_NUMBER = re.compile(r"[-+]?\.?[0-9].*", re.DOTALL)
RESOLVERS = (("null", _NULL, "~nN\0"), ("bool", _BOOL, "tTfF"), ("int", INT, "-0123456789"))
FLOAT_SIGNS = "-+.0123456789"


class TypedFloat(float):
    """A number that remembers how it was typed: `1.10` may also be a version, where text is wanted."""

    typed: str

    def __new__(cls, text: str) -> TypedFloat:
        number = super().__new__(cls, text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        number.typed = text
        return number

    def __reduce__(self) -> tuple[Any, ...]:
        return (TypedFloat, (self.typed,))


yaml.SafeDumper.add_representer(TypedFloat, lambda dumper, value: dumper.represent_float(float(value)))


def as_text(value: Any) -> Any:
    """A number where text is wanted, as it was typed; anything else as it is."""
    if isinstance(value, TypedFloat):
        return value.typed
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@functools.cache
def kinds(annotation: Any) -> frozenset[Any]:
    """The plain types among those of a setting: str, int, float, bool, and `tuple` for a tuple."""
    if typing.get_origin(annotation) is typing.Annotated:
        return kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is tuple:
        return frozenset({(tuple, kind) for kind in kinds(typing.get_args(annotation)[0])})
    options = typing.get_args(annotation) if typing.get_origin(annotation) is not typing.Literal else ()
    return frozenset().union(*(kinds(option) for option in options)) if options else frozenset({annotation})


def as_wanted(value: Any, annotation: Any) -> Any:
    """A value as a setting of this type takes it.

    Raises:
        ValueError: a boolean for a number, a number for a boolean, a number that is not in plain digits.
    """
    wanted = kinds(annotation)
    if wanted & {int, float}:
        if isinstance(value, bool):
            raise ValueError(f"must be a number, got {value}")
        if isinstance(value, str) and _LIKE_A_NUMBER.fullmatch(value) and not _is_plain(value):
            raise ValueError(f"must be a number in plain digits, got {value[:40]!r}{_meant(value)}")
        return float(value) if isinstance(value, TypedFloat) else value
    if bool in wanted and isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {as_text(value)}")
    if str in wanted:
        return as_text(value)
    if (tuple, str) in wanted and isinstance(value, (list, tuple)):
        return [as_text(item) for item in value]
    return value


def _is_plain(text: str) -> bool:
    return INT.fullmatch(text) is not None or FLOAT.fullmatch(text) is not None


def _meant(text: str) -> str:
    """What such a word may have meant: as YAML 1.1 reads it, and in decimal."""
    readings = []
    try:
        tens = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", text.replace("_", ""))
        if _is_plain(tens):
            readings.append(tens)
        old = yaml.safe_load(text) if len(text) < 100 else None
        if _PREFIXED.fullmatch(text):  # 0o17 is YAML 1.2's and Python's
            old = int(text, 0)
        if isinstance(old, (int, float)) and str(old) not in readings:
            readings.append(str(old))
    except (yaml.YAMLError, ValueError):
        pass  # YAML 1.1 could not read it either
    return f"; write {' or '.join(readings)}" if readings else ""
