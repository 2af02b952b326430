"""The licence that an encoder's folder states: in its model card, its configuration, or a file of its own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_FILES = re.compile(r"(licen[cs]e|copying|.*_terms|terms).*", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)
OTHER = "other"


@dataclass(frozen=True)
class StatedLicence:
    """`id`: as the hub has it (`apache-2.0`, `gemma`, `other`); `name`, `link`: of one that has no id there."""

    id: str
    name: str = ""
    link: str = ""
    where: str = ""


def stated_licence(folder: Path) -> StatedLicence | None:
    """What the folder (or the one above, where the encoder is a part of a sentence-transformers folder) states."""
    places = [folder] + ([folder.parent] if (folder.parent / "modules.json").is_file() else [])
    for place in places:
        found = _of_card(place / "README.md") or _of_config(place / "config.json") or _of_file(place)
        if found is not None:
            return found
    return None


def _of_card(path: Path) -> StatedLicence | None:
    try:
        front = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
        facts: Any = yaml.safe_load(front[1]) if front else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None  # there is no card that says anything
    if not isinstance(facts, dict) or not isinstance(facts.get("license"), str):
        return None
    name, link = (str(facts.get(key) or "") for key in ("license_name", "license_link"))
    return StatedLicence(facts["license"], name, link, path.name)


def _of_config(path: Path) -> StatedLicence | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    stated = facts.get("license") if isinstance(facts, dict) else None
    return StatedLicence(stated, where=path.name) if isinstance(stated, str) and stated else None


def _of_file(folder: Path) -> StatedLicence | None:
    files = sorted(path.name for path in folder.iterdir() if path.is_file() and _FILES.fullmatch(path.name))
    return StatedLicence(OTHER, name=files[0], link=files[0], where=files[0]) if files else None
