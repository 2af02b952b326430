"""A file of folds read, and any model trained and asked fold by fold: the whole of what a tool has to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

Predict = Callable[[pd.DataFrame], np.ndarray]


def read_folds(path: Path) -> pd.DataFrame:
    """The table; exits with a sentence where it has no texts."""
    read = pd.read_parquet if path.suffix == ".parquet" else pd.read_csv
    table = read(path)
    if "premise" not in table:
        raise SystemExit(f"{path}: has no texts; write it with: gemma-nli folds SWEEP data.log_text=true --to {path}")
    return table


def predict_out_of_fold(table: pd.DataFrame, column: str, fit: Callable[[pd.DataFrame], Predict]) -> pd.DataFrame:
    """One row per measured pair: pair_id, fold, and `column` as predicted by a model of the other folds.

    Args:
        fit: of a fold's training pairs (premise, hypothesis, label), the function that predicts others.
    """
    parts = []
    for fold in sorted(table["fold"].unique()):
        predict = fit(table[(table["train"] == 1) & (table["fold"] != fold)])
        measured = table[(table["evaluate"] == 1) & (table["fold"] == fold)]
        parts.append(measured[["pair_id", "fold"]].assign(**{column: predict(measured)}))
    return pd.concat(parts)
