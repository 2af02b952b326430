"""What trials of one process share of a sweep's features: the block, and an encoder that past-budget states need."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from gemma_nli.config import FeaturesConfig
from gemma_nli.features import FeatureStore, encode_texts
from gemma_nli.sweep.prepare import feature_requests, prepare
from gemma_nli.sweep.ray.shared_features import SharedBlock, SharedFeatures
from gemma_nli.training.frozen.head_inputs import feature_request
from tests.sweep.test_layers_of_a_space import sweep


@pytest.mark.usefixtures("local_ray")
def test_trials_that_ask_alike_load_the_encoder_once_and_other_layers_get_their_own(
    tiny_gemma3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"model.layers": {"grid": [0, 1]}, "model.pooling_strategy": {"grid": ["attention", "mean"]}}
    ready = prepare(sweep(tmp_path, tiny_gemma3, space))
    (request,) = feature_requests(ready)
    store = FeatureStore(tmp_path / "features", FeaturesConfig(token_budget_gib=0))
    arrays = ray.put(store.load(request).to_arrays())
    shared = SharedBlock(request.key, frozenset(request.views), frozenset(request.token_parts), arrays)
    source = SharedFeatures((shared,), store)
    loaded: list[str] = []
    load = encode_texts.load_for
    monkeypatch.setattr(encode_texts, "load_for", lambda asked: loaded.append(asked.key) or load(asked))
    rows = ready.pairs.rows_used(1.0)

    def states(**settings: object) -> object:
        config = ready.spec.base.with_settings({"model.pooling_strategy": "attention", **settings})
        asked = feature_request(config, ready.corpus, ready.pairs, rows)
        block = source.load(asked)
        return block.token_batch(block.rows_of(asked.digests[:2]))[0]

    one = states(**{"model.layers": 1, "model.dropout": 0.1})
    again = states(**{"model.layers": 1, "model.dropout": 0.5})
    assert bool((one == again).all())
    assert len(loaded) == 1
    assert not bool((states(**{"model.layers": 0}) == one).all())
    assert len(loaded) == 2
    plain = ready.spec.base.with_settings({"model.layers": 1})
    asked = feature_request(plain, ready.corpus, ready.pairs, rows)
    assert source.load(asked).view("mean@1").shape == (len(request.unique_rows), 32)
    assert len(loaded) == 2
