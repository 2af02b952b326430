"""Encoder families against plain transformers: one unpadded text at a time, straight from the folder, is the measure.

Each family of `tiny_encoders.py` is asked for the states of single texts, of batches, of batches after a short text,
for the vectors of joint pairs with and without prefix reuse and of separate texts, for states under LoRA (against the
weights with the adapters merged in), and bidirectionally where its attention can be switched: `family_check.py`. The
table goes into docs/encoders.md. `--quick` takes twelve families and leaves the page.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.family_check import COLUMNS, CPU, Row, check
from benchmarks.outcome import Mark, Outcome
from benchmarks.tiny_encoders import FAMILIES, write_encoder
from benchmarks.workplace import ROOT, Workplace
from gemma_nli.config import ModelConfig
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.model.encoder import load_encoder
from gemma_nli.model.loading.network import quietly
from gemma_nli.model.probing.encoding_manner import find_manner

PAGE = ROOT / "docs" / "encoders.md"
MARKS = ("<!-- families: written by `python -m benchmarks families` -->", "<!-- end of families -->")
QUICK = (
    "bert", "big_bird", "canine", "deberta", "fnet", "gemma3_text", "lfm2", "mamba", "mpt", "opt", "reformer", "t5",
)  # fmt: skip


def run(place: Workplace) -> Outcome:
    torch.set_num_threads(1)  # models this small are slower on two
    families = QUICK if place.quick else tuple(FAMILIES)
    with quietly(logging.CRITICAL):
        rows = [check(family, write_encoder(place.work / family, family)) for family in families]
        seconds = _probe_seconds()
    console = Console(width=150, highlight=False)
    console.print(_table(rows))
    for row in rows:
        for sentence in row.wrong:
            console.print(f"{row.family}: {sentence}; {row.sentences}", markup=False)
    if not place.quick:
        write_page(PAGE, rows)
        console.print(f"the same in {PAGE}")
    cells = Counter(cell for row in rows for cell in row.cells.values())
    return Outcome(
        [
            Mark("answers that are wrong, or a traceback", sum(len(row.wrong) for row in rows), at_most=0),
            Mark("families", len(rows), at_least=0 if place.quick else 60),
            Mark("answers equal to plain transformers", cells["equal"] + cells["plain"]),
            Mark("of them: joint pairs without prefix reuse", cells["plain"]),
            Mark("answers refused in a sentence", cells["refused"]),
            Mark("probe of MiniLM at 512 tokens", seconds["probe"], at_most=2.0, unit="s"),
            Mark("the second time", seconds["again"], at_most=0.05, unit="s"),
        ],
        {"families": {row.family: {**row.cells, "sentences": row.sentences} for row in rows}, **seconds},
    )


def _probe_seconds() -> dict[str, float]:
    """What the probe of the real MiniLM costs on one thread, and what it costs to read its answer again."""
    encoder = load_encoder(ModelConfig(name=str(minilm_folder())), CPU)
    assert encoder.notes is not None
    began = time.perf_counter()
    find_manner(encoder)
    probed = time.perf_counter()
    encoder.notes.recall("manner, as made", lambda: find_manner(encoder).to_json())
    again = time.perf_counter()
    return {"probe": probed - began, "again": again - probed}


def _table(rows: list[Row]) -> Table:
    table = Table("family", *COLUMNS, pad_edge=False)
    for row in rows:
        table.add_row(row.family, *row.cells.values())
    return table


def write_page(page: Path, rows: list[Row]) -> None:
    """Put the table, and under it why something was refused, between the page's two marks."""
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    page.write_text(f"{before}{MARKS[0]}\n{as_markdown(rows)}{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")


def as_markdown(rows: list[Row]) -> str:
    lines = [f"| family | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    lines += [f"| {row.family} | {' | '.join(row.cells.values())} |" for row in rows]
    facts: dict[str, list[str]] = {}
    for row in rows:
        for column, sentence in row.sentences.items():
            facts.setdefault(_without_place(sentence), []).append(f"{row.family} ({column})")
    lines += ["", "What the refusals say:", ""]
    for sentence, where in facts.items():
        families = list(dict.fromkeys(each.split(" (")[0] for each in where))
        whole = len(where) == len(families) * len(COLUMNS)
        lines.append(f"- {', '.join(families if whole else where)}: {sentence}")
    return "\n".join(lines) + "\n"


def _without_place(sentence: str) -> str:
    return re.sub(r"/\S*/(?=[\w.-]+)", "", sentence)
