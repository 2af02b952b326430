"""An artifact of a trial: a function under a decorator that says its file's name; every file of `artifacts/` is asked.

An artifact is made from the trial's record alone, so that a run can be projected again from its journal, byte for byte.
It contains ids and numbers, and text of posts only if `data.log_text` allows it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_nli.base.files import write_whole
from gemma_nli.base.part_registry import Registry
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.training.results import FoldResult
from gemma_nli.trial import TrialRecord

Content = bytes | Path
_FOLD = "{fold}"
_NAME = re.compile(r"[\w-]+(\.[\w-]+)+")


@dataclass(frozen=True)
class TrialSource:
    """What artifacts are made from.

    Args:
        record: the journal as it is now; a trial that still runs has the folds that have ended.
        shared: a folder for files that many trials have in common.
    """

    record: TrialRecord
    corpus: Corpus
    pairs: PairTable
    shared: Path


OfTrial = Callable[[TrialSource], Content | None]
OfFold = Callable[[TrialSource, FoldResult], Content | None]
TRIAL_ARTIFACTS: Registry[OfTrial] = Registry("artifact")
FOLD_ARTIFACTS: Registry[OfFold] = Registry("artifact")


def trial_artifact(name: str) -> Callable[[OfTrial], OfTrial]:
    """Register an artifact of a whole trial; its function returns None while there is none.

    Args:
        name: of the file, as `aggregate_results.json`.
    Raises:
        TypeError: it is no file's name, or another artifact has it.
    """
    _check(name, name)
    return TRIAL_ARTIFACTS.part(name, reads=())


def fold_artifact(name: str) -> Callable[[OfFold], OfFold]:
    """Register an artifact of each fold that has ended; its function returns None where there is none.

    Args:
        name: of the file, as `fold_{fold}_history.json`.
    Raises:
        TypeError: it is no file's name with `{fold}` once, or another artifact has it.
    """
    _check(name, name.replace(_FOLD, "1", 1))
    if _FOLD not in name:
        raise TypeError(f"artifact '{name}': the folds would overwrite each other's; write {_FOLD} where its number is")
    return FOLD_ARTIFACTS.part(name, reads=())


def _check(name: str, filled: str) -> None:
    if not _NAME.fullmatch(filled):
        raise TypeError(f"artifact '{name}': name a file, with letters, digits, _ and - and an ending, as 'curve.json'")


def write_shared(folder: Path, name: str, content: Callable[[], bytes]) -> Path:
    """A file that many trials have in common, made once."""
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, content())
    return path


def to_json(value: Any) -> bytes:
    """Strict JSON: a NaN becomes null."""
    return json.dumps(_plain(value), indent=1, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
