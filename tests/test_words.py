"""Phrases that a native reader stumbles on must not come back: in messages, help, docstrings, comments and docs."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HISTORY = {"LOG.md"}
RATE = r"positive|trial|fold|epoch|pair|key|process|node|post|sweep|step|criterion|row|text|token|slot|GPU|character"
COUNTED = r"negatives|cores|GPUs|CPUs|tokens|bytes|pairs|calls|steps|batches|rows|values|logit|loss|MiB|GiB|message"
PHRASES = {
    "told": r"(?<!\bI )\btold\b(?! apart)",  # a sample text is a person's own words
    "news": r"\bnews\b",
    "beyond doubt": r"\bbeyond doubt\b",
    "never mattered": r"\bnever mattered\b",
    "honestly worth": r"\bhonestly worth\b",
    "for good": r"\bfor good\b(?! reason)",
    "by hand neither": r"\bby hand neither\b",
    "speaks against": r"\bspeaks against\b",
    "is no number": r"\b(?:is|was|became|are) no number\b",
    "a for per": rf"\b(?:{COUNTED}) an? (?:{RATE})\b(?! (?:is|was|sees|attends|evaluates|uses))",
    "a second for per second": r"\b(?:trials|writes?|requests|calls|texts) a second\b(?! (?:time|trial))",
}


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each string and comment of a Python file; line breaks inside a sentence are blanks."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, re.sub(r"\s+", " ", node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def stumbles(path: Path, source: str) -> list[str]:
    parts = texts_of(source) if path.suffix == ".py" else enumerate(source.splitlines(), start=1)
    return [
        f"{path.name}:{line}: {name}: {text[:160]}"
        for line, text in parts
        for name, pattern in PHRASES.items()
        if re.search(pattern, text)
    ]


def product_files() -> list[Path]:
    found = [*(ROOT / "gemma_nli").rglob("*.py"), *(ROOT / "gemma_nli").rglob("*.yaml"), *(ROOT / "sweeps").iterdir()]
    found += [*(ROOT / "search_spaces").iterdir(), *(ROOT / "deploy").iterdir(), *ROOT.glob("*.yaml")]
    found += [
        ROOT / "README.md",
        ROOT / "Makefile",
        *(p for p in (ROOT / "docs").glob("*.md") if p.name not in HISTORY),
    ]
    return [path for path in found if path.is_file() and path.suffix != ".pyc"]


def test_no_phrase_that_a_reader_stumbles_on_has_come_back() -> None:
    found = [line for path in product_files() for line in stumbles(path, path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "sentence",
    [
        "The user is told why.",
        "a trial that has news",
        "The winner does not beat it\n    beyond doubt.",
        "training negatives a positive",
        "CPU cores a trial",
        "Delete runs for good.",
        "the loss was no number in epoch 3",
    ],
)
@pytest.mark.parametrize("form", ['"""{}"""\n', 'raise ValueError("""{}""")\n'])
def test_a_planted_phrase_is_found(sentence: str, form: str) -> None:
    assert stumbles(Path("planted.py"), form.format(sentence))


@pytest.mark.parametrize("sentence", ["for good reason", "a positive pair", "the newsletter", "untold", "one a day"])
def test_an_ordinary_sentence_is_left_alone(sentence: str) -> None:
    assert not stumbles(Path("planted.py"), f'"""{sentence}"""\n')
