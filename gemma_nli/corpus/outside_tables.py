"""Tables that other tools write or read, as CSV or Parquet: some of the columns that are known, all of them as text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gemma_nli.base.errors import ConfigError, did_you_mean
from gemma_nli.base.files import write_whole
from gemma_nli.corpus.csv_files import csv_line, read_header
from gemma_nli.corpus.file_problems import FileProblems, looks_like_an_id
from gemma_nli.corpus.lined_tables import Record, read_table

_PARQUET = b"PAR1"
ENDINGS = (".csv", ".parquet")


def read_columns(
    path: Path, known: Sequence[str], problems: FileProblems
) -> tuple[tuple[str, ...], tuple[Record, ...]]:
    """(the known columns that the file has, its records); other columns are ignored, with the nearest known name noted
    where none is found.

    A CSV record's line is of the file; a Parquet row counts from 1.
    """
    if _is_parquet(path):
        return _read_parquet(path, known, problems)
    header = read_header(path, known, problems)
    if header is None:
        return (), ()
    found = tuple(column for column in known if column in header.folded)
    if not found:
        problems.add(header.line, _none_of(known, header.names))
        return (), ()
    return found, read_table(path, found, problems).records


def write_columns(frame: pd.DataFrame, path: Path) -> None:
    """Write the table completely or not at all, as the file's ending says.

    Raises:
        ConfigError: another ending, or the file cannot be written.
    """
    check_ending(path)
    buffer = io.BytesIO()
    if path.suffix.casefold() == ".parquet":
        frame.to_parquet(buffer, index=False)
    else:
        rows = [list(frame.columns), *frame.astype(str).itertuples(index=False)]
        buffer.writelines(csv_line(row, end="\n").encode() for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}.") from None


def check_ending(path: Path) -> None:
    if path.suffix.casefold() not in ENDINGS:
        raise ConfigError(f"{path}: the file's ending says its form: {' or '.join(ENDINGS)}.")


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_PARQUET)) == _PARQUET
    except OSError:
        return False  # the reader of CSV says why


def _read_parquet(
    path: Path, known: Sequence[str], problems: FileProblems
) -> tuple[tuple[str, ...], tuple[Record, ...]]:
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(path)
        names = {name.casefold(): name for name in file.schema_arrow.names}
        found = tuple(column for column in known if column in names)
        if not found:
            problems.add(0, _none_of(known, list(names.values())))
            return (), ()
        table = file.read([names[column] for column in found])
    except (ArrowException, OSError) as error:
        problems.add(0, f"is not a Parquet file that can be read ({type(error).__name__}).")
        return (), ()
    columns = [["" if value is None else str(value) for value in table[names[column]].to_pylist()] for column in found]
    rows = enumerate(zip(*columns, strict=True), start=1)
    return found, tuple(Record(row, dict(zip(found, values, strict=True))) for row, values in rows)


def _none_of(known: Sequence[str], names: Sequence[str]) -> str:
    near = did_you_mean(known[0], [name for name in names if looks_like_an_id(name)])
    return f"names none of the columns {', '.join(known)}{near if near.startswith('; did') else '.'}"
