"""What a sentence-transformers folder says besides its transformer: where that is, and what else makes its vectors.

    modules.json                         the modules in order: Transformer, Pooling, Dense, Normalize
    sentence_bert_config.json            do_lower_case
    config_sentence_transformers.json    prompts that precede a text

Token states are the transformer's and are pooled as `model.pooling_strategy` says; a head learns the rest. What else
the folder's own `encode` would do is reported, so that nobody confuses the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import EncoderError
from gemma_nli.model.loading.folder_files import read_json

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_POOLINGS = {
    "cls": "cls",
    "cls_token": "cls",
    "mean": "mean",
    "mean_tokens": "mean",
    "max": "max",
    "max_tokens": "max",
    "lasttoken": "last",
}
"""Their poolings that exist here too; weighted and square-root means do not."""


def transformer_folder(folder: Path) -> Path:
    """Where the transformer's files are: in older sentence-transformers folders in a subfolder, else in `folder`.

    Raises:
        EncoderError: modules.json cannot be read, or names a place outside.
    """
    if (folder / "config.json").is_file():
        return folder
    for kind, path in _modules(folder):
        if kind == "Transformer" and path:
            return folder / path
    return folder


def left_aside(transformer: Path, pooling: str) -> list[str]:
    """What the folder's own `encode` does that `model.pooling_strategy` does not: a sentence for the user, or none.

    Args:
        transformer: as `transformer_folder` gives it.
    """
    folder = transformer.parent if not (transformer / "modules.json").is_file() else transformer
    modules = _modules(folder)
    if not any(kind == "Transformer" and folder / path == transformer for kind, path in modules):
        return []
    parts = [
        f"its module {path or kind}" for kind, path in modules if kind not in ("Transformer", "Pooling", "Normalize")
    ]
    settings = _optional(folder / "config_sentence_transformers.json")
    prompts = settings.get("prompts")
    named = [str(name) for name, text in prompts.items() if text] if isinstance(prompts, dict) else []
    if named:
        parts.append(f"its prompts ({', '.join(named)})")
    if _optional(transformer / "sentence_bert_config.json").get("do_lower_case") is True:
        parts.append("its lower-casing (do_lower_case)")
    remarks = []
    if parts:
        remarks.append(
            f"a sentence-transformers folder, used without {', '.join(parts)}: its vectors are token states pooled "
            "by model.pooling_strategy, not those of its own encode()."
        )
    own = [
        mode
        for kind, path in modules
        if kind == "Pooling"
        for mode in _pooling_modes(_optional(folder / path / "config.json"))
    ]
    if own and [_POOLINGS.get(mode) for mode in own] != [pooling]:
        known = _POOLINGS.get(own[0]) if len(own) == 1 else None
        advice = f"compare model.pooling_strategy={known}" if known else "which model.pooling_strategy does not have"
        remarks.append(f"its own pooling is {' and '.join(own)}, not {pooling}; {advice}.")
    return remarks


def _pooling_modes(config: dict[str, Any]) -> list[str]:
    mode = config.get("pooling_mode")
    if mode is not None:
        return [str(each) for each in mode] if isinstance(mode, list) else [str(mode)]
    return [
        name.removeprefix("pooling_mode_")
        for name, on in config.items()
        if name.startswith("pooling_mode_") and on is True
    ]


def _modules(folder: Path) -> list[tuple[str, str]]:
    """(kind, subfolder) of each module; the kind is the class's name."""
    return list(_read_modules(folder / "modules.json"))


def _read_modules(file: Path) -> Iterator[tuple[str, str]]:
    try:
        content = read_json(file)
    except FileNotFoundError:
        return
    for module in content if isinstance(content, list) else []:
        kind, path = (str(module.get(key, "")) for key in ("type", "path")) if isinstance(module, dict) else ("", "")
        if path and not _PLAIN_NAME.fullmatch(path):
            raise EncoderError(f"model.name: {file}: names {path[:80]!a}, which is not a folder beside it.")
        yield kind.rsplit(".", 1)[-1], path


def _optional(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}
