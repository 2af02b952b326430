"""The criteria (hypotheses): a folder's criteria.json, or the DSM-5 depression criteria that ship with the package."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import did_you_mean
from gemma_nli.corpus.file_problems import FileProblems, has_control_character, named
from gemma_nli.corpus.lined_tables import read_text

FORM = 'expected a list of {"id": "...", "text": "..."}'


def dsm5_criteria() -> dict[str, str]:
    """Nine DSM-5 symptoms of a depressive episode and SPECIAL_CASE, in our own words: id to text."""
    text = resources.files("gemma_nli.corpus").joinpath("dsm5_criteria.json").read_text(encoding="utf-8")
    return {item["id"]: item["text"] for item in json.loads(text)}


def read_criteria(path: Path, problems: FileProblems) -> dict[str, str]:
    """Criteria of a criteria.json, in its order; what is wrong goes to `problems` with its line."""
    text = read_text(path, problems)
    if text is None:
        return {}
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        problems.add(error.lineno, f"not valid JSON at column {error.colno}: {error.msg}; {FORM}.")
        return {}
    except (RecursionError, ValueError):
        problems.add(1, f"not valid JSON: nested too deeply or a number too long; {FORM}.")
        return {}
    if not isinstance(items, list) or not items:
        problems.add(1, f"{FORM}, got {'an empty list' if items == [] else type(items).__name__}.")
        return {}
    criteria: dict[str, str] = {}
    first_lines: dict[str, int] = {}
    texts: set[str] = set()
    for line, item in zip(_item_lines(text), items, strict=True):
        name, hypothesis = _check_item(line, item, problems)
        if name is None or hypothesis is None:
            continue
        if name in first_lines:
            problems.add(line, f"duplicate criterion {named(name)}, first at line {first_lines[name]}.")
        elif hypothesis in texts:
            problems.add(line, f"criterion {named(name)} has the same text as another; criteria need different texts.")
        first_lines.setdefault(name, line)
        texts.add(criteria.setdefault(name, hypothesis))
    return criteria


def _check_item(line: int, item: Any, problems: FileProblems) -> tuple[str | None, str | None]:
    if not isinstance(item, dict):
        problems.add(line, f"{FORM}, got {type(item).__name__} in it.")
        return None, None
    for key in ("id", "text"):
        value = item.get(key)
        if key not in item:
            near = did_you_mean(key, [str(k) for k in item])
            problems.add(line, f"a criterion has no '{key}'{near if near.startswith('; did') else '.'}")
        elif not isinstance(value, str):
            problems.add(line, f"a criterion's '{key}' must be text, got {type(value).__name__}.")
        elif not value.strip():
            problems.add(line, f"a criterion's '{key}' is empty.")
        elif any("\ud800" <= c <= "\udfff" or c == "\0" for c in value):
            problems.add(line, f"a criterion's '{key}' contains a character that is not valid Unicode text.")
        elif key == "id" and has_control_character(value.strip()):
            problems.add(line, "a criterion's 'id' contains a control character; it names pairs, metrics and columns.")
        else:
            continue
        return None, None
    return item["id"].strip(), item["text"].strip()


def _item_lines(text: str) -> list[int]:
    """The line at which each item of a (valid) top-level JSON list starts."""
    decoder, place = json.JSONDecoder(), text.index("[") + 1
    lines: list[int] = []
    line, counted = 1, 0
    while True:
        while text[place] in " \t\r\n,":
            place += 1
        if text[place] == "]":
            return lines
        line, counted = line + text.count("\n", counted, place), place
        lines.append(line)
        place = decoder.raw_decode(text, place)[1]
