"""Which texts a trial needs: each row finds its own, and rows that were not asked for find none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.training.trial_texts import trial_texts

CORPUS = synthetic_corpus(12, seed=3)


@pytest.mark.parametrize("encoding", ["joint", "separate"])
def test_each_row_finds_its_own_post_and_criterion_and_no_other_row_finds_any(encoding: str, tiny_bert: Path) -> None:
    settings = {"model.name": str(tiny_bert), "model.pair_encoding": encoding, "data.num_folds": 3}
    config = RunConfig().with_settings(settings)
    pairs = build_pairs(CORPUS, config.data)
    rows = np.arange(len(pairs))[::-3]
    asked = trial_texts(config, CORPUS, pairs, rows)
    found = asked.sides_at(1000 + np.arange(len(asked.premises)))  # as if text m stood in row 1000 + m of a block
    assert len(asked.sides) == len(found) == (1 if encoding == "joint" else 2)
    for row in rows:
        post = CORPUS.posts[pairs.post_ids[pairs.post_N[row]]]
        criterion = CORPUS.criteria[pairs.criterion_ids[pairs.criterion_N[row]]]
        texts = [asked.premises[side[row] - 1000] for side in found]
        if asked.hypotheses is not None:
            texts.append(asked.hypotheses[asked.sides[0][row]])
        assert texts == [post, criterion]
    if encoding == "joint":
        (side,) = found
        assert (np.delete(side, rows) == -1).all()
