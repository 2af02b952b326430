"""The words beside a score."""

from __future__ import annotations

import pytest

from gemma_nli.base.what_was_measured import measured_at, measured_at_by_tags
from gemma_nli.config import DataConfig


@pytest.mark.parametrize(
    ("ratio", "negatives", "said"),
    [
        (1.0, "matched", "at 1 matched negative per positive"),
        ("3.0", "pooled", "at 3 pooled negatives per positive"),
        (0.5, "matched", "at 0.5 matched negatives per positive"),
        ("all", "matched", "on all pairs"),
    ],
)
def test_a_ratio_is_said_with_the_kind_of_its_negatives(ratio: float | str, negatives: str, said: str) -> None:
    assert measured_at(ratio, negatives) == said
    tags = {"gemma_nli.eval_negative_ratio": str(ratio), "gemma_nli.negatives": negatives}
    assert measured_at_by_tags(tags) == said
    config = DataConfig.model_validate({"eval_negative_ratio": ratio, "negatives": negatives})
    assert config.measured_at == said


def test_what_an_earlier_version_wrote_had_pooled_negatives_and_another_program_says_nothing() -> None:
    assert measured_at_by_tags({"gemma_nli.eval_negative_ratio": "1.0"}) == "at 1 pooled negative per positive"
    assert measured_at_by_tags({}) == ""
