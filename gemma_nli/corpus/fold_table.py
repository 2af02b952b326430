"""A corpus's pairs and folds as one table, from which any tool can train and predict as the trials do.

One row per pair that some fold trains on or measures. For fold k

    train on    train = 1 and fold != k          (to tune on an inner split: without inner = (k - 1) % 5 + 1)
    tune on     evaluate = 1 and fold != k and inner = (k - 1) % 5 + 1
    measure on  evaluate = 1 and fold = k

Negatives are the trials' own, annotated and sampled. `group` is the same for a post and its copies, which are always in
one fold.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gemma_nli.corpus.pairs import PairTable, pair_texts
from gemma_nli.corpus.redsm5 import Corpus


def fold_table(corpus: Corpus, pairs: PairTable, negative_ratio: float, with_text: bool) -> pd.DataFrame:
    """The columns pair_id, post_id, group, criterion_id, label, source, fold, inner, train and evaluate.

    Args:
        negative_ratio: training negatives per positive.
        with_text: premise (the post) and hypothesis (the criterion) too; only where `data.log_text` allows it.
    """
    rows = pairs.rows_used(negative_ratio)
    measured = np.concatenate([pairs.evaluation_rows(fold) for fold in range(1, pairs.num_folds + 1)])
    table = pairs.frame(rows)
    table.insert(2, "group", [pairs.post_ids[post] for post in pairs.group_N[rows]])
    table["inner"] = pairs.inner_N[rows].astype(np.int64) + 1
    table["train"] = np.isin(rows, pairs.all_rows(negative_ratio)).astype(np.int64)
    table["evaluate"] = np.isin(rows, measured).astype(np.int64)
    if with_text:
        table["premise"], table["hypothesis"] = pair_texts(corpus, pairs, rows)
    return table
