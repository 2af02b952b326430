"""A sweep's pairs and folds in a file for other tools: `gemma-nli folds`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import ConfigError, ReportError
from gemma_nli.base.files import check_target
from gemma_nli.corpus.fold_table import fold_table
from gemma_nli.corpus.outside_tables import check_ending, write_columns
from gemma_nli.spec.spec import load_stored_sweep
from gemma_nli.sweep.prepare import is_confirming
from gemma_nli.sweep.records.noted_corpus import corpus_and_pairs
from gemma_nli.sweep.records.sweep_folder import SweepFolder, find_sweep
from gemma_nli.trial import read_trial

CHANGEABLE = ("data.log_text", "data.negative_ratio", "data.data_dir")
"""What may differ from the sweep's own settings: none of these decides which pairs measure a trial."""


@dataclass(frozen=True)
class WrittenFolds:
    """`pairs`: rows written; `evaluated`: of them measured by a fold."""

    path: Path
    pairs: int
    evaluated: int
    folds: int
    negative_ratio: float
    with_text: bool
    notes: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        texts = "with texts" if self.with_text else "without texts (data.log_text=true adds them)"
        counts = f"{self.pairs:,} pairs, {self.evaluated:,} of them measured, {self.folds} folds"
        ratio = f"{self.negative_ratio:g} training negatives per positive"
        return [f"{self.path}: {counts}, {ratio}, {texts}", *(f"note: {note}" for note in self.notes)]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "notes": list(self.notes)}


def write_folds(name: str, target: Path, changes: Mapping[str, Any], replace: bool = False) -> WrittenFolds:
    """Write the pairs and folds of a sweep started before (`corpus/fold_table.py` has their form).

    Args:
        target: a file that ends in .csv or .parquet.
        changes: settings of `CHANGEABLE`.
    Raises:
        SweepError: no sweep of that name. ConfigError: the target, or another setting. CorpusError: the posts are not
            there. ReportError: they are not those that the sweep was run on.
    """
    check_ending(target)
    check_target(target, replace, "--to")
    for key in changes:
        if key not in CHANGEABLE:
            raise ConfigError(f"{key}: the sweep's folds are fixed; {', '.join(CHANGEABLE)} can be set here.")
    sweep_id, storage = find_sweep(name)
    folder = SweepFolder(storage / "sweeps" / sweep_id)
    folder.pull()
    spec = load_stored_sweep(folder.path / "spec.yaml")
    data = spec.base.with_settings(changes, "command line").data
    corpus, pairs = corpus_and_pairs(data, folder)
    found = (read_trial(storage, key) for key, settings in folder.cells().items() if not is_confirming(settings))
    first = next((record for record in found if record is not None), None)
    if first is not None and first.fold_fingerprint != pairs.fingerprint:
        raise ReportError(
            f"{data.data_dir}: not the posts and annotations that sweep '{name}' was run on, so these would be other "
            "folds; set data.data_dir to where those are."
        )
    notes = []
    if "data.negative_ratio" in spec.space.keys and "data.negative_ratio" not in changes:
        notes.append(
            f"the sweep varies data.negative_ratio; these are the training negatives of {data.negative_ratio:g}, the "
            "base's. data.negative_ratio=R takes others; what is measured is the same."
        )
    worded = corpus.in_words(data.wording) if data.log_text else corpus
    table = fold_table(worded, pairs, data.negative_ratio, data.log_text)
    write_columns(table, target)
    evaluated = int(table["evaluate"].sum())
    return WrittenFolds(
        target, len(table), evaluated, pairs.num_folds, data.negative_ratio, data.log_text, tuple(notes)
    )
