"""Files of a corpus, read with the line of every record and every problem; problems never quote a field's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma_nli.corpus.csv_files import is_there, missing_column, read_header, read_rows
from gemma_nli.corpus.file_problems import FileProblems


@dataclass(frozen=True)
class Record:
    line: int  # of the physical file, where the record starts
    values: dict[str, str]


@dataclass(frozen=True)
class Table:
    records: tuple[Record, ...]
    whole: bool  # False if the file was missing or could not be read to its end


def read_text(path: Path, problems: FileProblems) -> str | None:
    """A UTF-8 file's text (a byte order mark is removed), or None with the reason in `problems`.

    Each wrongly encoded line is a problem; their bad bytes are replaced, so that the rest can still be checked.
    """
    if not is_there(path, problems):
        return None
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x} at byte {error.start + 1} of the line"
                problems.add(number, f"not UTF-8 ({byte}); save it as UTF-8.", "not UTF-8")
        return data.decode("utf-8-sig", errors="replace")


def read_table(path: Path, columns: Sequence[str], problems: FileProblems) -> Table:
    """The records of a CSV file that has at least `columns`, in any case; other columns are ignored."""
    folded = [column.casefold() for column in columns]
    header = read_header(path, folded, problems)
    if header is None:
        return Table((), whole=False)
    names = header.folded
    missing = [column for column in columns if column.casefold() not in names]
    if len(missing) == len(columns):
        problems.add(header.line, f"names none of the columns {', '.join(columns)}; the first line must name them.")
    else:
        for column in missing:
            problems.add(header.line, missing_column(column, header, folded), "a missing column")
    if missing:
        return Table((), whole=False)
    before = problems.count
    places = {column: names.index(column.casefold()) for column in columns}
    records = tuple(
        Record(line, {column: fields[place] for column, place in places.items()})
        for line, fields in read_rows(path, header, problems)
    )
    return Table(records, whole=problems.count == before)
