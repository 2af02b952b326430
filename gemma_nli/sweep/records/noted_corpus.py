"""A sweep's corpus and pairs, read again after it has run: from the posts, or without them from what it noted."""

from __future__ import annotations

from gemma_nli.config import DataConfig, expanded
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.corpus.sealed import training_corpus
from gemma_nli.corpus.stored_pairs import without_texts
from gemma_nli.sweep.records.sweep_folder import SweepFolder


def corpus_and_pairs(data: DataConfig, folder: SweepFolder) -> tuple[Corpus, PairTable]:
    """Where the posts' folder is not on this machine, and no text of them is asked for, the corpus is of ids alone.

    Raises:
        CorpusError: the posts cannot be read, or are not here and the sweep's folder has no pairs.
    """
    if not data.log_text and not expanded(data.data_dir).exists():
        pairs = folder.pairs()
        if pairs is not None:
            return without_texts(pairs), pairs
    corpus = training_corpus(data)
    return corpus, build_pairs(corpus, data)
