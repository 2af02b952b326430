"""What `gemma-nli features` does: list the store, verify every byte of it, prune it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gemma_nli.base.errors import FeatureError, did_you_mean
from gemma_nli.features.shard_file import TEMPORARY, DamagedShard, Shard, open_shard

META, LOCKS = "meta.json", "locks"
_KEY = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class StoreEntry:
    """One key's folder, in figures.

    Args:
        about: what the key stands for (meta.json); empty if that is unreadable.
        texts: distinct texts with any feature.
        with_tokens: texts whose token states are kept.
        shards: valid shards.
        damaged: shards that do not match their names.
        last_used: seconds since the epoch.
    """

    key: str
    about: dict[str, Any]
    texts: int
    with_tokens: int
    views: tuple[str, ...]
    shards: int
    damaged: int
    size_bytes: int
    created: float
    last_used: float

    @property
    def encoder(self) -> str:
        return str(self.about.get("identity", {}).get("name", "?"))


@dataclass(frozen=True)
class Finding:
    """Something wrong in the store's folder, and whether it was repaired (removed: to be encoded again)."""

    key: str
    file: str
    problem: str
    repaired: bool


@dataclass(frozen=True)
class Pruned:
    """A key that was (or with dry_run would be) removed; `busy` is one that is kept because another process is adding
    to it.
    """

    entry: StoreEntry
    removed: bool
    busy: bool = False


def keys(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    folders = [path.name for path in root.iterdir() if path.is_dir()]
    return sorted(name for name in folders if len(name) == 32 and set(name) <= _KEY)


def entries(root: Path) -> list[StoreEntry]:
    """Every key of the store, the least recently used first. Opens (and so verifies) each shard."""
    found = [entry(root, key) for key in keys(root)]
    return sorted(found, key=lambda item: item.last_used)


def entry(root: Path, key: str) -> StoreEntry:
    folder = root / key
    digests: set[bytes] = set()
    kept: set[bytes] = set()
    views: set[str] = set()
    shards = damaged = 0
    for _, shard in _shards(folder, key, trust=True):
        if isinstance(shard, Shard):
            shards += 1
            digests |= shard.rows.keys()
            kept |= {digest for digest, row in shard.rows.items() if shard.kept[row]}
            views |= shard.views.keys()
        else:
            damaged += 1
    meta = folder / META
    about = _read_meta(meta)
    files = [path.stat() for path in folder.iterdir() if path.is_file()]
    used = meta.stat().st_mtime if meta.exists() else folder.stat().st_mtime
    created = min([file.st_mtime for file in files], default=folder.stat().st_mtime)
    return StoreEntry(
        key, about, len(digests), len(kept), tuple(sorted(views)), shards, damaged,
        sum(file.st_size for file in files), float(about.get("created", created)), used,
    )  # fmt: skip


def _read_meta(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(facts, dict):
            return facts
    return {}


def _shards(folder: Path, key: str, trust: bool) -> Iterator[tuple[Path, Shard | str]]:
    """Each shard file, opened, or what is wrong with it."""
    for path in sorted(folder.glob("shard-*.safetensors")):
        try:
            yield path, open_shard(path, key, trust=trust)
        except DamagedShard as error:
            yield path, str(error)
        except FileNotFoundError:
            continue


def verify(root: Path, repair: bool = False) -> list[Finding]:
    """Read every byte of every shard against its checksum.

    Args:
        repair: remove damaged shards and files left by killed writers; their texts are encoded again when next
        requested. Files
            that are not the store's are kept.
    """
    findings: list[Finding] = []
    for key in keys(root):
        folder = root / key
        problems = [(path, shard, True) for path, shard in _shards(folder, key, trust=False) if isinstance(shard, str)]
        if not _read_meta(folder / META) and any(folder.iterdir()):
            problems.append((folder / META, f"{META}: missing or unreadable; written again with the next shard", True))
        with _locked(root, key) as free:
            for path in folder.iterdir():
                if path.name.startswith(TEMPORARY) and free:
                    problems.append((path, f"{path.name}: left by a killed writer", True))
                elif not path.name.startswith((TEMPORARY, "shard-")) and path.name != META:
                    problems.append((path, f"{path.name}: not the store's", False))
            for path, problem, ours in problems:
                if repair and ours and free:
                    path.unlink(missing_ok=True)
                findings.append(Finding(key, path.name, problem, repair and ours and free))
    return findings


def prune(
    root: Path,
    chosen: Iterable[str] = (),
    older_than_seconds: float | None = None,
    everything: bool = False,
    dry_run: bool = False,
) -> list[Pruned]:
    """Remove keys: those named (a unique prefix is enough), those unused for long, or all.

    Processes that have a key open keep reading it; one that is being added to is left alone.

    Raises:
        FeatureError: a name that matches no key, or several.
    """
    found = {item.key: item for item in entries(root)}
    to_remove = {_resolve(name, found) for name in chosen}
    if older_than_seconds is not None:
        to_remove |= {key for key, item in found.items() if time.time() - item.last_used > older_than_seconds}
    if everything:
        to_remove = set(found)
    pruned = []
    for key, item in found.items():
        if key not in to_remove:
            continue
        if dry_run:
            pruned.append(Pruned(item, removed=False))
            continue
        with _locked(root, key) as free:
            if free:
                shutil.rmtree(root / key)
            pruned.append(Pruned(item, removed=free, busy=not free))
    return pruned


def _resolve(name: str, found: dict[str, StoreEntry]) -> str:
    fitting = [key for key in found if name and key.startswith(name)]
    if len(fitting) != 1:
        what = "matches several keys" if fitting else f"no such key{did_you_mean(name, found)}"
        raise FeatureError(f"features '{name}': {what}")
    return fitting[0]


class _locked:
    """Take a key's lock if it is free; gives whether it is held. Lock files are kept: removing one would allow two."""

    def __init__(self, root: Path, key: str) -> None:
        (root / LOCKS).mkdir(exist_ok=True)
        self._lock = FileLock(root / LOCKS / f"{key}.lock")

    def __enter__(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._lock.release()
