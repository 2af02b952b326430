"""How posts are divided into folds."""

from __future__ import annotations

from pathlib import Path

from gemma_nli.corpus.folds_metadata import folds_metadata
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.tracking.write.artifact import TrialSource, to_json, trial_artifact, write_shared

FOLDS = "nli_cv_folds_metadata.json"


@trial_artifact(FOLDS)
def trial_folds(source: TrialSource) -> Path:
    return folds_file(source.pairs, source.shared)


def folds_file(pairs: PairTable, shared: Path) -> Path:
    return write_shared(shared, FOLDS, lambda: to_json(folds_metadata(pairs)))
