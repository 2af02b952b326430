"""`gemma-nli predict`: a CSV of pairs, or of posts alone, scored batch by batch in bounded memory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gemma_nli.errors import ConfigError, CorpusError, did_you_mean
from gemma_nli.serving import COLUMNS, PairScorer

ALIASES = {"text": "premise", "post": "premise", "criterion": "hypothesis", "criterion_text": "hypothesis"}
CHUNK = 2000  # rows held at a time


@dataclass(frozen=True)
class Predicted:
    rows: int
    columns: tuple[str, ...]  # that were added


def predict_file(
    scorer: PairScorer,
    source: Path,
    target: Path,
    chunk: int = CHUNK,
    told: Callable[[int], object] | None = None,
    replace: bool = False,
) -> Predicted:
    """Write `source` with its scores to `target`, whole or not at all; rows keep their order, other columns stay.

    With `premise` and `hypothesis` (or `text`, `criterion`) a row gets `probability` and `label`; with `premise` alone
    it gets a probability for each criterion the model knows.

    Args:
        chunk: rows in memory at a time.
        told: called with the rows done so far.
        replace: write over a file that is there.
    Raises:
        ConfigError: a file or column is missing, a value is no text, or the target is there.
        CorpusError: the file is no CSV. No message holds a text.
    """
    if target.exists() and not replace:
        raise ConfigError(f"--output: {target} is there already; name another file, or --replace it.")
    if not source.is_file():
        raise ConfigError(f"--input: {source}: no such file.")
    names = _header(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    rows, added = 0, tuple[str, ...]()
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            for table in _chunks(source, chunk):
                scores = _score(scorer, table.rename(columns=names), rows)
                clash = sorted(set(scores.columns) & set(table.columns))
                if clash:
                    raise ConfigError(f"--input: {source} has a column '{clash[0]}' already; rename it.")
                pd.concat([table, scores], axis=1).to_csv(out, header=rows == 0, index=False)
                rows, added = rows + len(table), tuple(map(str, scores.columns))
                if told is not None:
                    told(rows)
        if not rows:
            raise ConfigError(f"--input: {source} has a header but no rows.")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return Predicted(rows, added)


def count_rows(source: Path) -> int:
    """Records of a CSV file, its header left out; a quoted field may hold line breaks."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as lines:
            csv.field_size_limit(2**31 - 1)
            return max(0, sum(1 for _ in csv.reader(lines)) - 1)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{source}: cannot be read as CSV ({type(error).__name__}).") from None


def _header(source: Path) -> dict[str, str]:
    """Names in the file to ours; raises ConfigError where there is no post."""
    try:
        names = list(pd.read_csv(source, nrows=0, encoding="utf-8-sig").columns)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise CorpusError(f"{source}: cannot be read as CSV ({type(error).__name__}).") from None
    mapping = {name: ALIASES[name] for name in names if name in ALIASES and ALIASES[name] not in names}
    if len(set(mapping.values())) < len(mapping):
        raise ConfigError(f"--input: {source}: columns {', '.join(mapping)} mean the same; keep one of them.")
    if "premise" not in {mapping.get(name, name) for name in names}:
        hint = did_you_mean("premise", names)
        raise ConfigError(f"--input: {source}: needs a column premise (and hypothesis, unless for all criteria){hint}")
    return mapping


def _chunks(source: Path, chunk: int) -> Iterator[pd.DataFrame]:
    try:
        with pd.read_csv(source, chunksize=chunk, dtype=str, keep_default_na=False, encoding="utf-8-sig") as reader:
            yield from (table.reset_index(drop=True) for table in reader)
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise CorpusError(f"{source}: cannot be read as CSV ({type(error).__name__}).") from None


def _score(scorer: PairScorer, table: pd.DataFrame, before: int) -> pd.DataFrame:
    empty = table.index[table["premise"].str.strip() == ""]
    if len(empty):
        raise ConfigError(f"--input: row {before + int(empty[0]) + 1} has an empty premise; fill it or drop the row.")
    return scorer.answer(table[[name for name in COLUMNS if name in table.columns]])
