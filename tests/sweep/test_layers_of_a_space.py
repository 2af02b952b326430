"""Layers that a sweep asks for: all of them from one pass, and a layer that an encoder lacks refused before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import FeaturesConfig, RunConfig
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.features import FeatureBlock, FeatureStore
from gemma_nli.features.encode_texts import layers_read, load_for
from gemma_nli.model.encoder import load_encoder
from gemma_nli.model.layers import reading
from gemma_nli.model.pooling import build_pooler
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.check_layers import layer_notes
from gemma_nli.sweep.forecast.plan import plan_sweep
from gemma_nli.sweep.prepare import feature_requests, prepare
from gemma_nli.training.frozen.head_inputs import feature_request

VIEWS = ("mean", "last", "max")


def sweep(folder: Path, encoder: Path, space: dict[str, Any], max_length: int = 24, **search: Any) -> SweepSpec:
    if not (folder / "data").exists():
        write_synthetic(folder / "data", num_posts=24, seed=2)
    tree = {
        "name": "layers",
        "base": {
            "data": {"data_dir": str(folder / "data"), "num_folds": 3},
            "model": {"name": str(encoder), "max_length": max_length},
            "device": {"device": "cpu", "mixed_precision": "none"},
            "mlflow": {"enabled": False},
        },
        "space": space,
        "search": search or {"algorithm": "grid"},
        "storage": str(folder / "storage"),
    }
    return SweepSpec.from_mapping(tree, "layers")


def test_every_layer_and_pooling_comes_out_of_one_pass_and_nothing_else_is_kept(tiny_gemma3: Path, tmp_path: Path):
    space = {"model.layers": {"grid": [0, 1, [0, 1], "mix"]}, "model.pooling_strategy": {"grid": list(VIEWS)}}
    ready = prepare(sweep(tmp_path, tiny_gemma3, space))
    (request,) = feature_requests(ready)
    asked = {f"{view}{at}" for view in VIEWS for at in ("", "@0", "@1")}
    assert set(request.views) == asked  # `mix` is of layers 1 and 2, the last
    store = FeatureStore(tmp_path / "storage" / "features")
    texts = len(request.unique_rows)
    assert [store.ensure(request).encoded, store.ensure(request).encoded] == [texts, 0]
    plain = ("mean", "max", "cls", "last", "first_k:4", "last_k:4")
    (kept,) = store.entries()
    assert set(kept.views) == asked | set(plain)

    block, model = store.load(request), request.model
    encoder = load_encoder(model.model_copy(update={"layers": (0, 1)}), request.pinned_device)
    tokens = encoder.tokenize(request.premises[:4], request.hypotheses[:4] if request.hypotheses else None)
    rows = block.rows_of(request.digests[:4])
    for row in range(4):
        batch = encoder.collate(tokens, [row])
        parts = encoder(batch).detach().chunk(2, -1)
        for number, h_1TH in enumerate(parts):
            for view in VIEWS:
                want = build_pooler(view, 32)(h_1TH, batch["attention_mask"])[0].numpy()
                found = block.view(f"{view}@{number}")[rows[row]].numpy()
                np.testing.assert_allclose(found, want, atol=1e-5, err_msg=f"{view}@{number}")


@pytest.mark.parametrize("budget", [4.0, 2e-5, 0.0])
def test_learned_poolings_of_every_layer_come_out_of_the_same_pass(budget: float, tiny_gemma3: Path, tmp_path: Path):
    """Whatever of the states is kept: what is not kept is computed again, and the numbers are the same."""
    layers = [0, [1, 0], "mix", "last"]
    space = {"model.layers": {"grid": layers}, "model.pooling_strategy": {"grid": ["mean", "attention"]}}
    ready = prepare(sweep(tmp_path, tiny_gemma3, space))
    (request,) = feature_requests(ready)
    assert request.token_parts == ("tokens@0", "tokens@1", "tokens")
    settings = FeaturesConfig(token_budget_gib=budget)
    store = FeatureStore(tmp_path / f"store_{budget}", settings)
    assert [store.ensure(request).encoded, store.ensure(request).encoded] == [len(request.unique_rows), 0]

    whole = store.load(request)
    shared = FeatureBlock.from_arrays(whole.to_arrays())
    assert whole.kept_share() == (1.0 if budget == 4.0 else pytest.approx(0.5, abs=0.49) if budget else 0.0)
    rows = ready.pairs.rows_used(1.0)
    for layer in layers:
        config = ready.spec.base.with_settings({"model.layers": layer, "model.pooling_strategy": "attention"})
        own = feature_request(config, ready.corpus, ready.pairs, rows)
        assert own.key == request.key
        encoder = load_for(own)
        with reading(encoder, layers_read(own, encoder)):
            tokens = encoder.tokenize(own.premises[:3], own.hypotheses[:3] if own.hypotheses else None)
            plain = [encoder(encoder.collate(tokens, [row])).detach()[0] for row in range(3)]
        each = len(own.layers)
        for block in (store.load(own), shared.asked_by(own)):
            h_BTD, mask_BT = block.token_batch(block.rows_of(own.digests[:3]))
            for row in range(3):
                want = torch.cat([plain[row].chunk(each, -1)[at] for at in own.token_places], dim=-1)
                np.testing.assert_allclose(h_BTD[row][mask_BT[row]].numpy(), want.numpy(), atol=1e-5)


def test_templates_wordings_and_layers_encode_each_text_once(tiny_gemma3: Path, tmp_path: Path):
    """4 templates x 3 wordings x 6 layers, and a second sweep over other heads encodes nothing."""
    templates = ["native", "Post: {premise}\n{hypothesis}", "{hypothesis}: {premise}", "{premise} So {hypothesis}?"]
    space = {
        "model.template": {"grid": templates},
        "data.wording": {"grid": ["full", "short", "question"]},
        "model.layers": {"grid": [0, 1, 2, [0, 1], [1, 2], "mix"]},
    }
    spec = sweep(tmp_path, tiny_gemma3, space, max_length=128)
    ready = prepare(spec)
    assert len(ready.cells) == 72
    store = FeatureStore(tmp_path / "storage" / "features")
    requests = feature_requests(ready)
    asked = {(request.template, digest) for request in requests for digest in request.digests}
    assert sum(store.ensure(request).encoded for request in requests) == len(asked)
    one = feature_request(spec.base, ready.corpus, ready.pairs, ready.pairs.rows_used(1.0))
    assert len(asked) == 12 * len(one.unique_rows)  # a pair in each template and wording is a text of its own
    again = sweep(tmp_path, tiny_gemma3, {**space, "model.head": {"grid": ["mlp"]}}, max_length=128)
    assert [store.ensure(request).encoded for request in feature_requests(prepare(again))] == [0] * len(requests)


REFUSED = {
    "a grid": ({"model.layers": {"grid": ["last", 9]}}, {}),
    "a grid's list": ({"model.layers": {"grid": ["last", [1, -3]]}}, {}),
    "one trial of a study": ({"model.layers": {"choice": [*[1] * 40, 2, "mix", 9]}}, {"num_trials": 2}),
    "a study's range": ({"model.layers": {"int": [-2, 9]}}, {"num_trials": 2}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_layer_that_the_encoder_lacks_is_refused_in_any_trial_of_the_space(kind, tiny_bert: Path, tmp_path: Path):
    space, study = REFUSED[kind]
    search = {"algorithm": "optuna", **study} if study else {}
    with pytest.raises(EncoderError, match=r"model\.layers: .*(9|8|-3).*, but .*tiny_bert has 2 layers"):
        plan_sweep(sweep(tmp_path, tiny_bert, space, **search))


def test_a_layer_is_asked_only_of_the_encoders_that_a_space_lets_have_it(tiny_bert: Path, minilm: Path, tmp_path: Path):
    names = {"choice": [str(tiny_bert), str(minilm)]}
    for encoder, refused in ((minilm, False), (tiny_bert, True)):
        space = {"model.name": names, "model.layers": {"choice": [3, 6], "when": {"model.name": str(encoder)}}}
        spec = sweep(tmp_path, tiny_bert, space, algorithm="optuna", num_trials=2)
        if refused:
            with pytest.raises(EncoderError, match=r"tiny_bert has 2 layers"):
                plan_sweep(spec)
        else:
            assert plan_sweep(spec)["cells"] == 2


def test_the_plan_says_which_states_have_the_final_norm(tiny_bert: Path, tiny_gemma3: Path) -> None:
    def notes(encoder: Path, layers: Any) -> list[str]:
        return layer_notes([RunConfig().with_settings({"model.name": str(encoder), "model.layers": layers})])

    assert notes(tiny_gemma3, 1) == [
        f"{tiny_gemma3}: layer 2, the last, has the encoder's final norm; the layers below it have none."
    ]
    assert notes(tiny_bert, [1, 2]) == [
        f"{tiny_bert}: no final norm after its 2 layers was found; all are read as they are."
    ]
    assert notes(tiny_gemma3, "last") == notes(tiny_gemma3, 2) == []
