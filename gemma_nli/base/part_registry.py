"""Parts that a setting names (poolings, heads, losses, stopping rules ...): registered where they are written.

A part is a class or function under its kind's decorator, which says its name and the settings it reads:
`@pooler("last_k", reads=("model.pooling_k",))`. The config offers the names and keeps a trial's key free of settings
that nobody reads; but it stands above the rooms of the parts and must not wait for torch. So `find_parts` reads the
decorators in the files' source, and `Registry` is filled when the files are imported.
"""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gemma_nli.base.errors import ConfigError, did_you_mean

_PACKAGE = Path(__file__).parents[1]
T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Part:
    """What a part's decorator says. `reads` names settings by their dotted names; None: it does not say."""

    name: str
    reads: frozenset[str] | None
    file: Path


@functools.cache
def find_parts(place: str, decorator: str) -> Mapping[str, Part]:
    """Every part under `@decorator(...)` in a folder (or one file) of this package, by name, in order of names.

    Args:
        place: as `model/pooling`, or `training/fold.py`.
    Raises:
        TypeError: a name that two parts have, or a decorator whose words are not literals.
    """
    root = _PACKAGE / place
    found: dict[str, Part] = {}
    for file in sorted(root.glob("*.py")) if root.is_dir() else [root]:
        for part in _parts_of(file, decorator):
            if part.name in found:
                raise TypeError(f"{file}: the name '{part.name}' is taken by {found[part.name].file}")
            found[part.name] = part
    return dict(sorted(found.items()))


def _parts_of(file: Path, decorator: str) -> Iterator[Part]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        for call in node.decorator_list if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                yield _read(call, file)


def _read(call: ast.Call, file: Path) -> Part:
    words = dict(zip(("name", "reads"), call.args, strict=False)) | {str(k.arg): k.value for k in call.keywords}
    try:
        name, reads = (ast.literal_eval(words[word]) if word in words else None for word in ("name", "reads"))
    except ValueError:
        name = reads = None
    if not isinstance(name, str) or not (reads is None or isinstance(reads, tuple)):
        raise TypeError(
            f"{file}, line {call.lineno}: a part's name must be a text and `reads` a tuple of texts, both written "
            "here in full: the config reads them without importing the file"
        )
    return Part(name, None if reads is None else frozenset(reads), file)


def import_parts(package: str) -> None:
    """Import each module of a package's folder, so that its parts register themselves."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


class Registry(dict[str, T]):
    """Parts of one kind by name; `part` is their decorator. An unknown name raises ConfigError with the nearest."""

    def __init__(self, setting: str) -> None:
        """
        Args:
            setting: the one that names such a part, as `model.head`.
        """
        super().__init__()
        self.setting = setting
        self._reads: dict[str, frozenset[str] | None] = {}

    def part(self, name: str, reads: tuple[str, ...] | None = None) -> Callable[[S], S]:
        """Register what stands below under `name`.

        Args:
            reads: the settings it reads of those that count only where a part reads them (`WhereRead` in config/);
                left out, every setting counts, so that no two configurations are taken for one trial.
        """

        def register(part: S) -> S:
            if name in self:
                raise TypeError(f"{self.setting}: two parts are called '{name}'")
            self[name] = part  # type: ignore[assignment]
            self._reads[name] = None if reads is None else frozenset(reads)
            return part

        return register

    def declared(self, name: str) -> frozenset[str] | None:
        """The settings that the part says it reads; None where it does not say."""
        return self._reads[name]

    def reads(self, name: str, setting: str) -> bool:
        """Whether the part may read that setting: it says so, or says nothing."""
        declared = self.declared(name)
        return declared is None or setting in declared

    def __missing__(self, name: str) -> T:
        raise ConfigError(f"{self.setting}: unknown name '{name}'{did_you_mean(name, self)}")
