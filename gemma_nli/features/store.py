"""Vectors of a frozen encoder on disk: computed once per key and text, shared by all users, always verified.

    root/<key>/meta.json                      what the key stands for
    root/<key>/shard-<sha256>.safetensors     features of some texts; its name is the checksum of its bytes
    root/locks/<key>.lock                     held while a key is added to; released by the system when its holder dies

A shard is written whole or not at all and never changed; a file whose bytes do not match its name is removed and its
texts are computed again. Several shards may hold parts of one text: its views, another k, its token states.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from gemma_nli.base.errors import FeatureError
from gemma_nli.base.files import put_in_place, unfinished
from gemma_nli.config import FeaturesConfig
from gemma_nli.features import verify_and_prune as upkeep
from gemma_nli.features.bucket_sync import BucketSync
from gemma_nli.features.encode_texts import (
    EncodedTexts,
    EncodeReport,
    Progress,
    encode,
    load_for,
)
from gemma_nli.features.feature_block import FeatureBlock
from gemma_nli.features.request import FeatureRequest, digest_array, is_token_part, layer_of, token_part, view_pooler
from gemma_nli.features.shard_file import TEMPORARY, Shard, write_shard
from gemma_nli.features.shard_index import HIDDEN, KeyIndex, Located
from gemma_nli.features.token_buffer import rows_within
from gemma_nli.features.verify_and_prune import LOCKS, META, Finding, Pruned, StoreEntry
from gemma_nli.model.encoder import Encoder
from gemma_nli.model.length_batches import token_batches
from gemma_nli.model.loading.sentence_modules import NATIVE
from gemma_nli.storage import Place, Prefix, folder_of, place_of

log = logging.getLogger(__name__)


class FeatureStore:
    """A FeatureSource on a folder; each process opens its own on the same root.

    In a bucket the folder is this machine's mirror of it, and whoever writes a shard uploads it.

    Raises:
        FeatureError: the root exists and is not a folder.
    """

    def __init__(self, root: Place | str, settings: FeaturesConfig | None = None) -> None:
        place = place_of(root)
        self.root = folder_of(place).absolute()
        self.bucket_sync = BucketSync(place, self.root) if isinstance(place, Prefix) else None
        self.settings = settings or FeaturesConfig()
        if self.root.exists() and not self.root.is_dir():
            raise FeatureError(f"{self.root}: the feature store must be a folder; name another one.")
        self._indexes: dict[str, KeyIndex] = {}
        self._locks: dict[str, FileLock] = {}

    def load(self, request: FeatureRequest) -> FeatureBlock:
        """The request's features, missing ones computed first; memory-mapped if one shard holds them all."""
        self.ensure(request)
        self._touch(request.key)
        return self._locate(request).block(request)

    def ensure(
        self, request: FeatureRequest, encoder: Encoder | None = None, on_progress: Progress | None = None
    ) -> EncodeReport:
        """Compute what is missing, once: others who ask meanwhile wait, then find it done.

        Args:
            encoder: used in place of loading the request's own.
            on_progress: called with (texts done, texts to do) after each batch.
        """
        start, encoded, padding = time.perf_counter(), 0, 0.0
        if self.missing(request):
            with self.lock(request.key):
                self._derive_views(request)
                rows = self.missing(request)
                if rows:
                    budget = self._token_budget_left(request, self._locate(request))
                    done = encode(
                        request.subset(rows), encoder or load_for(request), self.settings, budget, on_progress
                    )
                    self.put(request, done)
                    encoded, padding = len(done.digests), done.padding_share
        return EncodeReport(encoded, len(request.unique_rows) - encoded, time.perf_counter() - start, padding)

    def missing(self, request: FeatureRequest) -> list[int]:
        """The request's rows (the first of each distinct text) for which something requested is not in the store.

        Token states that do not fit `features.token_budget_gib` are not missing.
        """
        self._refresh(request.key)
        located = self._locate(request)
        lacking_N = located.lengths < 0
        for view in request.views:
            lacking_N |= ~located.has(f"view:{view}")
        if request.with_tokens:
            lacking_N |= self._tokens_due(request, located)
        return [request.unique_rows[place] for place in np.flatnonzero(lacking_N)]

    def put(self, request: FeatureRequest, encoded: EncodedTexts) -> Path | None:
        """Write one shard of what the store lacks of these features.

        Returns:
            Its path; None if nothing was new, or nothing could be written (a full disk): then a warning is logged
            and this store object serves the features from memory.
        """
        key, folder = request.key, self.root / request.key
        with self.lock(key):
            self._refresh(key)
            arrays = self._new_arrays(request, encoded)
            if arrays is None:
                return None
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._write_meta(request)
                halves = filter(is_token_part, arrays) if request.precision == "bfloat16" else ()
                path = write_shard(folder, key, arrays, dict.fromkeys(halves, "BF16"))
            except OSError as error:
                why = error.strerror or error
                log.warning("features %s: cannot be written (%s); used from memory, encoded again next time", key, why)
                self._index(key).hold(Shard(arrays))
                return None
            self._index(key).refresh()
            if self.bucket_sync is not None:
                self.bucket_sync.push(key, path.name)
            return path

    def entries(self) -> list[StoreEntry]:
        """Every key's figures, the least recently used first."""
        return upkeep.entries(self._own_folder())

    def verify(self, repair: bool = False) -> list[Finding]:
        """What is wrong in the folder, every byte read; `repair` removes damaged files, to be encoded again."""
        return upkeep.verify(self._own_folder(), repair)

    def prune(
        self,
        keys: Iterable[str] = (),
        older_than_seconds: float | None = None,
        everything: bool = False,
        dry_run: bool = False,
    ) -> list[Pruned]:
        """Remove some keys, those unused for long, or all; with `dry_run` they are listed and kept."""
        return upkeep.prune(self._own_folder(), keys, older_than_seconds, everything, dry_run)

    def _own_folder(self) -> Path:
        """The folder, for maintenance; a mirror's would show this machine only."""
        if self.bucket_sync is not None:
            raise FeatureError(
                f"{self.bucket_sync.place}: `features` manages folders only; list and delete a bucket's content "
                "with its own tools: whatever is missing is encoded again."
            )
        return self.root

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Lock a key for writing; reentrant within a thread.

        If no lock file can be created (a full or read-only disk) the work continues without one, with a warning.
        """
        lock = None
        try:
            lock = self._lock(key)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("features %s: another process is encoding; waiting for it", key)
                lock.acquire()
        except OSError as error:
            lock = None
            log.warning("features %s: no lock (%s); continuing without one", key, error.strerror or error)
        with ExitStack() as held:
            if lock is not None:
                held.callback(lock.release)
                self._clear_temporaries(key)
            if self.bucket_sync is not None and (lock is None or lock.lock_counter == 1):
                held.enter_context(self.bucket_sync.lock(key))
            yield

    def _lock(self, key: str) -> FileLock:
        if key not in self._locks:
            folder = self.root / LOCKS
            folder.mkdir(parents=True, exist_ok=True)
            self._locks[key] = FileLock(folder / f"{key}.lock")
        return self._locks[key]

    def _clear_temporaries(self, key: str) -> None:
        """Files left by a killed writer: whoever holds the lock is the only writer."""
        for path in (self.root / key).glob(f"{TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def _refresh(self, key: str) -> None:
        """Refresh the key's shards, from this disk and, for a prefix, from the bucket."""
        if self.bucket_sync is not None:
            self.bucket_sync.sync(key)
        damaged = self._index(key).refresh()
        if self.bucket_sync is not None:
            self.bucket_sync.drop(key, damaged)

    def _index(self, key: str) -> KeyIndex:
        return self._indexes.setdefault(key, KeyIndex(self.root / key, key))

    def _locate(self, request: FeatureRequest) -> Located:
        digests = request.digests
        return self._index(request.key).locate([digests[row] for row in request.unique_rows])

    def _token_budget_left(self, request: FeatureRequest, located: Located) -> int:
        """Bytes that the request's token states may still take, besides those stored."""
        stored = sum(int(located.lengths[located.has(part)].sum()) for part in request.token_parts)
        row_bytes = (located.hidden_size or 0) * request.dtype.itemsize
        return int(self.settings.token_budget_gib * 2**30) - stored * row_bytes

    def _tokens_due(self, request: FeatureRequest, located: Located) -> np.ndarray:
        """(N,) which known texts' token states are not stored although the budget has room for them."""
        candidates = np.flatnonzero(~located.has_all(request.token_parts) & (located.lengths >= 0))
        row_bytes = (located.hidden_size or 0) * request.dtype.itemsize * len(request.token_parts)
        fits = rows_within(located.lengths[candidates], row_bytes, self._token_budget_left(request, located))
        due_N = np.zeros(len(located.digests), dtype=bool)
        due_N[candidates[fits]] = True
        return due_N

    def _derive_views(self, request: FeatureRequest) -> None:
        """Views (another k) of texts whose token states are stored need no encoder."""
        self._refresh(request.key)
        located = self._locate(request)
        of_last = [view for view in request.views if view != NATIVE and layer_of(view) is None]
        names = [view for view in of_last if not located.has(f"view:{view}").all()]
        lacking_N = np.zeros(len(located.digests), dtype=bool)
        for name in names:
            lacking_N |= ~located.has(f"view:{name}")
        states = (token_part(None),)
        chosen = np.flatnonzero(lacking_N & located.has_all(states))
        if not len(chosen):
            return
        hidden, lengths = located.hidden_size or 0, located.lengths[chosen]
        digests = [located.digests[place] for place in chosen]
        poolers = {name: view_pooler(name, hidden) for name in names}
        views = {name: np.empty((len(chosen), pool.width), dtype=np.float32) for name, pool in poolers.items()}
        for rows in token_batches(lengths, self.settings.batch_tokens):
            tokens = located.tokens(chosen[rows], states, request.precision)
            part = FeatureBlock(digest_array([digests[row] for row in rows]), lengths[rows], hidden, {}, tokens)
            h_BTH, mask_BT = part.token_batch(np.arange(len(rows)))
            for name, pool in poolers.items():
                views[name][rows] = pool(h_BTH, mask_BT).numpy()
        self.put(request, EncodedTexts(digests, lengths, views, hidden, None, 0, 0))

    def _new_arrays(self, request: FeatureRequest, encoded: EncodedTexts) -> dict[str, np.ndarray] | None:
        located = self._index(request.key).locate(encoded.digests)
        new = {f"view:{name}": array for name, array in encoded.views.items() if not located.has(f"view:{name}").all()}
        if encoded.tokens is not None:
            kept_N = np.diff(encoded.tokens.offsets) > 0
            states = encoded.tokens.layers.items()
            if lacking := {part: flat_SH for part, flat_SH in states if (~located.has(part) & kept_N).any()}:
                new |= {**lacking, "offsets": encoded.tokens.offsets}
        if not new and (located.lengths >= 0).all():  # what a text's states past the budget need is its length
            return None
        hidden = np.array([encoded.hidden_size], dtype=np.int32)
        return {"digests": digest_array(encoded.digests), "lengths": encoded.lengths, HIDDEN: hidden, **new}

    def _write_meta(self, request: FeatureRequest) -> None:
        path = self.root / request.key / META
        if path.exists():
            return
        described: dict[str, Any] = {"key": request.key, **request.facts, "identity": asdict(request.identity)}
        described["created"] = time.time()
        described["written_by"] = {"torch": torch.__version__, "transformers": version("transformers")}
        with unfinished(path.parent, TEMPORARY) as temporary:
            temporary.write_bytes(json.dumps(described, indent=2).encode())
            put_in_place(temporary, path)

    def _touch(self, key: str) -> None:
        """Note the use of a key, for `prune --older-than`."""
        try:
            os.utime(self.root / key / META)
        except OSError as error:
            log.debug("features %s: last use not noted: %s", key, error)
