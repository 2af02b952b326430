"""What a model's folder says about its own files, read as untrusted: bounded, no name leading out of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import EncoderError

MOST_BYTES = 64 * 2**20
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.safetensors")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        EncoderError: larger than any such file, not JSON, or nested too deeply.
        FileNotFoundError: there is none.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise EncoderError(f"{path}: has {path.stat().st_size:,} bytes, the maximum is {MOST_BYTES:,}.")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except RecursionError:
        raise EncoderError(f"{path}: cannot be read: its JSON is nested too deeply.") from None
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}.") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a JSON file holds.

    Raises:
        EncoderError: as for `read_json`, or it is not a mapping.
        FileNotFoundError: there is none.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise EncoderError(f"{path}: cannot be read: expected a mapping, got {type(content).__name__}.")
    return content


def shard_names(index: Path) -> list[str]:
    """The files that an index of weights names: plain safetensors files of its folder.

    transformers reads a file with another extension by `torch.load`, and joins whatever path is given there.

    Raises:
        EncoderError: no such index, or one that names anything else.
    """
    entries = read_mapping(index).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise EncoderError(f"model.name: {index}: not an index of safetensors shards (it has no weight_map).")
    names = sorted({str(name) for name in entries.values()})
    for name in names:
        if not _SHARD.fullmatch(name):
            raise EncoderError(
                f"model.name: {index}: names {name[:80]!a}, which is not a safetensors file in its folder; such "
                "weights are not read."
            )
        if not is_within(index.parent / name, index.parent):
            raise EncoderError(
                f"model.name: {index.parent / name}: is a link to outside its folder; copy the file there."
            )
    return names


def is_within(path: Path, folder: Path) -> bool:
    """Whether a file lies where its folder does. The hub's cache keeps a snapshot as links into the blobs beside it."""
    snapshot = next((place for place in (folder, folder.parent) if place.parent.name == "snapshots"), None)
    root = folder if snapshot is None else snapshot.parent.parent
    return path.resolve().is_relative_to(root.resolve())


def check_weights_choice(name: str, config: dict[str, Any], where: Path) -> None:
    """Refuses a config.json that points transformers to weights other than those we check: it may name a pickle."""
    if config.get("transformers_weights") is not None:
        raise EncoderError(
            f"model.name: {name}: {where} names its own weights file (transformers_weights), which is not supported; "
            "save the model as model.safetensors."
        )


def read_header(path: Path) -> dict[str, Any]:
    """`dtype` and `shape` of each tensor of a safetensors file.

    Raises:
        EncoderError: the file is truncated or not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return {name: entry for name, entry in header.items() if name != "__metadata__" and entry["dtype"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EncoderError(f"model.name: {path}: damaged weights: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{text[:300].rstrip('.')}." if text else f"{type(error).__name__}."
