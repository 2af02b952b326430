"""Causal attention and joint pairs: a post is encoded once, its criteria continue from its key/value cache.

In a causal model the states of a post do not depend on the criterion behind it, so pairs that begin with the same
tokens share those tokens' states up to rounding. Posts are left-padded in a batch, which keeps the real tokens of
a pair adjacent in the cache: sliding windows count slots, and padding between post and criterion would shift them.

Shapes: G posts, B pairs, P prefix tokens, S suffix tokens, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gemma_nli.model.encoder import Encoder, Tokens
from gemma_nli.model.length_batches import token_batches

if TYPE_CHECKING:
    from transformers import DynamicCache

LEAST_SAVING = 0.1
"""Share of a post's tokens that must be saved: below it a second, smaller forward pass costs more than it saves."""
EXPANSION = 8
"""Cache slots of a batch of pairs, over the batch's token budget: bounds the memory of expanded caches."""

Batch = tuple[list[int], Tensor, Tensor, int, int]
"""rows, h_BTH, mask_BT, padded slots, slots: an `encoding.Encoded`"""


def encode_by_prefix(
    encoder: Encoder, tokens: Tokens, groups: Sequence[Sequence[int]], batch_tokens: int, longest: int
) -> Iterator[Batch | list[int]]:
    """Batches of the groups' rows; and a list of the rows that gain nothing and are encoded the plain way.

    Args:
        groups: rows of `tokens` that belong to one post each.
        longest: the `reusable_tokens` of the encoder: the states of longer rows, or of other encoders, may be wrong.
    """
    left: list[int] = []
    posts: list[tuple[int, list[int]]] = []
    for group in groups:
        within = tokens.types is None and max(len(tokens.ids[row]) for row in group) <= longest
        shared = shared_prefix([tokens.ids[row] for row in group]) if within else 0
        saved = shared * (len(group) - 1)
        if saved > LEAST_SAVING * sum(len(tokens.ids[row]) for row in group):
            posts.append((shared, list(group)))
        else:
            left += group
    yield left
    for places in token_batches([shared for shared, _ in posts], batch_tokens):
        yield from _encode_posts(encoder, tokens, [posts[place] for place in places], batch_tokens)


def shared_prefix(sequences: list[list[int]]) -> int:
    """Tokens that all sequences start with, leaving each at least one of its own."""
    if len(sequences) < 2:
        return 0
    low, high = min(sequences), max(sequences)  # all others lie difference and share what these two share
    longest = min(map(len, sequences)) - 1
    return next((place for place in range(longest) if low[place] != high[place]), longest)


@torch.inference_mode()
def _run_posts(encoder: Encoder, prefixes: list[list[int]]) -> tuple[Tensor, Tensor, DynamicCache]:
    width = len(prefixes[0])
    ids_GP = torch.full((len(prefixes), width), encoder.pad_id)
    for place, prefix in enumerate(prefixes):
        ids_GP[place, width - len(prefix) :] = torch.tensor(prefix)
    lengths_G = torch.tensor([len(prefix) for prefix in prefixes])
    mask_GP = (torch.arange(width)[None, :] >= width - lengths_G[:, None]).long()
    from transformers import DynamicCache

    cache = DynamicCache(config=encoder.model.config)
    positions_GP = (mask_GP.cumsum(1) - 1).clamp(min=0)
    h_GPH = _run(encoder, ids_GP, mask_GP, positions_GP, cache)
    return h_GPH, mask_GP, cache


@torch.inference_mode()
def _run(encoder: Encoder, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    on_device = {name: value.to(encoder.device, non_blocking=True) for name, value in batch.items()}
    return encoder.reader.read(
        encoder.model(**on_device, **encoder.reader.options, past_key_values=cache, use_cache=True)
    )


def _encode_posts(
    encoder: Encoder, tokens: Tokens, posts: list[tuple[int, list[int]]], batch_tokens: int
) -> Iterator[Batch]:
    h_GPH, mask_GP, cache = _run_posts(encoder, [tokens.ids[rows[0]][:shared] for shared, rows in posts])
    width = mask_GP.shape[1]
    pairs = [(place, shared, row) for place, (shared, rows) in enumerate(posts) for row in rows]
    suffix_lengths = [len(tokens.ids[row]) - shared for _, shared, row in pairs]
    padded, slots = mask_GP.numel() - int(mask_GP.sum()), mask_GP.numel()
    for batch in token_batches(suffix_lengths, batch_tokens):
        size = max(1, EXPANSION * batch_tokens // (width + suffix_lengths[batch[0]]))
        for start in range(0, len(batch), size):
            chosen = [pairs[item] for item in batch[start : start + size]]
            suffixes = [tokens.ids[row][shared:] for _, shared, row in chosen]
            h_BTH, mask_BT = _continue(encoder, h_GPH, mask_GP, cache, [place for place, _, _ in chosen], suffixes)
            ran = len(chosen) * (mask_BT.shape[1] - width)
            padded += ran - sum(map(len, suffixes))
            yield [row for _, _, row in chosen], h_BTH, mask_BT, padded, slots + ran
            padded = slots = 0


@torch.inference_mode()
def _continue(
    encoder: Encoder, h_GPH: Tensor, mask_GP: Tensor, cache: DynamicCache, places: list[int], suffixes: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Pairs' whole states: their post's, then those of the tokens that follow, computed from the post's cache."""
    places_B = torch.tensor(places)
    lengths_B = torch.tensor([len(suffix) for suffix in suffixes])
    width = int(lengths_B.max())
    ids_BS = torch.full((len(suffixes), width), encoder.pad_id)
    for place, suffix in enumerate(suffixes):
        ids_BS[place, : len(suffix)] = torch.tensor(suffix)
    mask_BS = (torch.arange(width)[None, :] < lengths_B[:, None]).long()
    mask_BP = mask_GP[places_B]
    positions_BS = mask_BP.sum(1, keepdim=True) + torch.arange(width)[None, :]
    mask_BT = torch.cat([mask_BP, mask_BS], dim=1)
    on_device_B = places_B.to(h_GPH.device)
    h_BSH = _run(encoder, ids_BS, mask_BT, positions_BS, _selected(cache, on_device_B))
    h_BTH = torch.cat([h_GPH[on_device_B], h_BSH], dim=1)
    return h_BTH, mask_BT.bool().to(h_BTH.device)


def _selected(cache: DynamicCache, places_B: Tensor) -> DynamicCache:
    """The posts' caches for some pairs; the original keeps its own: updates replace tensors, never write to them."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(places_B)
    return chosen
