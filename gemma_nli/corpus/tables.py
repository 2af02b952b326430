"""CSV files read with the line of every record and every fault told; no field's text is ever quoted in a fault."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gemma_nli.errors import did_you_mean

_ID_LIKE = re.compile(r"[\w.:-]{1,64}")
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass
class FileProblems:
    """What is wrong with one file, as `name:line: what` lines, in the order found."""

    name: str
    lines: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, what: str) -> None:
        self.lines.append((line, what))

    def shown(self, limit: int) -> list[str]:
        """At most `limit` lines by line number, then how many were left out."""
        ordered = sorted(self.lines, key=lambda item: item[0])
        texts = [f"{self.name}:{line}: {what}" if line else f"{self.name}: {what}" for line, what in ordered[:limit]]
        rest = len(ordered) - limit
        return [*texts, f"{self.name}: ... and {rest} more like these."] if rest > 0 else texts


@dataclass(frozen=True)
class Record:
    line: int  # of the physical file, where the record starts
    values: dict[str, str]


@dataclass(frozen=True)
class Table:
    records: tuple[Record, ...]
    whole: bool  # False where the file was missing or had to be left before its end


def named(value: str) -> str:
    """A quoted id, or only its length: a value that does not look like an id may be a post's text."""
    return repr(value) if _ID_LIKE.fullmatch(value) else f"of {len(value)} characters"


def read_text(path: Path, problems: FileProblems) -> str | None:
    """A UTF-8 file's text (a byte order mark is taken off), or None with the reason in `problems`.

    Wrongly encoded lines are each a problem; their bad bytes are replaced, so that the rest can still be checked.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.iterdir() if p.suffix == path.suffix] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings)
        problems.add(0, f"no such file{near if near.startswith('; did') else '.'}")
        return None
    except OSError as error:
        problems.add(0, f"cannot be read: {error.strerror}.")
        return None
    if data.startswith(_WIDE_BOMS):
        problems.add(1, "not UTF-8 (this is UTF-16); save it again as UTF-8.")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x} at byte {error.start + 1} of the line"
                problems.add(number, f"not UTF-8 ({byte}); save it again as UTF-8.")
        return data.decode("utf-8-sig", errors="replace")


def read_table(path: Path, columns: Sequence[str], problems: FileProblems) -> Table:
    """The records of an RFC 4180 file that has at least `columns`; other columns are ignored.

    Malformed quoting ends the reading, since what follows cannot be told apart from text; `whole` is then False.
    """
    text = read_text(path, problems)
    if text is None:
        return Table((), whole=False)
    for number, line_text in enumerate(text.split("\n"), start=1):
        if "\0" in line_text:
            problems.add(number, "holds a NUL character; the file is damaged or not text.")
    with _unlimited_fields():
        rows = _numbered(text, problems)
        line, header = next(rows, (1, []))
        names = [name.strip() for name in header or ()]
        if header == []:
            problems.add(line, f"is empty; expected the columns {', '.join(columns)}.")
        if not header or not _check_header(line, names, columns, problems):
            return Table((), whole=False)
        return _records(rows, names, problems)


def _records(rows: Iterator[tuple[int, list[str] | None]], names: list[str], problems: FileProblems) -> Table:
    records, whole = [], True
    for line, values in rows:
        if values is None:
            whole = False
        elif len(values) != len(names):
            count = f"has {len(values)} field{'s' if len(values) != 1 else ''}, the header has {len(names)}"
            problems.add(line, f"{count}; a field with a comma, quote or line break must be quoted.")
            whole = False
        else:
            records.append(Record(line, dict(zip(names, values, strict=True))))
    return Table(tuple(records), whole)


def _numbered(text: str, problems: FileProblems) -> Iterator[tuple[int, list[str] | None]]:
    """(line, fields) of each record, blank lines left out; ends with (line, None) where the quoting is broken."""
    # Lines end at \n alone, as editors count them, unless the file knows only \r.
    reader = csv.reader(io.StringIO(text, newline="\n" if "\n" in text else ""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = (
                "a quote is never closed"
                if "end of data" in str(error)
                else "broken quoting, or a line break outside quotes"
            )
            problems.add(line, f"{what}; write a quote in a field as two. The file was not read past this record.")
            yield line, None
            return
        if fields:
            yield line, fields


def _check_header(line: int, names: list[str], columns: Sequence[str], problems: FileProblems) -> bool:
    sayable = [name for name in names if _ID_LIKE.fullmatch(name)]
    before = len(problems.lines)
    for column in columns:
        if column not in names:
            near = did_you_mean(column, [name for name in sayable if name not in columns])
            problems.add(line, f"column '{column}' is missing{near if near.startswith('; did') else '.'}")
        elif names.count(column) > 1:
            problems.add(line, f"column '{column}' is there {names.count(column)} times.")
    return len(problems.lines) == before


@contextmanager
def _unlimited_fields() -> Iterator[None]:
    """Posts may be longer than the csv module's 131,072 characters; its limit is global, so it is put back."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
