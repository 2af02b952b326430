"""The pairs that a trial uses."""

from __future__ import annotations

from pathlib import Path

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable, pair_texts
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.tracking.write.artifact import TrialSource, trial_artifact, write_shared

PAIRS = "nli_pairs.csv"


@trial_artifact(PAIRS)
def trial_pairs(source: TrialSource) -> Path:
    return pairs_file(source.record.config, source.corpus, source.pairs, source.shared)


def pairs_file(config: RunConfig, corpus: Corpus, pairs: PairTable, shared: Path) -> Path:
    """All pairs that a trial with this ratio uses: ids, label, source, fold; texts only if `data.log_text` allows
    it.
    """
    ratio, with_text = config.data.negative_ratio, config.data.log_text

    def table() -> bytes:
        rows = pairs.rows_used(ratio)
        frame = pairs.frame(rows)
        if with_text:
            frame["premise"], frame["hypothesis"] = pair_texts(corpus.in_words(config.data.wording), pairs, rows)
        return frame.to_csv(index=False).encode()

    texts = f"_{config.data.wording}_text" if with_text else ""
    return write_shared(shared, f"nli_pairs_{ratio:g}{texts}.csv", table)
