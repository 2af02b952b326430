"""One file of features: safetensors named by the checksum of its bytes, written completely or not at all, read in
place.

The header is written and parsed here (it is 8 bytes of length and JSON) because the safetensors package copies what it
reads: a memory map keeps one copy in the page cache for all processes, and bfloat16 has no numpy type.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gemma_nli.base.files import put_in_place, unfinished
from gemma_nli.features.request import DIGEST_BYTES, digest_list

FORMAT = "gemma_nli.features/1"
TEMPORARY = ".tmp-"
"""Prefix of files that are being written, or were when their writer was killed."""
_TYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}
"""bfloat16 is stored as uint16 with the same bits."""


class DamagedShard(Exception):
    """A file whose content does not match its name: never read, recomputed instead."""


@dataclass
class Shard:
    """Some texts' features: `digests` (n, 32), `lengths` (n,), `view:NAME` (n, W), `tokens` (S, H) of the last layer
    and `tokens@9` of layer 9, `offsets` (n + 1), `hidden_size` (1,), which is H.

    A text whose tokens were not kept has an empty span in `offsets`.
    """

    arrays: dict[str, np.ndarray]
    path: Path | None = None
    size_bytes: int = 0
    rows: dict[bytes, int] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {digest: row for row, digest in enumerate(digest_list(self.arrays["digests"]))}

    @cached_property
    def views(self) -> dict[str, np.ndarray]:
        return {name.removeprefix("view:"): array for name, array in self.arrays.items() if name.startswith("view:")}

    @cached_property
    def kept(self) -> np.ndarray:
        """(n,) whether a row's token states are here."""
        if "offsets" not in self.arrays:
            return np.zeros(len(self.arrays["digests"]), dtype=bool)
        return np.diff(self.arrays["offsets"]) > 0


def write_shard(folder: Path, key: str, arrays: Mapping[str, np.ndarray], types: Mapping[str, str]) -> Path:
    """Write one shard and give its path.

    Args:
        types: safetensors type names of arrays whose numpy type does not show it (`{"tokens": "BF16"}`).
    Raises:
        OSError: no room, no permission; nothing is left behind.
    """
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))  # keeps every array aligned
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "key": key}}
    offset = 0
    for name, array in ordered:
        kind = types.get(name, _NAMES[array.dtype])
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    checksum = hashlib.sha256()
    with unfinished(folder, TEMPORARY) as temporary:
        with temporary.open("xb") as file:
            for part in (len(text).to_bytes(8, "little"), text):
                checksum.update(part)
                file.write(part)
            for _, array in ordered:
                if array.size:
                    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                    checksum.update(data)
                    file.write(data)
        path = folder / f"shard-{checksum.hexdigest()}.safetensors"
        put_in_place(temporary, path)
    return path


_verified: set[tuple[str, int, int, int]] = set()
"""Files this process has checked: (path, inode, bytes, time of change)."""


def open_shard(path: Path, key: str, trust: bool = True) -> Shard:
    """Map a shard into memory, its checksum verified once per process.

    Args:
        trust: whether an earlier check by this process is enough.
    Raises:
        DamagedShard: the bytes do not match its name, or it is another key's.
        FileNotFoundError: deleted meanwhile.
    """
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        if stat.st_size < 8:
            raise DamagedShard(f"{path.name}: {stat.st_size} bytes, cut short")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    seen = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if not trust or seen not in _verified:
        if path.name != f"shard-{hashlib.sha256(data).hexdigest()}.safetensors":
            _verified.discard(seen)
            raise DamagedShard(f"{path.name}: the checksum of its bytes differs from its name")
        _verified.add(seen)
    return Shard(_arrays(data, path.name, key), path, stat.st_size)


def _arrays(data: mmap.mmap, name: str, key: str) -> dict[str, np.ndarray]:
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = header.pop("__metadata__")
        if metadata["format"] != FORMAT or metadata["key"] != key:
            raise DamagedShard(f"{name}: holds features of another key or format")
        arrays: dict[str, np.ndarray] = {}
        for part, entry in header.items():
            start, end = entry["data_offsets"]
            kind = np.dtype(_TYPES[entry["dtype"]])
            array = np.frombuffer(data, kind, (end - start) // kind.itemsize, 8 + size + start)
            arrays[part] = array.reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedShard(f"{name}: not a features file ({type(error).__name__})") from error
    rows = len(arrays.get("digests", ()))
    if "lengths" not in arrays or arrays["digests"].shape != (rows, DIGEST_BYTES):
        raise DamagedShard(f"{name}: no digests or lengths")
    if any(len(array) != rows for part, array in arrays.items() if part.startswith("view:") or part == "lengths"):
        raise DamagedShard(f"{name}: its parts disagree on the number of texts")
    return arrays
