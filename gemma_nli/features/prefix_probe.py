"""Whether prefix reuse gives this model's own states: tested on the model, never inferred from its forward's signature.

Hybrids (Falcon-H1, LFM2, Qwen3-Next and their like) keep running states in their caches, which padding changes and
which are used up when a second batch continues from the same post.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
from torch import Tensor

from gemma_nli.features.prefix import encode_by_prefix
from gemma_nli.model.encoder import Encoder, Tokens
from gemma_nli.model.probing.encoding_manner import FAILURES, affordable_tokens, distance, tolerance

log = logging.getLogger(__name__)
POSTS, CRITERIA = (3, 11, 23, 40), (1, 4, 9)
"""Tokens of the posts and of the criteria that are tested with each other."""
BATCHES = (16, 90, 4096)
"""Token budgets: a post and one of its pairs at a time, some of them, all together."""
_WINDOW = re.compile("window|chunk|local")


def reusable_tokens(encoder: Encoder) -> int:
    """Tokens up to which pairs may continue from their post's cache: 0 if that gave other states.

    Measured once per encoder and kept with its other probes.
    """
    if not _takes_cache(encoder):
        return 0
    if encoder.notes is None:
        return _tried(encoder)
    return encoder.notes.recall("prefix reuse", lambda: _tried(encoder))


def _takes_cache(encoder: Encoder) -> bool:
    """The cheap checks: it takes a cache and positions, is causal, and accepts padding."""
    takes_cache = {"past_key_values", "position_ids"} <= encoder.takes
    manner = encoder.manner
    fits = set(manner.padding) == {"right", "left"} and not manner.put_back and not manner.segments
    return takes_cache and manner.positions is None and fits and encoder.is_causal  # rotary positions only


def _tried(encoder: Encoder) -> int:
    longest = encoder.max_length
    posts = [post for post in POSTS if post + max(CRITERIA) <= longest]
    beyond = [window + 1 for window in _windows(encoder.model.config) if POSTS[-1] < window < longest - max(CRITERIA)]
    tried = [post for post in beyond if affordable_tokens(encoder, len(CRITERIA) * post) == len(CRITERIA) * post]
    if not posts or not _equal(encoder, posts + tried):
        log.warning(
            "features: prefix reuse gives other states than %s itself; each pair is encoded whole, which is slower.",
            encoder.identity.name,
        )
        return 0
    return longest if len(tried) == len(beyond) else min(post for post in beyond if post not in tried) - 1


def _windows(config: Any) -> list[int]:
    """Sizes of the layers' attention windows, as far as the config names them."""
    return sorted({v for k, v in config.to_dict().items() if _WINDOW.search(k) and type(v) is int and v > 1})


@torch.inference_mode()
def _equal(encoder: Encoder, posts: list[int]) -> bool:
    """Whether each post with each criterion gets the same states by reuse, in batches of several sizes, as alone."""
    ids, draw = encoder.ordinary_ids(), torch.Generator().manual_seed(1)

    def text(length: int) -> list[int]:
        return [ids[int(place)] for place in torch.randint(len(ids), (length,), generator=draw)]

    criteria = [text(length) for length in CRITERIA]
    rows = [post + criterion for post in map(text, posts) for criterion in criteria]
    tokens = Tokens(rows)
    groups = [list(range(start, start + len(criteria))) for start in range(0, len(rows), len(criteria))]
    wanted = [encoder(encoder.collate(tokens, [row]))[0] for row in range(len(rows))]
    together = encoder.collate(tokens)
    whole = zip(encoder(together), together["attention_mask"].bool(), wanted, strict=True)
    allowed = tolerance(encoder.dtype, max(distance(h_TH[real_T], want_TH) for h_TH, real_T, want_TH in whole))
    return all(_off(encoder, tokens, groups, batch_tokens, wanted) <= allowed for batch_tokens in BATCHES)


def _off(encoder: Encoder, tokens: Tokens, groups: list[list[int]], batch_tokens: int, wanted: list[Tensor]) -> float:
    worst = 0.0
    try:
        for item in encode_by_prefix(encoder, tokens, groups, batch_tokens, encoder.max_length):
            if not isinstance(item, list):
                rows, h_BTH, mask_BT, *_ = item
                for row, h_TH, real_T in zip(rows, h_BTH, mask_BT, strict=True):
                    worst = max(worst, distance(h_TH[real_T], wanted[row]))
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        log.debug("prefix reuse, %s: %s: %s", encoder.identity.name, type(error).__name__, error)
        return float("inf")
    return worst
