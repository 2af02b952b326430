"""What each of a key's shards contains: opened, verified, and searched by the texts' digests.

Shapes: N distinct texts of a request, H hidden, W a view's width, S tokens of all texts end to end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gemma_nli.features.feature_block import FeatureBlock
from gemma_nli.features.request import FeatureRequest, digest_array, is_token_part
from gemma_nli.features.shard_file import DamagedShard, Shard, open_shard
from gemma_nli.features.token_states import TokenStates

log = logging.getLogger(__name__)

HIDDEN = "hidden_size"
Places = tuple[np.ndarray, np.ndarray]
"""(N,) shard number, -1 if none has it; (N,) row in that shard."""


class KeyIndex:
    """A key's shards as this process sees them: those on disk, and those that could not be written."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._saved: dict[str, Shard] = {}
        self._unsaved: list[Shard] = []

    def refresh(self) -> list[str]:
        """Open new shards, forget deleted ones, and remove damaged ones, whose texts are computed again.

        Returns:
            The names of the damaged ones.
        """
        damaged: list[str] = []
        names = sorted(path.name for path in self.folder.glob("shard-*.safetensors"))
        self._saved = {name: shard for name, shard in self._saved.items() if name in names}
        for name in names:
            if name in self._saved:
                continue
            path = self.folder / name
            try:
                self._saved[name] = open_shard(path, self.key)
            except DamagedShard as error:
                log.warning("features %s: %s; removed, its texts will be encoded again", self.key, error)
                _remove(path)
                damaged.append(name)
            except FileNotFoundError:
                log.debug("features %s: %s was deleted while being opened", self.key, name)
            except OSError as error:
                log.warning("features %s: %s cannot be read (%s)", self.key, name, error.strerror or error)
        return damaged

    def hold(self, shard: Shard) -> None:
        """Serve a shard from memory for as long as this process lives."""
        self._unsaved.append(shard)

    def locate(self, digests: Sequence[bytes]) -> Located:
        """Where each of some distinct texts' parts are, fullest shards first."""
        shards = [*self._saved.values(), *self._unsaved]
        found = [(shard, [shard.rows.get(digest, -1) for digest in digests]) for shard in shards]
        rows = [(shard, np.array(rows, dtype=np.int64)) for shard, rows in found if max(rows, default=-1) >= 0]
        rows.sort(key=lambda item: -int((item[1] >= 0).sum()))
        return Located(list(digests), [shard for shard, _ in rows], [part for _, part in rows])


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("features: %s is kept but not used: %s", path.name, error.strerror or error)


class Located:
    """Where N distinct texts' parts are."""

    def __init__(self, digests: list[bytes], shards: list[Shard], rows: list[np.ndarray]) -> None:
        self.digests, self.shards, self._rows = digests, shards, rows
        self._places: dict[str, Places] = {}
        self.lengths = self._gather("lengths", np.full(len(digests), -1, dtype=np.int32))

    @property
    def hidden_size(self) -> int | None:
        """Of token states, whether or not they are stored; None while nothing is."""
        named = next((int(shard.arrays[HIDDEN][0]) for shard in self.shards if HIDDEN in shard.arrays), None)
        return named if named is not None else self._width_of_any()

    def _width_of_any(self) -> int | None:
        """Of shards by versions whose poolings all gave vectors as wide as the states."""
        matrices = (array for shard in self.shards for array in shard.arrays.values() if array.ndim == 2)
        return next((int(array.shape[1]) for array in matrices if array.dtype != np.uint8), None)

    def has(self, part: str) -> np.ndarray:
        """(N,) whether a text's `view:NAME`, `lengths` or token states are stored."""
        has_N: np.ndarray = self._place(part)[0] >= 0
        return has_N

    def has_all(self, parts: Iterable[str]) -> np.ndarray:
        """(N,) whether all of these parts of a text are stored."""
        return np.asarray(np.all([self.has(part) for part in parts], axis=0))

    def _place(self, part: str) -> Places:
        if part not in self._places:
            shard_N = np.full(len(self.digests), -1, dtype=np.int64)
            row_N = np.full(len(self.digests), -1, dtype=np.int64)
            for number, (shard, rows_N) in enumerate(zip(self.shards, self._rows, strict=True)):
                if part not in shard.arrays:
                    continue
                new_N = (rows_N >= 0) & (shard_N < 0)
                if is_token_part(part):
                    new_N &= shard.kept[rows_N]
                shard_N[new_N], row_N[new_N] = number, rows_N[new_N]
            self._places[part] = (shard_N, row_N)
        return self._places[part]

    def _gather(self, part: str, into: np.ndarray) -> np.ndarray:
        shard_N, row_N = self._place(part)
        for number in np.unique(shard_N[shard_N >= 0]):
            here_N = shard_N == number
            into[here_N] = self.shards[number].arrays[part][row_N[here_N]]
        return into

    def _width(self, part: str) -> int:
        return next(int(shard.arrays[part].shape[1]) for shard in self.shards if part in shard.arrays)

    def tokens(self, chosen: np.ndarray, parts: Sequence[str], dtype: str) -> TokenStates:
        """A copy of the stored token states of some of the texts; a text that lacks some of them has an empty span."""
        has_N = self.has_all(parts)[chosen]
        counts = np.where(has_N, self.lengths[chosen], 0).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        layers = {}
        for part in parts:
            shard_N, row_N = (places[chosen] for places in self._place(part))
            source = next((shard.arrays[part] for shard in self.shards if part in shard.arrays), None)
            kind = np.float32 if source is None else source.dtype
            flat_SH = layers[part] = np.empty((int(offsets[-1]), self.hidden_size or 0), dtype=kind)
            for place in np.flatnonzero(has_N):
                arrays = self.shards[shard_N[place]].arrays
                begin, end = arrays["offsets"][row_N[place] : row_N[place] + 2]
                flat_SH[offsets[place] : offsets[place + 1]] = arrays[part][begin:end]
        return TokenStates(layers, offsets, dtype)

    def block(self, request: FeatureRequest) -> FeatureBlock:
        """The request's block: on the shards' own memory if they hold the same texts in one order, else a copy."""
        parts = [f"view:{view}" for view in request.views]
        states = request.token_parts if request.with_tokens and self.has_all(request.token_parts).any() else ()
        shared = self._shared([*parts, "lengths", *states])
        hidden = self.hidden_size or 0
        if shared is not None:
            tokens = None
            if states:
                kept = {part: shared[part].arrays[part] for part in states}
                tokens = TokenStates(kept, shared[states[0]].arrays["offsets"], request.precision)
            views = {view: shared[f"view:{view}"].views[view] for view in request.views}
            first = shared["lengths"].arrays
            return FeatureBlock(first["digests"], first["lengths"], hidden, views, tokens, request)
        views = {}
        for view, part in zip(request.views, parts, strict=True):
            views[view] = self._gather(part, np.empty((len(self.digests), self._width(part)), dtype=np.float32))
        tokens = self.tokens(np.arange(len(self.digests)), states, request.precision) if states else None
        return FeatureBlock(digest_array(self.digests), self.lengths, hidden, views, tokens, request)

    def _shared(self, parts: list[str]) -> dict[str, Shard] | None:
        """The one shard of each part, if all these shards hold the same texts in the same order, and few others."""
        chosen: dict[str, Shard] = {}
        for part in parts:
            shard_N, _ = self._place(part)
            numbers = np.unique(shard_N[shard_N >= 0] if is_token_part(part) else shard_N)
            if len(numbers) != 1 or numbers[0] < 0:
                return None
            chosen[part] = self.shards[numbers[0]]
        first = chosen["lengths"].arrays["digests"]
        if len(first) > 2 * len(self.digests):
            return None
        others = [shard.arrays["digests"] for shard in chosen.values()]
        spans = [shard.arrays["offsets"] for part, shard in chosen.items() if is_token_part(part)]
        alike = all(other is first or np.array_equal(other, first) for other in others)
        return chosen if alike and all(np.array_equal(span, spans[0]) for span in spans[1:]) else None
