"""Scoring tables of pairs: order, labels, and what is refused in one sentence without a post's text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gemma_nli.base.errors import ConfigError, GemmaNliError
from gemma_nli.config import DeviceConfig, RunConfig
from gemma_nli.model.bundles.bundle import save_bundle
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import load_encoder


@pytest.fixture(scope="module")
def scorer(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> PairScorer:
    config = RunConfig().with_settings(
        {"model.name": str(tiny_bert), "model.max_length": 64, "features.batch_tokens": 64}
    )
    classifier = PairClassifier(load_encoder(config.model, DeviceConfig(device="cpu")), config.model).eval()
    classifier.reset(torch.Generator().manual_seed(5))
    folder = tmp_path_factory.mktemp("served") / "bundle"
    save_bundle(folder, config, classifier, 0.5, {})
    return PairScorer.from_bundle(folder, DeviceConfig(device="cpu"))


def pairs(count: int) -> pd.DataFrame:
    words = ["sad", "tired", "sleep", "work", "nights", "fun"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, size=rng.integers(0, 30))) for _ in range(count)]
    return pd.DataFrame({"premise": texts, "hypothesis": ["mood", "fatigue"] * (count // 2), "source": 1})


def test_every_pair_has_its_own_probability_in_the_order_given(scorer: PairScorer) -> None:
    frame = pairs(40)
    scored = scorer.score(frame)
    assert list(scored.columns) == ["probability", "label"]
    alone = [scorer.score(frame.iloc[[row]])["probability"].iloc[0] for row in range(40)]
    np.testing.assert_allclose(scored["probability"], alone, atol=1e-6)
    assert scored["probability"].between(0, 1).all()
    assert scored["probability"].nunique() > 20


def test_the_index_stays_and_the_threshold_labels(scorer: PairScorer) -> None:
    frame = pairs(10).set_index(pd.Index(list("jihgfedcba")))
    scored = scorer.score(frame)
    assert scored.index.equals(frame.index)
    assert (scored["label"] == (scored["probability"] >= scorer.bundle.threshold)).all()
    object.__setattr__(scorer.bundle, "threshold", float(scored["probability"].median()))
    assert 0 < scorer.score(frame)["label"].sum() < 10
    object.__setattr__(scorer.bundle, "threshold", 0.5)


def test_no_pairs_give_no_scores(scorer: PairScorer) -> None:
    scored = scorer.score(pd.DataFrame({"premise": [], "hypothesis": []}))
    assert len(scored) == 0
    assert scored.dtypes.astype(str).tolist() == ["float64", "int64"]


def test_bad_tables_are_refused_by_column_and_row_without_the_text(scorer: PairScorer) -> None:
    with pytest.raises(GemmaNliError, match=r"column 'hypothesis' is missing; did you mean 'hypotesis'\?"):
        scorer.score(pd.DataFrame({"premise": ["private words"], "hypotesis": ["mood"]}))
    for bad in (None, float("nan"), 7, b"mood"):
        frame = pd.DataFrame({"premise": ["private words", bad], "hypothesis": ["mood", "mood"]}, dtype=object)
        with pytest.raises(GemmaNliError, match=r"column 'premise' must hold text, but 1 of 2 .* row 1") as caught:
            scorer.score(frame)
        assert "private" not in str(caught.value)
    twice = pd.DataFrame([["a", "b", "c"]], columns=["premise", "premise", "hypothesis"])
    with pytest.raises(GemmaNliError, match="more than once"):
        scorer.score(twice)


def test_a_probability_equal_to_the_threshold_is_labelled_a_match(scorer: PairScorer) -> None:
    frame = pairs(2)
    exact = float(scorer.score(frame)["probability"].iloc[0])
    object.__setattr__(scorer.bundle, "threshold", exact)
    assert scorer.score(frame)["label"].iloc[0] == 1
    object.__setattr__(scorer.bundle, "threshold", np.nextafter(exact, 1))
    assert scorer.score(frame)["label"].iloc[0] == 0
    object.__setattr__(scorer.bundle, "threshold", 0.5)


@pytest.mark.parametrize("row", [{"premise": " "}, {"premise": "fine", "hypothesis": ""}])
def test_what_is_served_refuses_an_empty_text_instead_of_scoring_it(scorer: PairScorer, row: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="is empty in 1 of 1 rows, first in row 0"):
        scorer.answer(pd.DataFrame([row]))
