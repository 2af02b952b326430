"""The artifacts of a trial: a file each. Another one is another file, and every run has it."""

from pathlib import Path

from gemma_nli.base.part_registry import import_parts
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.tracking.write.artifact import FOLD_ARTIFACTS, TRIAL_ARTIFACTS, Content, TrialSource
from gemma_nli.trial import TrialRecord

import_parts(__name__)


def artifacts_of(record: TrialRecord, corpus: Corpus, pairs: PairTable, shared: Path) -> dict[str, Content]:
    """Each artifact that the trial has by now, by its file's name.

    Args:
        shared: a folder for files that many trials have in common.
    """
    source = TrialSource(record, corpus, pairs, shared)
    made = {name: make(source) for name, make in TRIAL_ARTIFACTS.items()}
    for number, fold in sorted(record.folds.items()):
        made |= {name.format(fold=number): make(source, fold) for name, make in FOLD_ARTIFACTS.items()}
    return {name: content for name, content in made.items() if content is not None}
