"""Texts to features, fast: sorted by length, tokenised in parallel with the computation, all poolings from one forward
pass.

Shapes: N texts, B rows of a batch, T tokens, S tokens of all texts end to end, H hidden, P all views' widths together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gemma_nli.base.errors import FeatureError
from gemma_nli.config import FeaturesConfig, ModelConfig
from gemma_nli.config.chosen_layers import LAST
from gemma_nli.features.pooled_batch import Encoded, pool_all
from gemma_nli.features.prefix import encode_by_prefix
from gemma_nli.features.prefix_probe import reusable_tokens
from gemma_nli.features.request import FeatureRequest, layer_of, view_pooler
from gemma_nli.features.token_buffer import TokenStateBuffer
from gemma_nli.features.token_states import TokenStates
from gemma_nli.model.encoder import Encoder, Tokens, load_encoder
from gemma_nli.model.layers import reading
from gemma_nli.model.length_batches import token_batches

CHUNK_TEXTS = 2048
"""Texts tokenised at a time; sorted by characters before and by tokens within, so chunks need hardly any padding."""

Chunk = tuple[list[int], Tokens]
"""Rows of a request, and their tokens in the same order."""

Progress = Callable[[int, int], None]
"""(texts done, texts in all)"""


@dataclass(frozen=True)
class EncodeReport:
    """The cost of a call.

    Args:
        encoded: distinct texts that went through the encoder.
        reused: distinct texts that were in the store.
        seconds: wall time, including waiting for another process.
        padding_share: share of the encoder's token slots that were padding, 0..1.
    """

    encoded: int
    reused: int
    seconds: float
    padding_share: float = 0.0


@dataclass(frozen=True)
class EncodedTexts:
    """Features of N distinct texts, ready for `FeatureStore.put`; plain arrays, which can be sent between machines."""

    digests: list[bytes]
    lengths: np.ndarray
    views: dict[str, np.ndarray]
    hidden_size: int
    tokens: TokenStates | None
    padded_slots: int
    slots: int

    @property
    def padding_share(self) -> float:
        return self.padded_slots / self.slots if self.slots else 0.0

    @classmethod
    def joined(cls, pieces: Sequence[EncodedTexts]) -> EncodedTexts:
        """Parts encoded separately (one per GPU) joined, so that they become one shard."""
        if len(pieces) == 1:
            return pieces[0]
        tokens = None
        kept = [piece.tokens for piece in pieces if piece.tokens is not None]
        if kept and len(kept) == len(pieces):
            tokens = TokenStates.joined(kept)
        return cls(
            [digest for piece in pieces for digest in piece.digests],
            np.concatenate([piece.lengths for piece in pieces]),
            {name: np.concatenate([piece.views[name] for piece in pieces]) for name in pieces[0].views},
            pieces[0].hidden_size,
            tokens,
            sum(piece.padded_slots for piece in pieces),
            sum(piece.slots for piece in pieces),
        )


def encode(
    request: FeatureRequest,
    encoder: Encoder,
    settings: FeaturesConfig,
    token_budget_bytes: int | None = None,
    on_progress: Progress | None = None,
) -> EncodedTexts:
    """Every view of the request's distinct texts, and their token states up to the budget.

    Args:
        token_budget_bytes: bytes of token states to keep, shortest texts first; the setting's when None.
    Raises:
        FeatureError: the encoder or its precision is not the one that the request's key names.
    """
    check_encoder(request, encoder)
    layers = layers_read(request, encoder)
    with reading(encoder, layers):
        return _encode(request, encoder, settings, layers, token_budget_bytes, on_progress)


def layers_read(request: FeatureRequest, encoder: Encoder) -> tuple[int, ...]:
    """The layers that a request reads, as this encoder numbers them."""
    return tuple(encoder.choice.depth if number is None else number for number in request.layers)


def _encode(
    request: FeatureRequest,
    encoder: Encoder,
    settings: FeaturesConfig,
    layers: tuple[int, ...],
    token_budget_bytes: int | None,
    on_progress: Progress | None,
) -> EncodedTexts:
    request = request.subset(request.unique_rows)
    count, names = len(request), request.stored_views()
    hidden, modules = encoder.hidden_size, encoder.sentence_modules
    poolers = [view_pooler(name, hidden, modules).to(encoder.device) for name in names]
    depth = encoder.choice.depth
    at = [layers.index(depth if layer_of(name) is None else layer_of(name)) for name in names]
    views = {name: np.empty((count, pool.width), dtype=np.float32) for name, pool in zip(names, poolers, strict=True)}
    ends = np.cumsum([pool.width for pool in poolers])
    lengths = np.zeros(count, dtype=np.int32)
    longest = reusable_tokens(encoder) if settings.prefix_reuse and request.hypotheses is not None else 0
    chunks: Iterable[Chunk] = _tokenised(request, encoder, longest > 0)
    buffer = None
    if request.with_tokens:
        chunks = list(chunks)  # all lengths are needed before the first state is kept
        for rows, tokens in chunks:
            lengths[rows] = tokens.lengths
        budget = int(settings.token_budget_gib * 2**30) if token_budget_bytes is None else token_budget_bytes
        buffer = TokenStateBuffer(lengths, hidden, request, budget)

    def finish(rows: list[int], pooled_BP: Tensor, batch: Encoded) -> None:
        found_BP = pooled_BP.cpu().numpy()
        for (name, view_MW), end in zip(views.items(), ends, strict=True):
            views[name][rows] = found_BP[:, end - view_MW.shape[1] : end]
        if buffer is not None:
            buffer.keep(np.asarray(rows), batch.h_BTH, batch.mask_BT)

    done = padded = slots = 0
    waiting: tuple[list[int], Tensor, Encoded] | None = None  # read back only once the next batch has started
    for chunk_rows, tokens in chunks:
        lengths[chunk_rows] = tokens.lengths
        beginnings = [request.beginnings[row] for row in chunk_rows] if longest else []
        for batch in _batches(encoder, tokens, beginnings, settings.batch_tokens, longest):
            rows = [chunk_rows[row] for row in batch.rows]
            pooled_BP = pool_all(poolers, at, len(layers), batch, tokens.prompts)
            if waiting is not None:
                finish(*waiting)
            waiting = (rows, pooled_BP, batch)
            done, padded, slots = done + len(rows), padded + batch.padded_slots, slots + batch.slots
            if on_progress is not None:
                on_progress(done, count)
    if waiting is not None:
        finish(*waiting)
    states = buffer.states if buffer else None
    return EncodedTexts(request.digests, lengths, views, hidden, states, padded, slots)


def load_for(request: FeatureRequest) -> Encoder:
    """The request's encoder, frozen, in the precision that its key names.

    Raises:
        EncoderError: it cannot be loaded.
        FeatureError: its files are no longer those the request names.
    """
    numbers = [-1 if number is None else number for number in request.layers]
    layers = LAST if numbers == [-1] else numbers
    frozen = {"freeze_encoder": True, "lora": None, "unfreeze_last_n": None, "layers": layers}
    encoder = load_encoder(ModelConfig.model_validate({**request.model.model_dump(), **frozen}), request.pinned_device)
    check_encoder(request, encoder)
    return encoder


def check_encoder(request: FeatureRequest, encoder: Encoder) -> None:
    """Raises FeatureError if features of this encoder would be stored under another's key."""
    if encoder.identity.fingerprint != request.identity.fingerprint:
        raise FeatureError(
            f"{encoder.identity.name}: not the files the request names; they have changed since: start again."
        )
    if encoder.dtype != request.dtype:
        raise FeatureError(
            f"{encoder.identity.name}: loaded in {encoder.dtype}, requested in {request.precision}; "
            "load it with the request's pinned_device."
        )


def encode_plainly(encoder: Encoder, tokens: Tokens, rows: Sequence[int], batch_tokens: int) -> Iterator[Encoded]:
    """Each of some texts through the encoder on its own."""
    lengths_N = np.asarray(tokens.lengths)[list(rows)]
    for places in token_batches(lengths_N, batch_tokens):
        chosen = [rows[place] for place in places]
        h_BTH, mask_BT = _forward(encoder, tokens, chosen)
        real = int(lengths_N[places].sum())
        yield Encoded(chosen, h_BTH, mask_BT, mask_BT.numel() - real, mask_BT.numel())


@torch.inference_mode()
def _forward(encoder: Encoder, tokens: Tokens, rows: list[int]) -> tuple[Tensor, Tensor]:
    batch = encoder.collate(tokens, rows, side="right")
    h_BTH: Tensor = encoder(batch)
    return h_BTH, batch["attention_mask"].bool()


def _batches(
    encoder: Encoder, tokens: Tokens, beginnings: list[str], batch_tokens: int, longest: int
) -> Iterator[Encoded]:
    """Plain batches; rows of up to `longest` tokens together with those of their beginning, if that saves work."""
    rows = list(range(len(tokens)))
    if longest:
        groups: dict[str, list[int]] = {}
        for row in rows:
            groups.setdefault(beginnings[row], []).append(row)
        rows = []
        for item in encode_by_prefix(encoder, tokens, list(groups.values()), batch_tokens, longest):
            if isinstance(item, list):
                rows += item  # those that gain nothing from it
            else:
                yield Encoded(*item)
    yield from encode_plainly(encoder, tokens, rows, batch_tokens)


def _tokenised(request: FeatureRequest, encoder: Encoder, together: bool) -> Iterator[Chunk]:
    """Chunks of rows and their tokens, longest texts first, prepared in a thread while earlier ones are computed."""

    def tokenise(rows: list[int]) -> Tokens:
        part = request.subset(rows)
        return encoder.tokenize(part.premises, part.hypotheses, part.prompts)

    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as thread:
        ahead: list[tuple[list[int], Future[Tokens]]] = []
        for rows in _chunks(request, together):
            ahead.append((rows, thread.submit(tokenise, rows)))
            if len(ahead) > 2:
                ready, future = ahead.pop(0)
                yield ready, future.result()
        for ready, future in ahead:
            yield ready, future.result()


def _chunks(request: FeatureRequest, together: bool) -> Iterator[list[int]]:
    """Rows by descending number of characters; `together`: rows of one beginning in one chunk, if two can hold them."""
    premises, hypotheses = request.premises, request.hypotheses
    begin = request.beginnings if together else []
    if together:
        rows = sorted(range(len(premises)), key=lambda row: (-len(begin[row]), begin[row]))
    else:
        tails = [0] * len(premises) if hypotheses is None else [len(text) for text in hypotheses]
        rows = sorted(range(len(premises)), key=lambda row: -(len(premises[row]) + tails[row]))
    start = 0
    while start < len(rows):
        end = min(start + CHUNK_TEXTS, len(rows))
        last = min(start + 2 * CHUNK_TEXTS, len(rows)) if together else end
        while end < last and begin[rows[end]] == begin[rows[end - 1]]:
            end += 1
        yield rows[start:end]
        start = end


class EncodedOnDemand:
    """A StateSource: token states of a block's rows by running the encoder, loaded when first asked.

    Args:
        block_rows: the block row of each of the request's texts.
    """

    def __init__(self, request: FeatureRequest, block_rows: np.ndarray, encoder: Encoder | None = None) -> None:
        self._request, self._encoder = request, encoder
        self._request_rows = {int(block_row): row for row, block_row in enumerate(block_rows)}

    def states(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """h_BTM float32, of each layer side by side, and mask_BT of some block rows, right-padded with zeros, on the
        CPU.
        """
        if self._encoder is None:
            self._encoder = load_for(self._request)
        part = self._request.subset([self._request_rows[row] for row in rows])
        tokens = self._encoder.tokenize(part.premises, part.hypotheses, part.prompts)
        with reading(self._encoder, layers_read(self._request, self._encoder)):
            h_BTM, mask_BT = _forward(self._encoder, tokens, list(range(len(tokens))))
        each = h_BTM.chunk(len(self._request.layers), -1)
        h_BTM = torch.cat([each[at] for at in self._request.token_places], dim=-1)
        h_BTM = h_BTM.to("cpu", torch.float32).masked_fill(~mask_BT.cpu().unsqueeze(-1), 0)
        return h_BTM, mask_BT.cpu()
