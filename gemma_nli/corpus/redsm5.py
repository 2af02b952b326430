"""ReDSM5's files (posts, sentence annotations, criteria) read whole or refused with every problem at once.

A post's text is private: errors name files, lines and ids, never text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gemma_nli.base import private_texts as redaction
from gemma_nli.base.errors import CorpusError, did_you_mean
from gemma_nli.config import expanded
from gemma_nli.corpus.contradictions import Contradiction, contradictions_in, note_on
from gemma_nli.corpus.copies import groups_of_copies
from gemma_nli.corpus.criteria import FULL, dsm5_wordings, read_criteria, several_texts, usual_text
from gemma_nli.corpus.csv_files import csv_line
from gemma_nli.corpus.file_problems import SHOWN_PLACES, FileProblems, has_control_character, looks_like_an_id, named
from gemma_nli.corpus.lined_tables import Record, Table, read_table

POSTS_FILE = "redsm5_posts.csv"
ANNOTATIONS_FILE = "redsm5_annotations.csv"
CRITERIA_FILE = "criteria.json"
POST_COLUMNS = ("post_id", "text")
ANNOTATION_COLUMNS = ("post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status", "explanation")


@dataclass(frozen=True)
class Annotation:
    """One sentence that an expert annotated for one criterion: status 1, it shows it; status 0, it does not."""

    post_id: str
    sentence_id: str
    sentence_text: str
    criterion_id: str
    status: int
    explanation: str


@dataclass(frozen=True)
class Seal:
    """The posts that `data.test` keeps out of a corpus: sorted ids, and a fingerprint of their texts and judgements.

    `with_copies`: how many of them were not named, and are copies of posts that were.
    """

    post_ids: tuple[str, ...]
    fingerprint: str
    with_copies: int = 0


@dataclass(frozen=True)
class Corpus:
    posts: dict[str, str]  # id to text, in file order
    criteria: dict[str, str]  # id to hypothesis, in file order
    annotations: tuple[Annotation, ...]
    contradictions: tuple[Contradiction, ...] = field(default=(), compare=False)
    wordings: dict[str, dict[str, str]] = field(default_factory=dict)  # id to its texts by name, if not `full` alone
    seal: Seal | None = None  # of the posts that are not among these (corpus/sealed.py)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of posts, criteria and judgements and seal; the order of the annotations does not matter.

        Of a criterion with several texts only the usual one counts: pairs are ids, the same in every wording.
        """
        judged = sorted({(a.post_id, a.criterion_id, a.status) for a in self.annotations})
        content: list[Any] = [list(self.posts.items()), list(self._usual_texts.items()), judged]
        if self.seal is not None:
            content.append(self.seal.fingerprint)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def has_texts(self) -> bool:
        """False for a corpus of which only the ids are at hand."""
        return any(self.posts.values())

    def in_words(self, wording: str) -> Corpus:
        """The same posts and judgements, with the criteria's texts of that name.

        Raises:
            CorpusError: criteria that have no text of that name, with the names that they have.
        """
        texts = {name: self.wordings.get(name, {FULL: text}) for name, text in self.criteria.items()}
        lacking = [name for name, each in texts.items() if wording not in each]
        if lacking:
            raise CorpusError(
                f"data.wording is '{wording}', and no text of the criterion {named(lacking[0])}"
                f"{f' (nor of {len(lacking) - 1} more)' if len(lacking) > 1 else ''} has that name: it has "
                f"{', '.join(texts[lacking[0]])}; set data.wording to one that all have, or add it to {CRITERIA_FILE}."
            )
        criteria = {name: each[wording] for name, each in texts.items()}
        if criteria == self.criteria:
            return self
        worded = replace(self, criteria=criteria)
        worded.__dict__["fingerprint"] = self.fingerprint
        return worded

    def wording_fingerprint(self, wording: str) -> str:
        """SHA-256 (hex) of the criteria's texts of that name; empty for the usual ones, which `fingerprint` counts."""
        criteria = self.in_words(wording).criteria
        if criteria == self._usual_texts:
            return ""
        return hashlib.sha256(json.dumps(list(criteria.items())).encode()).hexdigest()

    @property
    def _usual_texts(self) -> dict[str, str]:
        return {name: usual_text(self.wordings.get(name, {FULL: text})) for name, text in self.criteria.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user; no post's text."""
        return note_on(self.contradictions, ANNOTATIONS_FILE)

    @cached_property
    def group_P(self) -> np.ndarray:
        """(P,) int32, in the order of the posts: equal for posts that are copies of one another."""
        return groups_of_copies(list(self.posts), list(self.posts.values()))


def load_corpus(data_dir: str | Path, log_text: bool = False) -> Corpus:
    """Posts, annotations and criteria of a folder in ReDSM5's format; sealed posts are among them (corpus/sealed.py).

    Args:
        log_text: `data.log_text`; without it nothing that leaves this process (`base/outgoing.py`) quotes a post.

    Surrounding blanks are stripped from ids, symptoms and statuses; texts are unchanged. Without a criteria.json the
    DSM-5 criteria of the package are the known symptoms. A pair is positive if any sentence of the post has status 1
    for the criterion, a sentence that has both statuses included; `notes` count those.

    Raises:
        CorpusError: every problem of all files with file and line; identical ones are one line with a count.
    """
    folder = expanded(data_dir)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise CorpusError(f"{folder}: {what}; set data.data_dir to the folder of {POSTS_FILE}.")
    of_posts, of_annotations, of_criteria = (
        FileProblems(name) for name in (POSTS_FILE, ANNOTATIONS_FILE, CRITERIA_FILE)
    )
    texts = dsm5_wordings()
    if os.path.lexists(folder / CRITERIA_FILE):  # a dangling link is an error, not a reason for the defaults
        texts = read_criteria(folder / CRITERIA_FILE, of_criteria)
    post_table = read_table(folder / POSTS_FILE, POST_COLUMNS, of_posts)
    posts, known_posts = _check_posts(post_table, of_posts)
    table = read_table(folder / ANNOTATIONS_FILE, ANNOTATION_COLUMNS, of_annotations)
    reader = _AnnotationReader(
        # A file that could not be read completely cannot show that an id is unknown.
        posts=known_posts if post_table.whole else None,
        criteria=list(texts) if not of_criteria.count else None,
        own_criteria=os.path.lexists(folder / CRITERIA_FILE),
        problems=of_annotations,
    )
    judged = [(record.line, a) for record in table.records if (a := reader.read(record)) is not None]
    reader.report_foreign()
    _raise_if_any(folder, (of_posts, of_annotations, of_criteria))
    annotations = tuple(annotation for _, annotation in judged)
    criteria = {name: usual_text(each) for name, each in texts.items()}
    corpus = Corpus(posts, criteria, annotations, contradictions_in(judged), several_texts(texts))
    if log_text:
        redaction.forget(str(folder))
    else:
        redaction.remember_corpus(str(folder), corpus)
    return corpus


def _raise_if_any(folder: Path, files: tuple[FileProblems, ...]) -> None:
    count = sum(problems.count for problems in files)
    if count:
        lines = [line for problems in files for line in problems.shown()]
        head = f"{folder}: {count} problem{'s' if count != 1 else ''}"
        raise CorpusError("\n".join([head, *(f"  {line}" for line in lines)]))


def _check_posts(table: Table, problems: FileProblems) -> tuple[dict[str, str], set[str]]:
    """The posts, and all ids, including those of invalid posts."""
    posts: dict[str, str] = {}
    first_lines: dict[str, int] = {}
    for record in table.records:
        post_id, text = record.values["post_id"].strip(), record.values["text"]
        if not post_id:
            problems.add(record.line, "post_id is empty.")
            continue
        if has_control_character(post_id):
            problems.add(record.line, "post_id contains a control character; an id must be one line of text.")
            continue
        if post_id in first_lines:
            problems.add(
                record.line,
                f"duplicate post_id {named(post_id)}, first at line {first_lines[post_id]}.",
                "duplicate post_id",
            )
            continue
        first_lines[post_id] = record.line
        if not text.strip():
            problems.add(record.line, f"post_id {named(post_id)}: text is empty.", "text is empty")
        posts[post_id] = text
    if table.whole and not table.records:
        problems.add(1, "has a header but no posts.")
    return posts, set(first_lines)


@dataclass
class _AnnotationReader:
    posts: set[str] | None  # None: not known, so not checked
    criteria: list[str] | None
    own_criteria: bool  # whether the folder has a criteria.json
    problems: FileProblems
    foreign: dict[str, int] = field(default_factory=dict)  # unlike any of the package's: name to first line

    def read(self, record: Record) -> Annotation | None:
        """The annotation of a record, or None if problems were added."""
        before = self.problems.count
        values = {k: v if k in ("sentence_text", "explanation") else v.strip() for k, v in record.values.items()}
        post_id, symptom, status = values["post_id"], values["DSM5_symptom"], values["status"]
        if not post_id:
            self.problems.add(record.line, "post_id is empty.")
        elif self.posts is not None and post_id not in self.posts:
            self.problems.add(record.line, f"post_id {named(post_id)} is not in {POSTS_FILE}.", "unknown post_id")
        if not symptom:
            self.problems.add(record.line, "DSM5_symptom is empty.")
        elif self.criteria is not None and symptom not in self.criteria:
            written = {_plain(name): name for name in self.criteria}.get(_plain(symptom))
            near = f"; did you mean '{written}'?" if written else did_you_mean(symptom[:64], self.criteria)
            if not self.own_criteria and not near.startswith("; did"):
                self.foreign.setdefault(symptom, record.line)
                return None
            self.problems.add(record.line, f"unknown symptom {named(symptom)}{near}", "unknown symptom")
        if status not in ("0", "1"):
            got = f"a value {named(status)}" if status else "nothing"
            self.problems.add(record.line, f"status must be 0 or 1, got {got}.", "status is not 0 or 1")
        if self.problems.count > before:
            return None
        return Annotation(
            post_id, values["sentence_id"], values["sentence_text"], symptom, int(status), values["explanation"]
        )

    def report_foreign(self) -> None:
        """One problem for all symptoms that are obviously the user's own criteria."""
        if not self.foreign:
            return
        names = [named(name) for name in self.foreign][:SHOWN_PLACES]
        what = "symptom is" if len(self.foreign) == 1 else f"{len(self.foreign)} different symptoms are"
        what = f"{what} not among the package's DSM-5 criteria ({', '.join(names)}"
        what += ", ...)" if len(self.foreign) > len(names) else ")"
        self.problems.add(
            min(self.foreign.values()),
            f"{what}. Put your own criteria into {CRITERIA_FILE} in the same folder: "
            '[{"id": "' + _example(self.foreign) + '", "text": "what a post that meets it shows"}, ...].',
        )


def _plain(name: str) -> str:
    """An id as compared if none is equal: case-insensitive, blanks and hyphens as underscores."""
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


def _example(names: Iterable[str]) -> str:
    return next((name for name in names if looks_like_an_id(name)), "MY_CRITERION")


def write_corpus(corpus: Corpus, folder: str | Path) -> None:
    """Write the three files that `load_corpus` reads back equal; the folder is created if it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = [
        (a.post_id, a.sentence_id, a.sentence_text, a.criterion_id, str(a.status), a.explanation)
        for a in corpus.annotations
    ]
    _write_csv(folder / POSTS_FILE, POST_COLUMNS, [*corpus.posts.items()])
    _write_csv(folder / ANNOTATIONS_FILE, ANNOTATION_COLUMNS, rows)
    items = [
        {"id": name, "texts": corpus.wordings[name]} if name in corpus.wordings else {"id": name, "text": text}
        for name, text in corpus.criteria.items()
    ]
    text = json.dumps(items, indent=1, ensure_ascii=False)
    (folder / CRITERIA_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(csv_line(row) for row in [columns, *rows])
