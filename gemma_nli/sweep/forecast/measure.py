"""Short measurements on the machine that will run a sweep: how long its texts take to encode, and how long a trial.

Both run as Ray tasks with the share of the machine that the sweep's own tasks get, side by side as its trials would.
Trials with equal cost are measured once: the first epochs of the real training code, on stand-ins for vectors that are
not encoded yet (time does not depend on their values), or on some of the posts where the encoder is trained.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray

from gemma_nli.base.errors import CorpusError
from gemma_nli.config import FeaturesConfig, RunConfig
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureBlock, FeatureRequest, FeatureSource, FeatureStore
from gemma_nli.features.encode_texts import encode, load_for
from gemma_nli.features.request import digest_array, view_pooler
from gemma_nli.features.token_states import TokenStates
from gemma_nli.model.loading.identity import encoder_folder
from gemma_nli.model.loading.network import sizes
from gemma_nli.model.loading.sentence_modules import native_modules
from gemma_nli.storage import Place
from gemma_nli.sweep.ray.worker_gate import worker_gate
from gemma_nli.training.fold import plan_fold

ENOUGH_SECONDS = 2.0
"""A measurement this long is accepted; a shorter one is repeated on more."""
LEAST_SLICES = 5
CHARACTERS_A_TOKEN = 4.0
"""Approximate; it only sets the size of a slice."""
_COSTS = ("model.", "training.", "device.", "data.n")
_COSTS_NOTHING = {
    "training.learning_rate",
    "training.encoder_learning_rate",
    "training.weight_decay",
    "training.warmup_ratio",
    "training.schedule",
    "training.max_grad_norm",
    "training.label_smoothing",
    "training.focal_gamma",
    "training.seed",
    "training.num_epochs",  # cost is proportional: a trial's own number is put in afterwards
    "model.dropout",
}


@dataclass(frozen=True)
class EncodeCost:
    """Seconds for all missing texts, seconds to load the encoder, and tokens per character of these texts."""

    seconds: float
    load_seconds: float
    tokens_per_character: float


@dataclass(frozen=True)
class TrialCost:
    """A trial's seconds: `fixed`, and `per_epoch` for all its folds together."""

    fixed: float
    per_epoch: float

    def of(self, config: RunConfig) -> float:
        return self.fixed + self.per_epoch * config.training.num_epochs


def cost_class(config: RunConfig) -> str:
    """Configurations of one class take the same time per epoch."""
    settings = {key: value for key, value in config.flat().items() if key not in _COSTS_NOTHING}
    return json.dumps({k: v for k, v in settings.items() if k.startswith(_COSTS)}, default=str)


@ray.remote(num_cpus=1)
def probe_encoding(request: FeatureRequest, missing: list[int], settings: FeaturesConfig) -> EncodeCost:
    """Encode slices of whole posts, each with short and long ones, until there are enough; the median slice counts.

    The first slice warms up, and counts only if there is no other; the median keeps a busy machine's stalls from
    counting much.
    """
    with worker_gate(request.premises):
        return _encoding_cost(request, missing, settings)


def _encoding_cost(request: FeatureRequest, missing: list[int], settings: FeaturesConfig) -> EncodeCost:
    began = time.perf_counter()
    encoder = load_for(request)
    load_seconds = time.perf_counter() - began
    size = _characters(request)
    slices = _slices(request, missing, int(size[missing].sum()), settings.batch_tokens)
    pace: list[float] = []
    rate, spent = 0.0, 0.0
    for number, rows in enumerate(slices):
        began = time.perf_counter()
        encoded = encode(request.subset(rows), encoder, settings)
        seconds = time.perf_counter() - began
        rate = rate or float(encoded.lengths.sum() / max(1, size[rows].sum()))
        pace.append(seconds / float(_work(size[rows], rate, request).sum()))
        spent += seconds if number else 0.0
        if number >= LEAST_SLICES and spent >= ENOUGH_SECONDS:
            break
    median = statistics.median(pace[1:] or pace)
    return EncodeCost(median * float(_work(size[missing], rate, request).sum()), load_seconds, rate)


def _slices(request: FeatureRequest, missing: list[int], characters: int, batch_tokens: int) -> list[list[int]]:
    """Rows of whole posts (a prefix may be shared), each slice with posts of every length and worth three batches."""
    rows_of: dict[str, list[int]] = {}
    for row in missing:
        rows_of.setdefault(request.premises[row], []).append(row)
    posts = sorted(rows_of, key=len)
    count = max(1, min(len(posts), int(characters / CHARACTERS_A_TOKEN / (3 * batch_tokens))))
    return [[row for trial_changed in posts[start::count] for row in rows_of[trial_changed]] for start in range(count)]


def _work(size: np.ndarray[Any, np.dtype[np.int64]], rate: float, request: FeatureRequest) -> np.ndarray[Any, Any]:
    """Tokens of texts of this many characters, up to the encoder's limit."""
    work: np.ndarray[Any, Any] = np.minimum(size * rate, request.model.max_length)
    return work


@ray.remote(num_cpus=1)
def probe_trial(
    config: RunConfig, corpus: Corpus, pairs: PairTable, storage: Place, cpus: float, tokens_per_character: float | None
) -> TrialCost:
    """
    Args:
        tokens_per_character: of texts that are not encoded yet; None if the store has them all.
    """
    import torch

    torch.set_num_threads(max(1, int(cpus)))
    with worker_gate(corpus, config.data.log_text):
        return _trial_cost(config, corpus, pairs, storage, tokens_per_character)


def _trial_cost(
    config: RunConfig, corpus: Corpus, pairs: PairTable, storage: Place, tokens_per_character: float | None
) -> TrialCost:
    if not config.model.freeze_encoder:
        return _trained(config, corpus)
    store = FeatureStore(storage / "features", config.features)
    features: FeatureSource = store if tokens_per_character is None else _StandIns(tokens_per_character)

    def run(epochs: int) -> None:
        from gemma_nli.training.cross_validation import run_folds

        for _ in run_folds(_with_epochs(config, epochs), corpus, pairs, features, {}):
            pass

    return _line(run)


def _line(run: Callable[[int], None]) -> TrialCost:
    """Seconds as a line over epochs; the first call, with its imports and loading, counts only where it is long."""
    first = _timed(run, 1)
    if first > 5 * ENOUGH_SECONDS:
        return TrialCost(0.0, first)
    one = min(first, _timed(run, 1))
    many = max(3, min(20, math.ceil(ENOUGH_SECONDS / max(one, 0.01))))
    per_epoch = max(0.0, (_timed(run, many) - one) / (many - 1))
    return TrialCost(max(0.0, one - per_epoch), per_epoch)


def _trained(config: RunConfig, corpus: Corpus) -> TrialCost:
    """One fold over some of the posts, scaled to all folds over all posts."""
    from gemma_nli.training.finetuning.train_fold import train_fold

    whole = build_pairs(corpus, config.data)
    rows = sum(len(plan_fold(config, whole, fold).fit) for fold in range(1, whole.num_folds + 1))
    share = min(1.0, 64 / max(1, rows / whole.num_folds))
    while True:
        some, pairs = _some_posts(config, corpus, share)

        def run(epochs: int, some: Corpus = some, pairs: PairTable = pairs) -> None:
            train_fold(_with_epochs(config, epochs), some, pairs, 1, lambda epoch, metrics: None)

        _timed(run, 1)  # loads the encoder
        seconds = _timed(run, 1)
        if seconds >= ENOUGH_SECONDS / 4 or len(some.posts) == len(corpus.posts):
            break
        share = min(1.0, share * 4)
    line = _line(run)
    scale = rows / len(plan_fold(config, pairs, 1).fit)
    return TrialCost(line.fixed * whole.num_folds, line.per_epoch * scale)


def _some_posts(config: RunConfig, corpus: Corpus, share: float) -> tuple[Corpus, PairTable]:
    """A share of the posts, more where their folds would lack a class."""
    names = np.random.default_rng(0).permutation(list(corpus.posts)).tolist()
    while True:
        kept = set(names[: math.ceil(share * len(names))])
        posts = {name: text for name, text in corpus.posts.items() if name in kept}
        judged = tuple(a for a in corpus.annotations if a.post_id in kept)
        some = replace(corpus, posts=posts, annotations=judged, contradictions=())
        try:
            return some, build_pairs(some, config.data)
        except CorpusError:
            if share >= 1:
                raise
            share = min(1.0, share * 2)


def _with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    return config.with_settings({"training.num_epochs": epochs, "training.patience": None})


def _timed(run: Callable[[int], None], epochs: int) -> float:
    began = time.perf_counter()
    run(epochs)
    return time.perf_counter() - began


def _characters(request: FeatureRequest) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(N,) characters of each row, both its texts together."""
    hypotheses = request.hypotheses or ("",) * len(request)
    pairs = zip(request.premises, hypotheses, strict=True)
    return np.array([len(premise) + len(hypothesis) for premise, hypothesis in pairs], dtype=np.int64)


class _StandIns:
    """A FeatureSource of random vectors, as many and as long as the real ones will be."""

    def __init__(self, tokens_per_character: float) -> None:
        self.tokens_per_character = tokens_per_character

    def load(self, request: FeatureRequest) -> FeatureBlock:
        rows = request.unique_rows
        hidden = _hidden_size(request)
        rng = np.random.default_rng(0)
        sizes = _characters(request)[rows] * self.tokens_per_character
        lengths = np.clip(sizes, 4, request.model.max_length).astype(np.int32)
        modules = native_modules(request.model, encoder_folder(request.model))
        widths = {view: view_pooler(view, hidden, modules).width for view in request.views}
        views = {view: rng.standard_normal((len(rows), width), dtype=np.float32) for view, width in widths.items()}
        tokens = None
        if request.with_tokens:
            offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            layers = {
                part: _as(rng.standard_normal((int(offsets[-1]), hidden), dtype=np.float32), request.precision)
                for part in request.token_parts
            }
            tokens = TokenStates(layers, offsets, request.precision)
        digests = digest_array([request.digests[row] for row in rows])
        return FeatureBlock(digests, lengths, hidden, views, tokens, request)


def _as(flat_SH: np.ndarray[Any, Any], precision: str) -> np.ndarray[Any, Any]:
    if precision == "bfloat16":
        return (flat_SH.view(np.uint32) >> 16).astype(np.uint16)
    return flat_SH.astype(precision)


def _hidden_size(request: FeatureRequest) -> int:
    return sizes(request.model.name, encoder_folder(request.model))[0]
