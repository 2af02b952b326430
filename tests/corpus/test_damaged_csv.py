"""200 damaged tables: each is read as a strict RFC 4180 reader reads it, or refused by line."""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gemma_nli.base.errors import CorpusError
from gemma_nli.corpus.csv_files import csv_line, read_header, read_rows
from gemma_nli.corpus.file_problems import FileProblems
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.local.predict import count_rows
from tests.commands import run_command

HEADER = ["post_id", "text", "criterion"]
ROWS = [
    ["p1", "i feel sad, and tired", "fatigue"],
    ["p2", 'she said "go on", so i did', "mood"],
    ["p3", "first line\nsecond line\r\n\nfourth; line", "sleep"],
    ["p4", "plain words", "mood"],
    ["p5", "café, naïve, 日本 😢", "worth"],
    ["p6", " blanks around ", "fatigue"],
    ["p7", "a lone\rreturn", "sleep"],
    ["p8", "\ufeffa mark and 'quotes'", "mood"],
]


class Refused(Exception):
    """The reference's word for a file that is not RFC 4180."""


def strict_records(data: bytes, separator: str = ",") -> list[list[str]]:
    """An independent reader, a character at a time: RFC 4180's grammar with LF beside CRLF, and a leading BOM."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise Refused from None
    if "\0" in text:
        raise Refused
    lone_cr = "\n" not in text  # a file that knows only CR
    records, fields, value, state, at = [], [], "", "start", 0
    while at <= len(text):
        rest = text[at:]
        end = next((e for e in ("\r\n", "\n", *(["\r"] if lone_cr else [])) if rest.startswith(e)), None)
        over = not rest or rest == "\r"
        if state == "quoted":
            if not rest:
                raise Refused
            if rest.startswith('""'):
                value, at = value + '"', at + 2
            elif rest[0] == '"':
                state, at = "closed", at + 1
            else:
                value, at = value + rest[0], at + 1
        elif over or end is not None or rest[0] == separator:
            fields.append(value)
            value, state = "", "start"
            if over or end is not None:
                records.append(fields)
                fields = []
            if over:
                break
            at += len(end or separator)
        elif state == "start" and rest[0] == '"':
            state, at = "quoted", at + 1
        elif state == "closed" or rest[0] in '"\r':
            raise Refused
        else:
            value, state, at = value + rest[0], "bare", at + 1
    records = [record for record in records if record != [""]]  # blank lines
    if not records or any(len(record) != len(records[0]) for record in records):
        raise Refused
    return records


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def _in_a_line(change: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    def damage(data: bytes, lots: random.Random) -> bytes:
        lines = _lines(data)
        place = lots.randrange(len(lines))
        lines[place] = change(lines[place], lots)
        return b"".join(lines)

    return damage


def _at_a_place(insert: bytes, cut: int = 0) -> Callable[[bytes, random.Random], bytes]:
    def damage(data: bytes, lots: random.Random) -> bytes:
        place = lots.randrange(len(data) + 1)
        return data[:place] + insert + data[place + cut :]

    return damage


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "nothing": lambda data, lots: data,
    "shifted": _in_a_line(lambda line, lots: b"," + line),
    "long": _in_a_line(lambda line, lots: line.rstrip(b"\r\n") + b",\r\n"),
    "short": _in_a_line(lambda line, lots: line.rpartition(b",")[0] + b"\r\n"),
    "all long": lambda data, lots: data.replace(b"\r\n", b",\r\n"),
    "unquoted": lambda data, lots: data.replace(b'"', b""),
    "a line unquoted": _in_a_line(lambda line, lots: line.replace(b'"', b"")),
    "a quote more": _at_a_place(b'"'),
    "a byte less": _at_a_place(b"", cut=1),
    "a separator more": _at_a_place(b","),
    "BOM at the start": lambda data, lots: b"\xef\xbb\xbf" + data,
    "two BOMs": lambda data, lots: 2 * b"\xef\xbb\xbf" + data,
    "BOM anywhere": _at_a_place(b"\xef\xbb\xbf"),
    "CR anywhere": _at_a_place(b"\r"),
    "CR for LF": lambda data, lots: data.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    "LF for CRLF": lambda data, lots: data.replace(b"\r\n", b"\n"),
    "a line end in CR": _in_a_line(lambda line, lots: line.rstrip(b"\r\n") + b"\r"),
    "NUL": _at_a_place(b"\0"),
    "latin-1": lambda data, lots: data.decode().encode("latin-1", errors="replace"),
    "a bad byte": _at_a_place(b"\xe9"),
    "UTF-16": lambda data, lots: data.decode().encode("utf-16"),
    "UTF-16 without BOM": lambda data, lots: data.decode().encode("utf-16-le"),
    "case": lambda data, lots: data.replace(b"post_id,text,criterion", b"POST_ID, Text ,Criterion", 1),
    "a blank line": _at_a_place(b"\r\n\r\n"),
    "cut off": lambda data, lots: data[: lots.randrange(len(data))],
    "no header": lambda data, lots: b"".join(_lines(data)[1:]),
    "semicolons": lambda data, lots: "".join(csv_line(row, ";") for row in [HEADER, *ROWS]).encode(),
    "tabs": lambda data, lots: "".join(csv_line(row, "\t") for row in [HEADER, *ROWS]).encode(),
    "a column twice": lambda data, lots: data.replace(b"criterion", b"text", 1),
}


def damaged() -> list[tuple[str, bytes]]:
    whole = "".join(csv_line(row) for row in [HEADER, *ROWS]).encode()
    cases = []
    for number in range(200):
        lots = random.Random(number)
        name = list(DAMAGES)[number % len(DAMAGES)]
        data = DAMAGES[name](whole, lots)
        if number >= 100 and name not in ("semicolons", "tabs"):  # two at once
            name = f"{name}, {(other := lots.choice(list(DAMAGES)[:16]))}"
            data = DAMAGES[other](data, lots) if data.startswith(b"post_id") else data
        cases.append((f"{number} {name}", data))
    return cases


def test_each_of_200_damaged_tables_is_read_as_a_strict_reader_reads_it_or_refused_by_line(tmp_path):
    counted: Counter[str] = Counter()
    for name, data in damaged():
        path = tmp_path / "in.csv"
        path.write_bytes(data)
        problems = FileProblems("in.csv")
        header = read_header(path, HEADER, problems)
        read = list(read_rows(path, header, problems)) if header is not None else []
        if problems.count:
            assert all(re.match(r"in\.csv:\d+: ", line) for line in problems.shown()), (name, problems.shown())
            counted["refused"] += 1
        else:
            assert header is not None
            names, *rows = strict_records(data, header.separator)
            assert [row for _, row in read] == rows, name
            assert list(header.names) == [column.strip().strip("\ufeff").strip() for column in names], name
            counted["read"] += 1
        by_predict, by_corpus = refusal(count_rows, path), refusal(posts_of, data, path.parent / "data")
        assert by_predict is None or re.search(r"in\.csv:\d+: ", by_predict), (name, by_predict)
        assert by_corpus is None or re.search(r"redsm5_posts\.csv:\d+: ", by_corpus), (name, by_corpus)
        if problems.count:
            assert by_predict, name
            assert by_corpus, name
        elif by_corpus is None:
            at = [column.casefold() for column in header.names].index("text")
            assert posts_of(data, path.parent / "data") == [row[at] for row in rows], name
        counted.update({"predict read": by_predict is None, "corpus read": by_corpus is None})
    assert counted["read"] > 30
    assert counted["refused"] > 80
    assert counted["predict read"] > 30
    assert counted["corpus read"] > 30


def refusal(read: Callable[..., object], *arguments: object) -> str | None:
    try:
        read(*arguments)
    except CorpusError as error:
        return str(error)
    return None


def posts_of(data: bytes, folder: Path) -> list[str]:
    """The texts that `train` and `sweep` see of these posts."""
    folder.mkdir(exist_ok=True)
    (folder / "redsm5_posts.csv").write_bytes(data)
    annotations = "post_id,sentence_id,sentence_text,DSM5_symptom,status,explanation\n"
    (folder / "redsm5_annotations.csv").write_text(annotations)
    return list(load_corpus(folder).posts.values())


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_train_and_sweep_refuse_a_shifted_row_by_its_line(command, tmp_path, capsys):
    write_synthetic(tmp_path / "data", num_posts=20, seed=1)
    posts = tmp_path / "data" / "redsm5_posts.csv"
    posts.write_bytes(posts.read_bytes() + b"shifted,,a post one column too far\r\n")
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        f"name: x\nbase: {{data: {{data_dir: {tmp_path / 'data'}}}}}\nspace: {{training.seed: {{grid: [1]}}}}\n"
    )
    words = [str(spec)] if command == "sweep" else [f"data.data_dir={tmp_path / 'data'}"]
    assert run_command(command, *words) == 2
    assert re.search(r"redsm5_posts\.csv:\d+: has 3 fields, the header has 2", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00", "is an Excel or zip file; unpack it, or save the table as CSV"),
        (gzip.compress(b"post_id,text\np1,a\n", mtime=0), "is a gzip file"),
        (b'[\n {"post_id": "p1", "text": "private"}\n]', "is JSON; save the table as CSV"),
        (b'{"post_id": "p1", "text": "private"}\n', "is JSON; save the table as CSV"),
        (b"sep=;\r\npost_id;text\r\np1;private\r\n", "is Excel's 'sep=' line"),
        (b"SEP=,\r\npost_id,text\r\np1,private\r\n", "is Excel's 'sep=' line"),
        ("post_id,text\np1,private\n".encode("utf-16-le"), "contains NUL characters (UTF-16 without a byte order mark"),
    ],
)
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path: Path, data: bytes, reported: str) -> None:
    (tmp_path / "in.csv").write_bytes(data)
    problems = FileProblems("in.csv")
    assert read_header(tmp_path / "in.csv", ["post_id", "text"], problems) is None
    (shown,) = problems.shown()
    assert reported in shown
    assert "private" not in shown
