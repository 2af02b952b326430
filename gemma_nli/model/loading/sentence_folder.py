"""Folders of sentence-transformers: where their transformer lies, and what makes their vectors beside it.

With `model.pooling_strategy: native` the folder's own modules are applied (`sentence_modules.py`). With another pooling
the transformer's token states are used alone, and what its own `encode` does beside is named, so that nobody takes the
one for the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import EncoderError
from gemma_nli.model.loading.folder_files import read_json

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_POOLINGS = {"cls": "cls", "mean": "mean", "max": "max", "lasttoken": "last"}
"""Their poolings that exist here too; weighted and square-root means do not."""
LEGACY = {  # in the order in which their vectors stand side by side
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


@dataclass(frozen=True)
class Module:
    """An entry of modules.json: its class, and the folder beside it that holds its files; "" for the folder itself."""

    type: str
    path: str

    @property
    def kind(self) -> str:
        """The class's own name."""
        return self.type.rsplit(".", 1)[-1]

    @property
    def is_theirs(self) -> bool:
        """Whether it is a class of the library, no code of the folder's."""
        return self.type.startswith("sentence_transformers.")


def transformer_folder(folder: Path) -> Path:
    """Where the transformer's files are: in older sentence-transformers folders in a subfolder, else in `folder`.

    Raises:
        EncoderError: modules.json cannot be read, or names a place outside.
    """
    if (folder / "config.json").is_file():
        return folder
    modules = modules_of(folder)
    for module in modules:
        if module.kind == "Transformer" and module.path:
            return folder / module.path
    if modules and modules[0].kind != "Transformer":
        raise EncoderError(
            f"model.name: {folder}: begins with {modules[0].type or modules[0].path}, which gives no states of a "
            "transformer; take a model that begins with Transformer."
        )
    return folder


def sentence_root(transformer: Path) -> Path | None:
    """The folder whose modules.json names this transformer; None for a plain folder of transformers."""
    for root in (transformer, transformer.parent):
        if any(module.kind == "Transformer" and root / module.path == transformer for module in modules_of(root)):
            return root
    return None


def left_aside(transformer: Path, pooling: str) -> list[str]:
    """What the folder's own `encode` does that `model.pooling_strategy` does not: a sentence for the user, or none.

    Args:
        transformer: as `transformer_folder` gives it.
    """
    folder = sentence_root(transformer)
    if folder is None or pooling == "native":
        return []
    modules = modules_of(folder)
    usual = ("Transformer", "Pooling", "Normalize", "Dropout")
    parts = [f"its module {module.path or module.kind}" for module in modules if module.kind not in usual]
    settings = optional_mapping(folder / "config_sentence_transformers.json")
    prompts = settings.get("prompts")
    named = [str(name) for name, text in prompts.items() if text] if isinstance(prompts, dict) else []
    if named:
        parts.append(f"its prompts ({', '.join(named)})")
    if transformer_settings(transformer)[1].get("do_lower_case") is True:
        parts.append("its lower-casing (do_lower_case)")
    remarks = []
    if parts:
        remarks.append(
            f"a sentence-transformers folder, used without {', '.join(parts)}: its vectors are token states pooled "
            f"by {pooling}, not those of its own encode(), which model.pooling_strategy=native gives."
        )
    own = [
        mode
        for module in modules
        if module.kind == "Pooling"
        for mode in pooling_modes(optional_mapping(folder / module.path / "config.json"))
    ]
    if own and [_POOLINGS.get(mode) for mode in own] != [pooling]:
        known = _POOLINGS.get(own[0]) if len(own) == 1 else None
        remarks.append(
            f"its own pooling is {' and '.join(own)}, not {pooling}; compare "
            f"model.pooling_strategy={known or 'native'}."
        )
    return remarks


def pooling_modes(config: dict[str, Any]) -> list[str]:
    """How a Pooling module's config.json asks for its states to be pooled, in the order of their vectors."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [str(each) for each in mode] if isinstance(mode, list) else [str(mode)]
    return [ours for name, ours in LEGACY.items() if config.get(name)] or ["mean"]


def transformer_settings(transformer: Path) -> tuple[str, dict[str, Any]]:
    """The file of the Transformer module's own settings, and what it says: nothing where there is none."""
    for kind in _KINDS:
        name = f"sentence_{kind}_config.json"
        found = optional_mapping(transformer / name)
        if found:
            return name, found
    return "", {}


def modules_of(root: Path) -> list[Module]:
    """What modules.json lists; nothing where there is no such file.

    Raises:
        EncoderError: it cannot be read, or names a place outside.
    """
    return list(_read_modules(root / "modules.json"))


def _read_modules(file: Path) -> Iterator[Module]:
    try:
        content = read_json(file)
    except FileNotFoundError:
        return
    for module in content if isinstance(content, list) else []:
        kind, path = (str(module.get(key, "")) for key in ("type", "path")) if isinstance(module, dict) else ("", "")
        if path and not _PLAIN_NAME.fullmatch(path):
            raise EncoderError(f"model.name: {file}: names {path[:80]!a}, which is not a folder beside it.")
        yield Module(kind, path)


def optional_mapping(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}
