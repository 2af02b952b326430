"""sentence-transformers on a sweep's folds: python -m benchmarks.outside.sentence_vectors FOLDS PREDICTIONS

Vectors u of the post and v of the criterion; a logistic regression over u, v, |u - v| and u * v, trained on each fold's
training pairs. With --cosine nothing is trained: the cosine of u and v is a score, no probability, and the report
chooses its threshold.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.outside.fold_file import Predict, predict_out_of_fold, read_folds

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outside.sentence_vectors", description=__doc__)
    parser.add_argument("folds", type=Path, help="as `gemma-nli folds` wrote it, with texts")
    parser.add_argument("predictions", type=Path, help="CSV for `gemma-nli report SWEEP --with NAME=FILE`")
    parser.add_argument("--model", default=MODEL, help="hub id or folder")
    parser.add_argument("--cosine", action="store_true", help="train nothing: the cosine of post and criterion")
    asked = parser.parse_args(words)
    table = read_folds(asked.folds)
    encoder = SentenceTransformer(asked.model, device="cpu")
    texts = pd.unique(pd.concat([table["premise"], table["hypothesis"]]))
    vectors = dict(zip(texts, encoder.encode(list(texts), normalize_embeddings=True), strict=True))

    def sides(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        return np.stack(rows["premise"].map(vectors).to_list()), np.stack(rows["hypothesis"].map(vectors).to_list())

    def features(rows: pd.DataFrame) -> np.ndarray:
        u, v = sides(rows)
        return np.hstack([u, v, np.abs(u - v), u * v])

    def fit(train: pd.DataFrame) -> Predict:
        if asked.cosine:
            return lambda rows: np.einsum("rh,rh->r", *sides(rows))
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        model.fit(features(train), train["label"])
        return lambda rows: model.predict_proba(features(rows))[:, 1]

    found = predict_out_of_fold(table, "score" if asked.cosine else "probability", fit)
    found.to_csv(asked.predictions, index=False)
    print(f"{asked.predictions}: {len(found)} predictions")


if __name__ == "__main__":
    main()
