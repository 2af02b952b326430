"""`gemma-nli predict`: a CSV of pairs, or of posts alone, scored batch by batch in bounded memory.

The file is read by the corpora's own strict reader (`corpus/csv_files.py`): each row is scored exactly as
written, or the file is refused with every invalid line.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gemma_nli.base.errors import ConfigError, CorpusError
from gemma_nli.base.files import check_target, put_in_place, unfinished
from gemma_nli.corpus.csv_files import CsvHeader, csv_line, missing_column, read_header, read_rows
from gemma_nli.corpus.file_problems import FileProblems
from gemma_nli.model.bundles.scorer import COLUMNS, PairScorer, strangers_note

ALIASES = {"text": "premise", "post": "premise", "criterion": "hypothesis", "criterion_text": "hypothesis"}
KNOWN = (*COLUMNS, *ALIASES)
CHUNK = 2000  # rows held at a time


@dataclass(frozen=True)
class Predicted:
    rows: int
    columns: tuple[str, ...]  # that were added
    note: str = ""  # on pairs whose criterion has no threshold of its own


def predict_file(
    scorer: PairScorer,
    source: Path,
    target: Path,
    chunk: int = CHUNK,
    on_progress: Callable[[int], object] | None = None,
    replace: bool = False,
) -> Predicted:
    """Write `source` with its scores to `target`, completely or not at all; rows keep their order, other columns stay.

    With `premise` and `hypothesis` (or `text`, `criterion`; in any case) a row gets `probability` and `label`; with
    `premise` alone it gets a probability and a label for each criterion that the model knows, and the threshold. A
    model whose criteria have thresholds of their own adds what decided each pair. The output has the input's separator,
    and is read back equal.

    Args:
        chunk: rows held in memory at a time.
        on_progress: called with the rows done so far.
        replace: overwrite an existing file.
    Raises:
        ConfigError: the file is missing, the target exists or cannot be written, or a column has the name of a score.
        CorpusError: every line of the file that is not strict CSV or lacks a text. No message contains a text.
    """
    check_target(target, replace, "--output")
    problems = FileProblems(source.name)
    header, places = _columns(source, problems)
    added = scorer.answer_columns(places)
    clash = [name for name in added if name.casefold() in header.folded]
    if clash:
        raise ConfigError(f"--input: {source} has a column '{clash[0]}' already; rename it.")
    done, before = 0, scorer.strangers
    with unfinished(target.parent, f".{target.name}.") as part:
        with part.open("w", encoding="utf-8", newline="") as out:
            out.write(csv_line([*header.names, *added], header.separator, "\n"))
            for rows in _batched(_sound_rows(source, header, places, problems), chunk):
                if problems.count:
                    continue  # only read further for other problems
                scores = scorer.answer(pd.DataFrame({name: [row[at] for row in rows] for name, at in places.items()}))
                cells = zip(*(map(str, scores[name].tolist()) for name in added), strict=True)
                out.writelines(
                    csv_line([*row, *more], header.separator, "\n") for row, more in zip(rows, cells, strict=True)
                )
                done += len(rows)
                if on_progress is not None:
                    on_progress(done)
        _refuse_any(source, problems, done)
        put_in_place(part, target)
    strangers = scorer.strangers - before
    return Predicted(done, tuple(added), strangers_note(strangers, scorer.bundle.threshold) if strangers else "")


def count_rows(source: Path) -> int:
    """How many rows will be scored; the whole file is read and checked.

    Raises:
        ConfigError, CorpusError: as in `predict_file`.
    """
    problems = FileProblems(source.name)
    header, places = _columns(source, problems)
    rows = sum(1 for _ in _sound_rows(source, header, places, problems))
    _refuse_any(source, problems, rows)
    return rows


def _columns(source: Path, problems: FileProblems) -> tuple[CsvHeader, dict[str, int]]:
    """The header, and where `premise` (and `hypothesis`, if present) are in a row."""
    if not source.is_file():
        raise ConfigError(f"--input: {source}: no such file.")
    header = read_header(source, KNOWN, problems)
    places: dict[str, int] = {}
    for column in COLUMNS:
        names = header.folded if header is not None else []
        found = [column] if column in names else [name for name in names if ALIASES.get(name) == column]
        if len(found) > 1:
            problems.add(1, f"columns {', '.join(found)} mean the same; keep one of them.")
        elif found:
            places[column] = names.index(found[0])
    if header is not None and "premise" not in places and not problems.count:
        what = missing_column("premise", header, KNOWN)
        problems.add(header.line, f"{what} A file needs premise (and hypothesis, unless all criteria are scored).")
    if header is not None and "hypothesis" not in places:
        near = difflib.get_close_matches("hypothesis", header.folded, n=1, cutoff=0.8)
        if near:
            problems.add(
                header.line, f"column '{near[0]}' is not read; name it hypothesis, or remove it to score all criteria."
            )
    _refuse_any(source, problems)
    assert header is not None
    return header, places


def _sound_rows(source: Path, header: CsvHeader, places: dict[str, int], problems: FileProblems) -> Iterator[list[str]]:
    for line, row in read_rows(source, header, problems):
        empty = [name for name, at in places.items() if not row[at].strip()]
        for name in empty:
            problems.add(line, f"has an empty {name}; fill it or drop the row.")
        if not empty:
            yield row


def _batched(rows: Iterator[list[str]], size: int) -> Iterator[Sequence[list[str]]]:
    while batch := list(itertools.islice(rows, size)):
        yield batch


def _refuse_any(source: Path, problems: FileProblems, rows: int | None = None) -> None:
    if rows == 0 and not problems.count:
        problems.add(1, "has a header but no rows.")
    if problems.count:
        head = f"--input: {source}: {problems.count} problem{'s' if problems.count != 1 else ''}"
        raise CorpusError("\n".join([head, *(f"  {line}" for line in problems.shown())]))
