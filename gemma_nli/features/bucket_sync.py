"""A feature store's shards in a bucket: brought here when asked for, put there when written.

A shard's name is the checksum of its bytes, so the folder of a key and its prefix need only be brought to hold the same
names: nothing is ever changed, and a shard that could not be put there is put there the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gemma_nli.base.errors import StorageError
from gemma_nli.features.shard_file import open_shard
from gemma_nli.features.verify_and_prune import META
from gemma_nli.storage import Lease, Prefix

log = logging.getLogger(__name__)


class BucketSync:
    """The prefix of a store; `root` is the mirror in which the store works."""

    def __init__(self, place: Prefix, root: Path) -> None:
        self.place, self.root = place, root
        self._damaged: set[str] = set()

    def sync(self, key: str) -> None:
        """Bring the key's shards that are there and not here, and put there those that are only here.

        Raises:
            StorageError: the bucket cannot be listed or read.
        """
        there, folder = (self.place / key).under(), self.root / key
        here = {path.name for path in folder.glob("shard-*.safetensors")}
        for name in sorted(there.keys() - here - self._damaged):
            if name.startswith("shard-") or (name == META and not (folder / META).exists()):
                self.place.bucket.fetch(there[name], folder / name)
        for name in sorted(here - there.keys()):
            self.push(key, name)

    def push(self, key: str, name: str) -> None:
        """Put a shard there, once its bytes are what its name says, and what its key stands for."""
        path = self.root / key / name
        try:
            open_shard(path, key)
            for each in (path, path.with_name(META)):
                self.place.bucket.store((self.place / key / each.name).key, each)
        except StorageError as error:
            log.warning("features %s: %s is kept here and put there the next time (%s)", key, name, error)

    def drop(self, key: str, names: list[str]) -> None:
        """Shards that came damaged: removed, as a folder's are."""
        for name in names:
            self._damaged.add(name)
            self.place.bucket.delete((self.place / key / name).key)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold a key among machines; those on one machine keep apart by its lock file."""
        lease = Lease(self.place / "locks" / f"{key}.json")
        lease.acquire(patient=True)
        try:
            yield
        finally:
            lease.release()
