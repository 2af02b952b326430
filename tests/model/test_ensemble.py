"""Bundles that answer as one: the weighted mean of what each says alone, each encoder stored and run once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig
from gemma_nli.local.predict import predict_file
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.bundles.ensemble import LoadedEnsemble, load_any, save_ensemble
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.model.encoder import Encoder
from tests.model.test_bundle import POSTS, make

CPU = DeviceConfig(device="cpu", mixed_precision="none")
SHORT = {"SLEEP": "sleep", "MOOD": "depressed mood"}
FULL = {"SLEEP": "sleeps too little or too much", "MOOD": "a depressed mood nearly every day"}
WEIGHTS = {"mean": 0.4, "max": 0.2, "apart": 0.2, "trained": 0.2}
MEMBERS: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, float]]] = {
    "mean": ({"head_norm": "layernorm"}, SHORT, {}),
    "max": ({"pooling_strategy": "max", "head": "mlp"}, SHORT, {"MOOD": 0.7}),
    "apart": ({"pair_encoding": "separate", "layers": 1}, FULL, {}),
    "trained": ({"freeze_encoder": False, "lora": {"rank": 2}}, SHORT, {}),
}


@pytest.fixture(scope="module")
def bundles(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, found = tmp_path_factory.mktemp("members"), {}
    for place, (name, (settings, criteria, own)) in enumerate(MEMBERS.items()):
        config, classifier = make(tiny_bert, **settings)
        classifier.reset(torch.Generator().manual_seed(place))
        at = 0.3 + place / 10
        found[name] = save_bundle(folder / name, config, classifier, at, {"criteria": criteria}, thresholds=own)
    return found


@pytest.fixture(scope="module")
def saved(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = {"SLEEP": {"max": 0.5, "apart": 0.5}}
    return save_ensemble(tmp_path_factory.mktemp("saved") / "ensemble", bundles, WEIGHTS, {"criteria": SHORT}, own)


@pytest.fixture(scope="module")
def loaded(saved: Path) -> LoadedEnsemble:
    found = load_any(saved, CPU)
    assert isinstance(found, LoadedEnsemble)
    return found


def alone(bundles: dict[str, Path], criteria: list[str]) -> dict[str, np.ndarray]:
    """Each member's probability of every post with these criteria, in its own words."""
    found = {}
    for name, folder in bundles.items():
        texts = [MEMBERS[name][1].get(criterion, criterion) for criterion in criteria]
        found[name] = PairScorer.from_bundle(folder, CPU).score(crossed(texts))["probability"].to_numpy()
    return found


def crossed(texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"premise": [p for p in POSTS[:3] for _ in texts], "hypothesis": [t for _ in POSTS[:3] for t in texts]}
    )


def test_a_pair_has_the_weighted_mean_of_its_members_each_in_its_own_words(
    bundles: dict[str, Path], loaded: LoadedEnsemble
) -> None:
    scored = PairScorer(loaded).score(crossed(["sleep", FULL["MOOD"], "something else"]))
    of = alone(bundles, ["SLEEP", "MOOD", "something else"])
    weights = pd.DataFrame([{"max": 0.5, "apart": 0.5}, WEIGHTS, WEIGHTS] * 3).fillna(0.0)
    expected = sum(weights[name].to_numpy() * probability for name, probability in of.items())
    np.testing.assert_allclose(scored["probability"], expected, atol=1e-6)
    assert len({round(value, 4) for value in scored["probability"]}) == 9
    thresholds = [(0.4 + 0.5) / 2, 0.4 * 0.3 + 0.2 * (0.7 + 0.5 + 0.6), 0.4 * 0.3 + 0.2 * (0.4 + 0.5 + 0.6)]
    np.testing.assert_allclose(scored["threshold"], thresholds * 3)
    assert (scored["label"] == (scored["probability"] >= scored["threshold"])).all()


def test_an_encoder_is_stored_and_loaded_once_and_reads_a_text_once(
    saved: Path, loaded: LoadedEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(path.name for path in (saved / "encoders").iterdir()) == ["1", "2"]  # as it was, and trained
    sizes = [sum(file.stat().st_size for file in (saved / "members" / name).iterdir()) for name in WEIGHTS]
    assert max(sizes) < (saved / "encoders" / "1" / "model.safetensors").stat().st_size
    assert loaded.members["mean"].encoder is loaded.members["max"].encoder
    assert len({id(member.encoder) for member in loaded.members.values()}) == 3  # `apart` is cut after its layer
    rows: list[int] = []
    run = Encoder.run

    def counted(self: Encoder, batch: Any, manner: Any) -> Any:
        rows.append(len(batch["input_ids"]))
        return run(self, batch, manner)

    monkeypatch.setattr(Encoder, "run", counted)
    PairScorer(loaded).score(crossed(["sleep", "depressed mood"]))
    assert sum(rows) == 6 + (3 + 2) + 6  # the joint pairs for two members at once, texts alone, pairs by the trained


def test_posts_alone_and_files_are_answered_as_by_one_model(loaded: LoadedEnsemble, tmp_path: Path) -> None:
    scorer = PairScorer(loaded)
    by_post = scorer.score_posts(pd.DataFrame({"premise": POSTS[:3]}))
    by_pair = scorer.score(crossed(list(SHORT.values())))
    np.testing.assert_allclose(by_post["SLEEP"], by_pair["probability"][::2], atol=1e-6)
    assert list(by_post) == [
        *("SLEEP", "SLEEP_label", "SLEEP_threshold"), *("MOOD", "MOOD_label", "MOOD_threshold"), "threshold"
    ]  # fmt: skip
    source = tmp_path / "pairs.csv"
    crossed(["sleep", "new"]).to_csv(source, index=False)
    done = predict_file(scorer, source, tmp_path / "scored.csv")
    assert done.columns == ("probability", "label", "threshold")
    assert "3 pairs have hypotheses" in done.note


def test_it_is_no_single_module_and_no_member(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"an ensemble of 4 models.*load_scorer"):
        load_bundle(saved)
    with pytest.raises(EncoderError, match="members are single models"):
        save_ensemble(tmp_path / "nested", {"a": saved}, {"a": 1.0}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": {"mean": 0.5}}, "together, not 1"),
        ({"weights": {"nobody": 1.0}}, "'nobody' is no member"),
        ({"members": {"../out": "1"}}, "members"),
        ({"members": {"mean": "../.."}, "weights": {"mean": 1.0}}, "members"),
        ({"format": 4}, "format 4, this version reads 1 to 3"),
    ],
)
def test_a_changed_record_is_refused(saved: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    record = json.loads((saved / "bundle.json").read_text())
    (tmp_path / "bundle.json").write_text(json.dumps({**record, "criterion_weights": {}, **change}))
    with pytest.raises(EncoderError, match=says):
        load_any(tmp_path, CPU)


def test_a_damaged_member_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = save_ensemble(tmp_path / "e", {"mean": bundles["mean"]}, {"mean": 1.0}, {"criteria": SHORT})
    weights = folder / "members" / "mean" / "classifier.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(EncoderError, match="sha256 differs"):
        load_any(folder, CPU)
