"""Each encoder family gives what plain transformers gives, or is refused in one sentence; never a traceback."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from benchmarks.families import MARKS, PAGE, QUICK, as_markdown
from benchmarks.family_check import COLUMNS, Row, check
from benchmarks.tiny_encoders import FAMILIES, write_encoder
from gemma_nli.model.loading.network import quietly

SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES if family not in QUICK]


@pytest.mark.parametrize("family", [*QUICK, *SLOW])
def test_a_family_equals_plain_transformers_or_is_refused_as_the_page_says(family: str, tmp_path: Path) -> None:
    with quietly(logging.CRITICAL):
        row = check(family, write_encoder(tmp_path / family, family))
    assert not row.wrong, row.sentences
    assert as_markdown([row]).splitlines()[2] in PAGE.read_text().splitlines()


def test_the_page_lists_every_family_that_is_tried() -> None:
    table = PAGE.read_text().split(MARKS[0])[1].split(MARKS[1])[0].splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table if line.startswith("| ")][1:] == list(FAMILIES)
    assert len(FAMILIES) >= 60


def test_a_wrong_answer_or_a_traceback_is_called_wrong() -> None:
    row = Row("made up", dict(zip(COLUMNS, ["equal", "plain", "WRONG: off by 0.1", *["refused"] * 5], strict=True)))
    assert row.wrong == ["after a short: WRONG: off by 0.1"]
