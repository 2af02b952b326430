"""scikit-learn on a sweep's folds: python -m benchmarks.outside.tfidf_logistic FOLDS PREDICTIONS

Words and word pairs of the post, each also with its criterion, so that one logistic regression learns what a word says
of each criterion.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from benchmarks.outside.fold_file import Predict, predict_out_of_fold, read_folds


def fit(train: pd.DataFrame) -> Predict:
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit(train["premise"])
    criteria = OneHotEncoder(handle_unknown="ignore").fit(train[["criterion_id"]])

    def features(rows: pd.DataFrame) -> sparse.csr_matrix:
        said, asked = words.transform(rows["premise"]), criteria.transform(rows[["criterion_id"]]).tocsc()
        per_criterion = [said.multiply(asked[:, place]) for place in range(asked.shape[1])]
        return sparse.hstack([said, asked, *per_criterion]).tocsr()

    model = LogisticRegression(C=10.0, max_iter=1000).fit(features(train), train["label"])
    return lambda rows: model.predict_proba(features(rows))[:, 1]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outside.tfidf_logistic", description=__doc__)
    parser.add_argument("folds", type=Path, help="as `gemma-nli folds` wrote it, with texts")
    parser.add_argument("predictions", type=Path, help="CSV for `gemma-nli report SWEEP --with NAME=FILE`")
    asked = parser.parse_args(words)
    found = predict_out_of_fold(read_folds(asked.folds), "probability", fit)
    found.to_csv(asked.predictions, index=False)
    print(f"{asked.predictions}: {len(found)} predictions")


if __name__ == "__main__":
    main()
