"""A PairTable as bytes, without any text: what a report needs of a corpus that is not at hand.

Letters: N all pairs, P posts.
"""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load, save

from gemma_nli.corpus.pairs import POSITIVE, PairTable
from gemma_nli.corpus.redsm5 import Corpus

_FACTS = (
    "post_ids",
    "criterion_ids",
    "num_folds",
    "fold_seed",
    "eval_negative_ratio",
    "negatives",
    "corpus_fingerprint",
)


def pairs_to_bytes(pairs: PairTable) -> bytes:
    """Ids, folds, labels and the order of the negatives; a post's columns once."""
    facts = json.dumps({name: getattr(pairs, name) for name in _FACTS}).encode()
    each = slice(None, None, len(pairs.criterion_ids))
    data: bytes = save(
        {
            "facts": np.frombuffer(facts, dtype=np.uint8).copy(),
            "group_P": np.asarray(pairs.group_P, dtype=np.int32),
            "fold_P": np.ascontiguousarray(pairs.fold_N[each], dtype=np.int16),
            "inner_P": np.ascontiguousarray(pairs.inner_N[each], dtype=np.int16),
            "source_N": np.ascontiguousarray(pairs.source_N, dtype=np.int8),
            "rank_N": np.ascontiguousarray(pairs.rank_N, dtype=np.int32),
        }
    )
    return data


def pairs_from_bytes(data: bytes) -> PairTable:
    """The table with the same fingerprint."""
    arrays = load(data)
    facts = json.loads(arrays["facts"].tobytes())
    posts, criteria = len(facts["post_ids"]), len(facts["criterion_ids"])
    columns = {
        "post_N": np.repeat(np.arange(posts, dtype=np.int32), criteria),
        "criterion_N": np.tile(np.arange(criteria, dtype=np.int32), posts),
        "label_N": (arrays["source_N"] == POSITIVE).astype(np.int8),
        "source_N": arrays["source_N"],
        "fold_N": np.repeat(arrays["fold_P"], criteria),
        "inner_N": np.repeat(arrays["inner_P"], criteria),
        "rank_N": arrays["rank_N"],
    }
    return PairTable(group_P=arrays["group_P"], **columns, **facts)


def without_texts(pairs: PairTable) -> Corpus:
    """The corpus of these pairs as far as it is known: its ids."""
    return Corpus(dict.fromkeys(pairs.post_ids, ""), dict.fromkeys(pairs.criterion_ids, ""), ())
