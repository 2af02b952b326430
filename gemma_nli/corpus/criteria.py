"""The criteria (hypotheses): a folder's criteria.json, or the DSM-5 depression criteria that ship with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import did_you_mean
from gemma_nli.corpus.file_problems import FileProblems, has_control_character, looks_like_an_id, named
from gemma_nli.corpus.lined_tables import read_text

FORM = 'expected a list of {"id": "...", "text": "..."}'
FULL = "full"
"""The name of a criterion's text where it has one only, and of the usual one where it has several."""


def dsm5_criteria() -> dict[str, str]:
    """Nine DSM-5 symptoms of a depressive episode and SPECIAL_CASE, in our own words: id to text."""
    return {name: usual_text(texts) for name, texts in dsm5_wordings().items()}


def dsm5_wordings() -> dict[str, dict[str, str]]:
    """The same: id to its texts `full`, `short` and `question`."""
    text = resources.files("gemma_nli.corpus").joinpath("dsm5_criteria.json").read_text(encoding="utf-8")
    return {item["id"]: item["texts"] for item in json.loads(text)}


def usual_text(texts: Mapping[str, str]) -> str:
    """Of a criterion's texts the one that stands for it: `full`, or the first where none is called so."""
    return texts[FULL] if FULL in texts else next(iter(texts.values()))


def several_texts(texts: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Those criteria that have other texts than `full` alone."""
    return {name: dict(each) for name, each in texts.items() if set(each) != {FULL}}


def read_criteria(path: Path, problems: FileProblems) -> dict[str, dict[str, str]]:
    """Criteria of a criteria.json, in its order, each with its texts by name; what is wrong goes to `problems` with its
    line.
    """
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
    criteria: dict[str, dict[str, str]] = {}
    first_lines: dict[str, int] = {}
    taken: set[tuple[str, str]] = set()
    for line, item in zip(_item_lines(text), items, strict=True):
        checked = _check_item(line, item, problems)
        if checked is None:
            continue
        name, texts = checked
        same = next((wording for wording in texts if (wording, texts[wording]) in taken), None)
        if name in first_lines:
            problems.add(line, f"duplicate criterion {named(name)}, first at line {first_lines[name]}.")
        elif same is not None:
            which = "" if same == FULL else f" {named(same)}"
            what = f"criterion {named(name)} has the same text{which} as another"
            problems.add(line, f"{what}; criteria need different texts.")
        first_lines.setdefault(name, line)
        taken.update(criteria.setdefault(name, texts).items())
    return criteria


def _check_item(line: int, item: Any, problems: FileProblems) -> tuple[str, dict[str, str]] | None:
    if not isinstance(item, dict):
        problems.add(line, f"{FORM}, got {type(item).__name__} in it.")
        return None
    if "text" in item and "texts" in item:
        problems.add(line, "a criterion has both 'text' and 'texts'; write the text among 'texts', by the name 'full'.")
        return None
    held = "texts" if "texts" in item else "text"
    for key in ("id", held):
        if key not in item:
            near = did_you_mean(key, [str(k) for k in item])
            problems.add(line, f"a criterion has no '{key}'{near if near.startswith('; did') else '.'}")
            return None
    texts = _texts_of(line, item, problems)
    if texts is None:
        return None
    keys = ["text"] if held == "text" else [f"texts.{wording}" for wording in texts]
    for key, value in [("id", item["id"]), *zip(keys, texts.values(), strict=True)]:
        if not isinstance(value, str):
            problems.add(line, f"a criterion's '{key}' must be text, got {type(value).__name__}.")
        elif not value.strip():
            problems.add(line, f"a criterion's '{key}' is empty.")
        elif any("\ud800" <= c <= "\udfff" or c == "\0" for c in value):
            problems.add(line, f"a criterion's '{key}' contains a character that is not valid Unicode text.")
        elif key == "id" and has_control_character(value.strip()):
            problems.add(line, "a criterion's 'id' contains a control character; it names pairs, metrics and columns.")
        else:
            continue
        return None
    return item["id"].strip(), {wording: text.strip() for wording, text in texts.items()}


def _texts_of(line: int, item: dict[str, Any], problems: FileProblems) -> dict[str, Any] | None:
    """A criterion's texts by name, whatever they are; None if problems were added."""
    if "texts" not in item:
        return {FULL: item["text"]}
    texts = item["texts"]
    if not isinstance(texts, dict) or not texts:
        got = "an empty one" if texts == {} else type(texts).__name__
        problems.add(line, f"a criterion's 'texts' must be a mapping of names to texts, got {got}.")
        return None
    odd = next((name for name in texts if not looks_like_an_id(name)), None)
    if odd is not None:
        problems.add(
            line, f"a name in a criterion's 'texts' is {named(odd)}; use letters, digits and _, as in 'short'."
        )
        return None
    return texts


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
