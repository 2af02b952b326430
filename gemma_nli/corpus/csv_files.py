"""CSV as RFC 4180 writes it: read strictly, record by record, in bounded memory; what is written reads back equal.

One reader for corpora and for `gemma-nli predict`. UTF-8, with or without a byte order mark; lines end in CRLF or LF
(or all in CR alone); semicolons, tabs and bars are accepted if only they separate the header's names. Anything that two
readers could read differently is reported as a problem with its line. Problems never quote a field's text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma_nli.base.errors import did_you_mean
from gemma_nli.corpus.file_problems import FileProblems, looks_like_an_id

SEPARATORS = (",", ";", "\t", "|")
BOM = "\ufeff"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
_NO_TEXT = {
    b"PK\x03\x04": "an Excel or zip file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "a SQLite database",
}
"""How files of other kinds begin that are passed as a table."""
_UNREADABLE = "broken quoting, or a line break outside quotes; write a quote in a field as two, and quote that field."
_UNCLOSED = "a quote is never closed; write a quote in a field as two. The file was not read past this record."
_AFTER_QUOTE = (
    "broken quoting: text follows a closing quote; write a quote in a field as two. "
    "The file was not read past this record."
)


@dataclass(frozen=True)
class CsvHeader:
    """A file's first record: its column names as written (outer blanks off), and what separates them."""

    line: int
    names: tuple[str, ...]
    separator: str

    @property
    def folded(self) -> list[str]:
        """The names as compared: case-insensitive."""
        return [name.casefold() for name in self.names]


def read_header(path: Path, known: Sequence[str], problems: FileProblems) -> CsvHeader | None:
    """The header, split by the separator that gives most of the `known` names (lower case); in doubt a comma.

    None, with the reason in `problems`, if the file cannot be read, is empty, or names a column twice.
    """
    if not is_there(path, problems):
        return None
    found: list[CsvHeader] = []
    for separator in SEPARATORS:
        records = (record for record in _records(path, separator, FileProblems(path.name)) if record[1] != [])
        line, names = next(records, (1, []))
        if names is not None:
            found.append(CsvHeader(line, tuple(name.strip().strip(BOM).strip() for name in names), separator))
    if not any(set(known) & set(header.folded) for header in found) and _is_json(path):
        problems.add(1, "is JSON; save the table as CSV, with the column names in its first line.")
        return None
    if not found:
        next(_records(path, ",", problems), None)  # says what is wrong with the first record
        return None
    best = max(found, key=lambda header: len(set(known) & set(header.folded)))
    if not any(best.names):
        what = "the first record names no columns" if best.names else "is empty"
        problems.add(best.line, f"{what}; expected the columns {', '.join(known)}.")
        return None
    foreign = _no_header(best)
    if foreign:
        problems.add(best.line, foreign)
        return None
    for name in dict.fromkeys(best.folded):
        if name and best.folded.count(name) > 1:
            shown = f"'{name}'" if looks_like_an_id(name) else f"of {len(name)} characters"
            problems.add(best.line, f"column {shown} occurs {best.folded.count(name)} times; keep one.")
    return best if not problems.count else None


def _no_header(found: CsvHeader) -> str:
    """What the first record of another kind of file looks like; empty if it may name columns."""
    first = found.names[0]
    if any("\0" in name for name in found.names):
        return "contains NUL characters (UTF-16 without a byte order mark, or not text); save it as UTF-8."
    if first.casefold().startswith("sep=") and not any(found.names[1:]):
        return "is Excel's 'sep=' line, not the column names; delete it, the separator is detected without it."
    return ""


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return re.match(rb'(\xef\xbb\xbf)?\s*\[?\s*\{\s*"', file.read(64)) is not None


def read_rows(path: Path, header: CsvHeader, problems: FileProblems) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each valid record after the header; the others go to `problems`.

    Blank lines are left out. In a file of one column a blank line before the last record is that column, empty.
    """
    width, blank = len(header.names), list[int]()
    for line, fields in _records(path, header.separator, problems):
        if line <= header.line or fields is None:
            continue
        if not fields:
            if width == 1:
                blank.append(line)
            continue
        yield from ((earlier, [""]) for earlier in blank)
        blank.clear()
        if len(fields) != width:
            count = f"has {len(fields)} field{'s' if len(fields) != 1 else ''}, the header has {width}"
            problems.add(
                line,
                f"{count}; a field with a separator, quote or line break must be quoted.",
                "a different number of fields",
            )
        else:
            yield line, fields


def missing_column(column: str, header: CsvHeader, known: Sequence[str]) -> str:
    """The sentence for a missing column, with the nearest name that exists."""
    others = [name for name in header.names if looks_like_an_id(name) and name.casefold() not in known]
    near = did_you_mean(column, others)
    return f"column '{column}' is missing{near if near.startswith('; did') else '.'}"


def csv_line(fields: Sequence[str], separator: str = ",", end: str = "\r\n") -> str:
    """A record that every RFC 4180 reader reads back equal, a lone CR and a leading byte order mark included."""
    special = (separator, '"', "\r", "\n")
    parts = [
        '"' + value.replace('"', '""') + '"'
        if any(mark in value for mark in special) or value.startswith(BOM) or value != value.strip()
        else value
        for value in fields
    ]
    return (separator.join(parts) if parts != [""] else '""') + end


def is_there(path: Path, problems: FileProblems) -> bool:
    """Whether the file can be opened and is not obviously another kind of file; the reason goes to `problems`."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.iterdir() if p.suffix == path.suffix] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings)
        problems.add(0, f"no such file{near if near.startswith('; did') else '.'}")
        return False
    except OSError as error:
        problems.add(0, f"cannot be read: {error.strerror}.")
        return False
    kind = next((kind for mark, kind in _NO_TEXT.items() if start.startswith(mark)), "")
    if kind:
        problems.add(0, f"is {kind}; unpack it, or save the table as CSV in UTF-8.")
        return False
    if start.startswith(_WIDE_BOMS):
        problems.add(1, "not UTF-8 (this is UTF-16); save it as UTF-8.")
        return False
    return True


def _lines(path: Path, problems: FileProblems) -> Iterator[str]:
    """Physical lines with their ends; bad bytes and NULs are problems, and replaced so that the rest can be checked."""
    with path.open("rb") as file:
        for number, raw in enumerate(_split(file), start=1):
            data = raw.removeprefix(BOM.encode()) if number == 1 else raw
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"0x{data[error.start]:02x} at byte {error.start + 1} of the line"
                problems.add(number, f"not UTF-8 ({byte}); save it as UTF-8.", "not UTF-8")
                text = data.decode("utf-8", errors="replace")
            if "\0" in text:
                problems.add(number, "contains a NUL character; the file is damaged or not text.")
            yield text


def _split(file: Iterator[bytes]) -> Iterator[bytes]:
    """Lines end at LF, as editors count them; in a file with only CR, at CR."""
    first = next(file, b"")
    if first and not first.endswith(b"\n") and b"\r" in first:
        yield from (line + b"\r" for line in first.split(b"\r"))
    elif first:
        yield from itertools.chain([first], file)


def _records(path: Path, separator: str, problems: FileProblems) -> Iterator[tuple[int, list[str] | None]]:
    """(first line, fields) of each record, [] of a blank line, None of one that breaks RFC 4180.

    Text after a closing quote ends the reading: what follows cannot be distinguished from text.
    """
    lines, number = _lines(path, problems), 0
    for line in lines:
        number += 1
        start, body = number, _body(line)
        if '"' not in body and "\r" not in body:
            yield start, body.split(separator) if body else []
            continue
        fields, place, well_formed = list[str](), 0, True
        while True:
            if body.startswith('"', place):
                parts, place = list[str](), place + 1
                while (quote := body.find('"', place)) < 0 or body.startswith('"', quote + 1):
                    if quote >= 0:
                        parts.append(body[place : quote + 1])
                        place = quote + 2
                        continue
                    parts.append(line[place:])
                    following = next(lines, None)
                    if following is None:
                        problems.add(start, _UNCLOSED)
                        yield start, None
                        return
                    number, line, place = number + 1, following, 0
                    body = _body(line)
                parts.append(body[place:quote])
                place = quote + 1
                if place < len(body) and body[place] != separator:
                    problems.add(start, _AFTER_QUOTE)
                    yield start, None
                    return
                fields.append("".join(parts))
            else:
                stop = body.find(separator, place)
                stop = len(body) if stop < 0 else stop
                well_formed = well_formed and not ('"' in body[place:stop] or "\r" in body[place:stop])
                fields.append(body[place:stop])
                place = stop
            if place >= len(body):
                break
            place += 1
        if not well_formed:
            problems.add(start, _UNREADABLE)
        yield start, fields if well_formed else None


def _body(line: str) -> str:
    """The line without its end: CRLF, LF, or CR if the file has no other (or ends in half a CRLF)."""
    return line.removesuffix("\n").removesuffix("\r")
