from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from gemma_nli.config import FeaturesConfig
from gemma_nli.features import FeatureStore, encode, load_for
from gemma_nli.features import encode_texts as encoding_module
from gemma_nli.features.prefix import shared_prefix
from gemma_nli.features.prefix_probe import reusable_tokens

WORDS = ["i", "feel", "so", "tired", "and", "sad", "every", "day", "nothing", "is", "fun", "anymore", "my", "sleep"]
CRITERIA = ["depressed mood", "loss of interest in all activities of every day", "fatigue", "guilt", "no appetite"]
PLAIN, REUSED = FeaturesConfig(prefix_reuse=False), FeaturesConfig(prefix_reuse=True)


def pairs(count: int, seed: int = 0, longest: int = 60) -> tuple[list[str], list[str]]:
    """Posts of many lengths, each with some of the criteria, one with a single one, in no order."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        post = f"{number} " + " ".join(draw.choices(WORDS, k=draw.randint(1, longest)))
        rows += [(post, criterion) for criterion in draw.sample(CRITERIA, 1 if number == 0 else draw.randint(1, 5))]
    draw.shuffle(rows)
    return [post for post, _ in rows], [criterion for _, criterion in rows]


@pytest.fixture(params=["tiny_gemma2", "tiny_gemma3"])
def gemma(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("batch_tokens", [64, 300, 4096], ids=["post by post", "few posts", "all posts"])
@pytest.mark.parametrize("max_length", [24, 512], ids=["cut", "whole"])
def test_views_and_states_equal_the_plain_way(gemma, request_for, max_length, batch_tokens):
    """The models' sliding window is 8 tokens, so most texts are longer; at 24 tokens most posts are cut."""
    request = request_for(gemma, *pairs(9), with_tokens=True, max_length=max_length)
    encoder = load_for(request)
    plain = encode(request, encoder, PLAIN)
    reused = encode(request, encoder, FeaturesConfig(batch_tokens=batch_tokens))
    assert reused.slots < plain.slots, "nothing was reused"
    assert reused.digests == plain.digests
    np.testing.assert_array_equal(reused.lengths, plain.lengths)
    for view, want_NH in plain.views.items():
        np.testing.assert_allclose(reused.views[view], want_NH, atol=1e-5, rtol=1e-5, err_msg=view)
    assert reused.tokens is not None
    assert plain.tokens is not None
    np.testing.assert_array_equal(reused.tokens.offsets, plain.tokens.offsets)
    np.testing.assert_allclose(reused.tokens.layers["tokens"], plain.tokens.layers["tokens"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_views_equal_the_plain_way_on_other_texts(gemma, request_for, seed):
    request = request_for(gemma, *pairs(12, seed, longest=20), max_length=128)
    encoder = load_for(request)
    plain, reused = (encode(request, encoder, settings) for settings in (PLAIN, REUSED))
    for view, want_NH in plain.views.items():
        np.testing.assert_allclose(reused.views[view], want_NH, atol=1e-5, rtol=1e-5, err_msg=view)


@pytest.fixture
def refused(monkeypatch):
    def never(*_):
        raise AssertionError("a prefix was reused")

    monkeypatch.setattr(encoding_module, "encode_by_prefix", never)


@pytest.mark.parametrize("family", ["lfm2", "falcon_h1", "recurrent_gemma", "mamba", "mistral", "gpt_oss"])
@pytest.mark.parametrize("batch_tokens", [64, 4096], ids=["post by post", "all posts"])
def test_whatever_a_models_cache_keeps_pairs_have_their_own_vectors(family, batch_tokens, tiny_encoder, request_for):
    """Running states beside keys and values (hybrids), windows of 8 tokens, experts."""
    request = request_for(tiny_encoder(family), *pairs(7, longest=30), max_length=64)
    encoder = load_for(request)
    plain, reused = (
        encode(request, encoder, FeaturesConfig(batch_tokens=batch_tokens, prefix_reuse=reuse))
        for reuse in (False, True)
    )
    assert (reused.slots < plain.slots) == (family in ("mistral", "gpt_oss"))
    for view, want_NH in plain.views.items():
        np.testing.assert_allclose(reused.views[view], want_NH, atol=1e-5 * np.abs(want_NH).max(), err_msg=view)


@pytest.mark.own_probes
def test_that_prefixes_are_not_reused_is_said_once(tiny_encoder, request_for, caplog):
    request = request_for(tiny_encoder("lfm2"), *pairs(3))
    for _ in range(2):
        encode(request, load_for(request), REUSED)
    assert [record.message for record in caplog.records if "prefix reuse" in record.message] == [
        f"features: prefix reuse gives other states than {request.model.name} itself; each pair is encoded whole, "
        "which is slower."
    ]


def test_prefixes_are_not_reused_past_a_window_that_was_not_tried(tiny_encoder, request_for, monkeypatch):
    request = request_for(tiny_encoder("mistral", sliding_window=48), *pairs(9), max_length=96)
    encoder = load_for(request)
    assert reusable_tokens(encoder) == 96
    monkeypatch.setattr("gemma_nli.features.prefix_probe.affordable_tokens", lambda encoder, length: 40)
    encoder.notes.path.unlink()
    assert reusable_tokens(encoder) == 48
    plain, reused = (encode(request, encoder, settings) for settings in (PLAIN, REUSED))
    assert reused.slots < plain.slots
    for view, want_NH in plain.views.items():
        np.testing.assert_allclose(reused.views[view], want_NH, atol=1e-5, rtol=1e-5, err_msg=view)


@pytest.mark.usefixtures("refused")
def test_bidirectional_attention_goes_the_plain_way(gemma, request_for):
    request = request_for(gemma, *pairs(4), attention="bidirectional")
    encoder = load_for(request)
    assert reusable_tokens(encoder) == 0
    encode(request, encoder, REUSED)


@pytest.mark.usefixtures("refused")
def test_an_encoder_that_sees_both_ways_by_making_goes_the_plain_way(tiny_bert, request_for):
    request = request_for(tiny_bert, *pairs(4))
    encode(request, load_for(request), REUSED)


@pytest.mark.usefixtures("refused")
def test_texts_alone_and_a_switched_off_setting_go_the_plain_way(gemma, request_for):
    alone = request_for(gemma, pairs(4)[0])
    encode(alone, load_for(alone), REUSED)
    joint = request_for(gemma, *pairs(4))
    encode(joint, load_for(joint), PLAIN)


def test_posts_with_one_criterion_cost_what_they_cost_the_plain_way(gemma, request_for):
    posts = [f"{number} i feel tired" for number in range(5)]
    request = request_for(gemma, posts, ["fatigue"] * 5)
    encoder = load_for(request)
    assert encode(request, encoder, REUSED).slots == encode(request, encoder, PLAIN).slots


@pytest.mark.parametrize(
    ("sequences", "shared"),
    [
        ([[1, 2, 3, 9], [1, 2, 4]], 2),
        ([[1, 2], [1, 2]], 1),
        ([[1, 2, 3], [1, 2]], 1),
        ([[5], [1]], 0),
        ([[1, 2, 3]], 0),
        ([[1, 2, 3], [1, 7, 3], [1, 2, 3]], 1),
    ],
)
def test_a_shared_prefix_leaves_each_pair_a_token_of_its_own(sequences, shared):
    assert shared_prefix(sequences) == shared


def test_a_trial_in_another_process_cannot_tell_which_way_was_taken(gemma, request_for, tmp_path):
    request = request_for(gemma, *pairs(6), with_tokens=True, max_length=128)
    by_prefix, plain = FeatureStore(tmp_path, REUSED), FeatureStore(tmp_path, PLAIN)
    assert by_prefix.ensure(request).encoded > 0
    assert plain.ensure(request).encoded == 0
    block = plain.load(request)
    rows = block.positions(request.premises, request.hypotheses)
    recomputed = FeatureStore(tmp_path / "other", FeaturesConfig(token_budget_gib=0)).load(request)
    again = recomputed.positions(request.premises, request.hypotheses)
    torch.testing.assert_close(block.token_batch(rows)[0], recomputed.token_batch(again)[0], atol=1e-5, rtol=1e-5)
