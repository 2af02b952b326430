"""Out-of-fold predictions of any other tool, read from a file and held to the sweep's evaluation pairs.

A CSV (or Parquet) file with one row per evaluation pair, in any order:

| column | what it is |
|---|---|
| `pair_id` | as `gemma-nli folds` writes it |
| `probability`, or `score` | of matched: 0 to 1; a score may be any number, higher for matched |
| `fold` | may be there: the fold that the prediction is out of; must be the one in which the pair is measured |
| `threshold`, or `decision` | may be there: from which probability or score on a pair is called matched; or 0 and 1 |

Letters: N evaluation pairs.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.errors import ReportError
from gemma_nli.corpus.file_problems import FileProblems, has_control_character, named
from gemma_nli.corpus.lined_tables import Record
from gemma_nli.corpus.outside_tables import read_columns
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.training.metrics import best_threshold

Floats = NDArray[np.float64]
VALUES, CUTS = ("probability", "score"), ("threshold", "decision")
COLUMNS = ("pair_id", *VALUES, "fold", *CUTS)
LONGEST_NAME, NAMED_PAIRS = 60, 3
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECISIONS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}


@dataclass(frozen=True)
class OutsidePredictions:
    """`path`: of the file, as given; `value_name`: probability or score; `decided_by`: how its decisions came about."""

    name: str
    path: Path
    value_name: str
    decided_by: str
    decision_N: NDArray[np.bool_]
    score_N: Floats
    sha256: str

    @property
    def about(self) -> str:
        plural = {"probability": "probabilities", "score": "scores"}[self.value_name]
        return f"{plural} of {self.path.name}; {self.decided_by}"


def check_names(names: Sequence[str], taken: Sequence[str]) -> None:
    """
    Args:
        taken: the names of the report's own baselines.
    Raises:
        ReportError: a name is empty, long, given twice, taken, or contains control characters.
    """
    own = {name.casefold(): name for name in taken}
    for name in names:
        if not name.strip() or len(name) > LONGEST_NAME or has_control_character(name):
            raise ReportError(
                f"--with: a name has 1 to {LONGEST_NAME} characters, none of them a control character; got "
                f"{len(name)} in {name[:LONGEST_NAME]!r}."
            )
        if name.casefold() in own:
            raise ReportError(f"--with: '{name}' is a baseline of the report itself; choose another name.")
        if sum(other.casefold() == name.casefold() for other in names) > 1:
            raise ReportError(f"--with: the name '{name}' is given twice; choose another for one of the files.")


def read_predictions(name: str, path: Path, pairs: PairTable, rows_N: NDArray[np.int64]) -> OutsidePredictions:
    """The predictions of one file, in the order of the evaluation pairs `rows_N`.

    Without a threshold or decisions of its own, each fold's threshold has the best F1 on the predictions of the other
    folds, whose posts are others: nothing of a fold decides what it is measured by.

    Raises:
        ReportError: every problem of the file by row: unknown, repeated or missing pairs, values that are NaN or out of
            range, a fold that is not the pair's.
    """
    problems = FileProblems(path.name)
    columns, records = read_columns(path, COLUMNS, problems)
    _check_columns(columns, problems)
    _raise_if_any(name, path, problems)
    reader = _Rows(pairs, rows_N, problems, columns)
    for record in records:
        reader.take(record)
    reader.check_all()
    _raise_if_any(name, path, problems)
    value_name = next(column for column in VALUES if column in columns)
    fold_N = np.asarray(pairs.fold_N[rows_N])
    if "decision" in columns:
        decision_N, decided_by = reader.decision_N, "decisions of the file"
    elif "threshold" in columns:
        decision_N, decided_by = reader.value_N >= reader.threshold_N, "thresholds of the file"
    else:
        decision_N = _decide(reader.value_N, np.asarray(pairs.label_N[rows_N]), fold_N)
        decided_by = "thresholds chosen on the other folds"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return OutsidePredictions(name, path, value_name, decided_by, decision_N, reader.value_N, digest)


def _decide(value_N: Floats, label_N: NDArray[np.int8], fold_N: NDArray[np.int16]) -> NDArray[np.bool_]:
    chosen_N = np.zeros(len(value_N), dtype=bool)
    for fold in np.unique(fold_N):
        here_N = fold_N == fold
        threshold, _ = best_threshold(value_N[~here_N], label_N[~here_N])
        chosen_N[here_N] = value_N[here_N] >= threshold
    return chosen_N


def _check_columns(columns: Sequence[str], problems: FileProblems) -> None:
    if problems.count:
        return
    if "pair_id" not in columns:
        problems.add(1, "column 'pair_id' is missing; `gemma-nli folds` writes the ids of the pairs.")
    for several, one in ((VALUES, True), (CUTS, False)):
        found = [column for column in several if column in columns]
        both = " and ".join(f"'{column}'" for column in several)
        if len(found) > 1:
            problems.add(1, f"has both {both}; keep one of them.")
        elif one and not found:
            problems.add(1, "has neither 'probability' (0 to 1) nor 'score' (any number, higher for matched).")


def _raise_if_any(name: str, path: Path, problems: FileProblems) -> None:
    if problems.count:
        head = f"--with {name}={path}: {problems.count:,} problem{'s' if problems.count != 1 else ''}"
        raise ReportError("\n".join([head, *(f"  {line}" for line in problems.shown())]))


class _Rows:
    """Takes the file's rows one by one into arrays over the evaluation pairs."""

    def __init__(
        self, pairs: PairTable, rows_N: NDArray[np.int64], problems: FileProblems, columns: Sequence[str]
    ) -> None:
        self.ids = pairs.pair_ids(rows_N)
        self.place: Mapping[str, int] = {pair: place for place, pair in enumerate(self.ids)}
        self.fold_N = np.asarray(pairs.fold_N[rows_N])
        self.problems, self.columns = problems, columns
        self.value_name = next(column for column in VALUES if column in columns)
        self.value_N, self.threshold_N = (np.full(len(self.ids), np.nan) for _ in range(2))
        self.decision_N = np.zeros(len(self.ids), dtype=bool)
        self.line_N = np.zeros(len(self.ids), dtype=np.int64)

    def take(self, record: Record) -> None:
        pair = record.values["pair_id"].strip()
        place = self.place.get(pair)
        if place is None:
            what = "is empty" if not pair else f"{named(pair)} is not an evaluation pair of this sweep"
            self.problems.add(record.line, f"pair_id {what}.", "pairs that are not this sweep's")
            return
        if self.line_N[place]:
            first = f"{self.problems.name}:{self.line_N[place]}"
            self.problems.add(record.line, f"pair {named(pair)} occurs again (first in {first}).", "repeated pairs")
            return
        self.line_N[place] = record.line
        self.value_N[place] = self._number(record, self.value_name, pair)
        if self.value_name == "probability" and not 0 <= self.value_N[place] <= 1 and self._real(place):
            self._bad(record, pair, "probability", "is outside 0 to 1; name the column score if it is no probability")
        if "fold" in self.columns:
            self._check_fold(record, place, pair)
        if "threshold" in self.columns:
            self.threshold_N[place] = self._number(record, "threshold", pair)
        if "decision" in self.columns:
            text = record.values["decision"].strip().casefold()
            if text not in _DECISIONS:
                self._bad(record, pair, "decision", "must be 0 or 1")
            self.decision_N[place] = _DECISIONS.get(text, False)

    def check_all(self) -> None:
        """Pairs that no row predicts."""
        lacking = np.flatnonzero(self.line_N == 0)
        if len(lacking):
            first = ", ".join(named(self.ids[place]) for place in lacking[:NAMED_PAIRS])
            more = f" and {len(lacking) - NAMED_PAIRS:,} more" if len(lacking) > NAMED_PAIRS else ""
            self.problems.add(
                0,
                f"has no row for {len(lacking):,} of the {len(self.ids):,} evaluation pairs: {first}{more}; predict "
                "every pair with evaluate = 1.",
            )

    def _real(self, place: int) -> bool:
        return math.isfinite(self.value_N[place])

    def _number(self, record: Record, column: str, pair: str) -> float:
        text = record.values[column].strip()
        if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        if not text:
            what = "is empty"
        elif text.casefold() in ("nan", "none", "null", "na", "<na>"):
            what = "is NaN"
        elif text.casefold().lstrip("+-") in ("inf", "infinity") or _NUMBER.fullmatch(text):
            what = "is infinite"
        else:
            what = "is not a number (with a decimal point)"
        self._bad(record, pair, column, what)
        return math.nan

    def _check_fold(self, record: Record, place: int, pair: str) -> None:
        text, own = record.values["fold"].strip(), int(self.fold_N[place])
        whole = float(text) if _NUMBER.fullmatch(text) else math.nan
        if whole != own:
            given = text if len(text) < 10 and whole == whole else "no fold"
            self._bad(
                record, pair, "fold", f"is {given}, but this pair is measured in fold {own}; a prediction must be of a "
                f"model that was not trained on fold {own} (folds count from 1)",
            )  # fmt: skip

    def _bad(self, record: Record, pair: str, column: str, what: str) -> None:
        self.problems.add(record.line, f"{column} of pair {named(pair)} {what}.", f"wrong values of {column}")
