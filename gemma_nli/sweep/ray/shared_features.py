"""What all trials of a sweep share without a copy each: the corpus, the pairs, and features in Ray's object store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from gemma_nli.base.errors import FeatureError
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureBlock, FeatureRequest, FeatureStore
from gemma_nli.storage import Place

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class SharedBlock:
    """A FeatureBlock put into the object store, and what it can answer."""

    key: str
    views: frozenset[str]
    token_parts: frozenset[str]
    arrays: ray.ObjectRef[Arrays]


@dataclass(frozen=True)
class TrialContext:
    """Given to trials once per actor, not once per trial."""

    base: RunConfig
    corpus: Corpus
    pairs: PairTable
    storage: Place
    objective: str
    cpus: float
    tags: dict[str, str] = field(default_factory=dict)
    blocks: tuple[SharedBlock, ...] = ()
    stopping: Place | None = None  # an entry of the shared storage that exists once no trial should start


class SharedFeatures:
    """A FeatureSource that answers from the object store where it can, else from the store on disk (encoding there).

    A block is fetched once per process and kept while the following trials use it.
    """

    def __init__(self, blocks: tuple[SharedBlock, ...], store: FeatureStore) -> None:
        self.blocks, self.store = blocks, store
        self.fetched: dict[SharedBlock, FeatureBlock] = {}
        self.asked: dict[SharedBlock, FeatureBlock] = {}

    def load(self, request: FeatureRequest) -> FeatureBlock:
        for shared in self.blocks:
            fits = shared.key == request.key and set(request.views) <= shared.views
            if not fits or not set(request.token_parts) <= shared.token_parts:
                continue
            if shared not in self.fetched:
                self.fetched[shared] = FeatureBlock.from_arrays(ray.get(shared.arrays))
            try:
                self.fetched[shared].rows_of(request.digests)
            except FeatureError:
                continue  # texts that the sweep did not foresee when it encoded: the store encodes them
            return self._asked_by(request, shared) if request.with_tokens else self.fetched[shared]
        return self.store.load(request)

    def _asked_by(self, request: FeatureRequest, shared: SharedBlock) -> FeatureBlock:
        """With the layers that are asked for; for the same texts the block of before, whose encoder may be loaded."""
        last = self.asked.get(shared)
        if last is not None and last.request is not None:
            known = last.request
            if known.token_parts == request.token_parts and known.digests == request.digests:
                return last
        self.asked[shared] = self.fetched[shared].asked_by(request)
        return self.asked[shared]
