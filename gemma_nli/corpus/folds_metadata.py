"""What the folds of a corpus are, as JSON values without text: for MLflow's artifact of every run."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemma_nli.corpus.pairs import ANNOTATED, INNER_SLOTS, SAMPLED, SOURCES, PairTable


def folds_metadata(pairs: PairTable) -> dict[str, Any]:
    """Seeds, ratios, fingerprints, and for each fold its posts and the evaluation pairs that are really there."""
    return {
        "num_folds": pairs.num_folds,
        "fold_seed": pairs.fold_seed,
        "eval_negative_ratio": pairs.eval_negative_ratio,
        "negatives": pairs.negatives,
        "inner_slots": INNER_SLOTS,
        "fingerprint": pairs.fingerprint,
        "corpus_fingerprint": pairs.corpus_fingerprint,
        "num_posts": len(pairs.post_ids),
        "criteria": list(pairs.criterion_ids),
        "folds": [_fold_metadata(pairs, fold) for fold in range(1, pairs.num_folds + 1)],
    }


def _fold_metadata(pairs: PairTable, fold: int) -> dict[str, Any]:
    rows, everything = pairs.evaluation_rows(fold), np.flatnonzero(pairs.in_fold_N(fold))
    posts = np.unique(pairs.post_N[everything])
    label_R, criterion_R = pairs.label_N[rows], pairs.criterion_N[rows]
    return {
        "fold": fold,
        "num_posts": len(posts),
        "post_ids": [pairs.post_ids[i] for i in posts],
        "positives": int(pairs.positives_K[fold - 1]),
        "negatives": _negatives_by_source(pairs, rows),
        "negatives_available": _negatives_by_source(pairs, everything),
        "support": {
            name: {
                "positives": int(((criterion_R == index) & (label_R == 1)).sum()),
                "negatives": int(((criterion_R == index) & (label_R == 0)).sum()),
            }
            for index, name in enumerate(pairs.criterion_ids)
        },
    }


def _negatives_by_source(pairs: PairTable, rows: np.ndarray) -> dict[str, int]:
    return {SOURCES[source]: int((pairs.source_N[rows] == source).sum()) for source in (ANNOTATED, SAMPLED)}
