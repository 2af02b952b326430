"""YAML files and `key=value` words into plain values and a RunConfig; duplicates and guesses are refused."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from gemma_nli.base.errors import ConfigError, Problems, did_you_mean
from gemma_nli.config.run import RunConfig, build_config
from gemma_nli.config.typed_values import FLOAT, FLOAT_SIGNS, INT, RESOLVERS, TypedFloat

MOST_BYTES = 4 * 2**20
"""Of a YAML file: ten seconds of reading, and four times a grid of 100,000 numbers."""


_TEMPLATE = re.compile(r"""(?!\s*(["'[|>]|\{(?!premise\}|hypothesis\}|\{))).*\{(premise|hypothesis)\}""", re.DOTALL)
"""A word that holds a template's place, and begins with no quotes or brackets of YAML but such a place."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: plain YAML would silently keep the last one.

    Merge keys (`<<`) are refused too: what a file says should stand where it applies, and they can nest without bound.
    """

    @classmethod
    def is_plain_value(cls, word: str) -> bool:
        """Whether a word on its own is a number, true, false or null."""
        patterns = (*cls.yaml_implicit_resolvers.get(word[:1], []), *cls.yaml_implicit_resolvers.get(None, []))
        return any(pattern.match(word) for _, pattern in patterns)


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, value_node in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise yaml.constructor.ConstructorError(
                None, None, "merge keys (<<) are not read; write the settings out", key_node.start_mark
            )
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain name", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        seen.add(key)
        if key == "tags" and isinstance(value_node, yaml.MappingNode):
            _keep_as_typed(value_node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


def _keep_as_typed(tags: yaml.MappingNode) -> None:
    """A user's own tags are words: `1.10`, `010`, `no`, `null` stay what they are."""
    for pair in tags.value:
        for node in pair:
            if isinstance(node, yaml.ScalarNode) and node.style is None and node.value:
                node.tag = "tag:yaml.org,2002:str"


def _number(loader: _UniqueKeyLoader, node: yaml.Node) -> Any:
    """A number in plain digits; another word tagged as one (`!!int 010`) stays a word, which a setting refuses."""
    word = str(loader.construct_scalar(node))  # type: ignore[arg-type]  # raises for a list
    if INT.fullmatch(word):
        return int(word) if node.tag.endswith("int") else TypedFloat(word)
    return TypedFloat(word) if FLOAT.fullmatch(word) else word


_UniqueKeyLoader.yaml_implicit_resolvers = {}
for _name, _pattern, _signs in RESOLVERS:
    _UniqueKeyLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern.pattern})$"), [s.strip("\0") for s in _signs]
    )
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT.pattern})$"), list(FLOAT_SIGNS)
)
_UniqueKeyLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("<<$"), ["<"])
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:float", _number)
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _number)
_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def parse_yaml(text: str, source: str) -> Any:
    """YAML text to plain values; raises ConfigError with line and column, never a YAML traceback."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # a SafeLoader  # noqa: S506  # nosec B506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}:{place} not valid YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())[:200]}.") from None


def read_yaml(path: Path) -> Any:
    """A YAML file's value; raises ConfigError if it is missing, not UTF-8 or not YAML."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(
                f"{path}: has {path.stat().st_size:,} bytes; a settings file may have at most {MOST_BYTES:,}. "
                "Give fewer values, or search a range of them (uniform, loguniform, int) by random or optuna."
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [])
        raise ConfigError(f"{path}: no such file{near}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}.") from None
    return parse_yaml(text, str(path))


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`key=value` words to a dotted mapping; values are YAML (`[1, 2]`, `true`, `null`, text).

    A value without brackets or quotes is one word, blanks, `#` and `:` included; a tag's value stays as typed, and a
    template (`{premise} and {hypothesis}`) too.

    Raises:
        ConfigError: a word without `=`, an empty key, a value that is not YAML.
    """
    problems = Problems("command line")
    parsed: dict[str, Any] = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.add(word, "not an override; write key=value, as in training.batch_size=16.")
            continue
        try:
            parsed[key] = text if key.startswith("tags.") else _value(text, key)
        except ConfigError as error:
            problems.add("", str(error))
    problems.raise_if_any(ConfigError)
    return parsed


def _value(text: str, key: str) -> Any:
    if key == "tags":
        return parse_yaml(f"tags: {text}", key)["tags"]
    if _TEMPLATE.match(text):
        return text
    word = text.strip()
    if not word or word[0] in "[{\"'|>&*!%@`" or "\n" in text or word.startswith(("- ", "? ")):
        return parse_yaml(text, key)
    return parse_yaml(word, key) if _UniqueKeyLoader.is_plain_value(word) else word


def load_config(path: Path | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """A RunConfig of a YAML file (or the defaults) and `key=value` overrides.

    Raises:
        ConfigError: with every problem of the file, or of the overrides.
    """
    tree = read_yaml(path) if path is not None else {}
    config = build_config(tree if tree is not None else {}, str(path or "defaults"))
    changes = parse_overrides(overrides)
    return config.with_settings(changes, source="command line") if changes else config
