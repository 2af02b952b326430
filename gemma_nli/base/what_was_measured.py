"""What stands beside a score: the negatives it was measured among; and what was never measured."""

from __future__ import annotations

from collections.abc import Mapping

REFIT = "a refit on all pairs, which nobody has measured: its scores are those of the trial's cross-validation"
"""Of a registered model."""
ENSEMBLE_REFIT = (
    "members refitted on all pairs, which nobody has measured: its scores are those of what they predicted out of fold"
)
"""Of a registered ensemble."""
SEALED_REFIT = "a refit on all pairs but those of the sealed posts, on which `gemma-nli test` has scored it"
"""Of one that was measured after all."""


def measured_at(eval_negative_ratio: float | str, negatives: str) -> str:
    """`at 1 matched negative per positive`, `on all pairs`: F1 means little without it.

    Args:
        eval_negative_ratio: as the setting, also as a tag has it: a number, or `all`.
        negatives: as the setting: `matched` or `pooled`.
    """
    if eval_negative_ratio == "all":
        return "on all pairs"
    ratio = float(eval_negative_ratio)
    return f"at {ratio:g} {negatives} negative{'' if ratio == 1 else 's'} per positive"


def measured_at_by_tags(tags: Mapping[str, str]) -> str:
    """The same of an MLflow run or a model's version by its tags; empty where they do not say it.

    What was written before there were matched negatives had pooled ones.
    """
    ratio = tags.get("gemma_nli.eval_negative_ratio")
    return measured_at(ratio, tags.get("gemma_nli.negatives", "pooled")) if ratio else ""
