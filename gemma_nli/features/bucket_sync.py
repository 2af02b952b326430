"""A feature store's shards in a bucket: downloaded when requested, uploaded when written.

A shard's name is the checksum of its bytes, so the folder of a key and its prefix need only have the same names:
nothing is ever changed, and a shard that could not be uploaded is uploaded the next time.
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
        """Download the key's shards that are missing here, and upload those that are only here.

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
        """Upload a shard, if its bytes match its name, and its key's description."""
        path = self.root / key / name
        try:
            open_shard(path, key)
            for each in (path, path.with_name(META)):
                self.place.bucket.store((self.place / key / each.name).key, each)
        except StorageError as error:
            log.warning("features %s: %s is kept here and uploaded the next time (%s)", key, name, error)

    def drop(self, key: str, names: list[str]) -> None:
        """Shards that arrived damaged: removed, as in a folder."""
        for name in names:
            self._damaged.add(name)
            self.place.bucket.delete((self.place / key / name).key)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Lock a key among machines; processes on one machine use its lock file."""
        lease = Lease(self.place / "locks" / f"{key}.json")
        lease.acquire(patient=True)
        try:
            yield
        finally:
            lease.release()
