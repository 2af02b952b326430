"""Pairs set into templates: encoded once each, a shared beginning computed once, with equal vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gemma_nli.config import FeaturesConfig
from gemma_nli.features import FeatureRequest, FeatureStore, encode, load_for
from gemma_nli.model.prompts import prompts_of

POST_FIRST = "Post: {premise}\nStatement: {hypothesis}\nAnswer:"
CRITERION_FIRST = "Does a post show that {hypothesis}?\nPost: {premise}"
WORDS = ["i", "feel", "so", "tired", "and", "sad", "every", "day", "nothing", "is", "fun", "anymore", "my", "sleep"]
POSTS = [" ".join(WORDS[(place * 3) % 7 :] * (1 + place % 4)) + f" {place}" for place in range(12)]
CRITERIA = ["depressed mood", "loss of interest in all activities of every day", "fatigue", "guilt", "no appetite"]


def framed(request_for: Any, folder: Any, template: str, posts: list[str] = POSTS, **settings: Any) -> FeatureRequest:
    pairs = [(post, criterion) for post in posts for criterion in CRITERIA]
    plain = request_for(folder, *map(list, zip(*pairs, strict=True)), template=template, **settings)
    _, _, prompts = prompts_of(plain.model).pairs(plain.premises, plain.hypotheses)
    return replace(plain, prompts=prompts)


@pytest.mark.parametrize("template", [POST_FIRST, CRITERION_FIRST])
@pytest.mark.parametrize("max_length", [72, 512], ids=["cut", "whole"])
def test_vectors_equal_those_of_pairs_encoded_whole(tiny_gemma3, request_for, template: str, max_length: int) -> None:
    request = framed(request_for, tiny_gemma3, template, max_length=max_length, with_tokens=True)
    encoder = load_for(request)
    plain, reused = (
        encode(request, encoder, FeaturesConfig(prefix_reuse=reuse, batch_tokens=600)) for reuse in (False, True)
    )
    assert reused.slots < plain.slots, "nothing was reused"
    for view, want_NH in plain.views.items():
        np.testing.assert_allclose(reused.views[view], want_NH, atol=1e-5, rtol=1e-5, err_msg=view)
    assert plain.tokens is not None
    assert reused.tokens is not None
    np.testing.assert_allclose(reused.tokens.layers["tokens"], plain.tokens.layers["tokens"], atol=1e-5, rtol=1e-5)


def test_a_post_first_costs_little_more_than_posts_alone_and_what_follows_them(tiny_gemma3, request_for) -> None:
    posts = [f"{' '.join(WORDS * (1 + place % 6))} {place}" for place in range(60)]
    request = framed(request_for, tiny_gemma3, POST_FIRST, posts, max_length=512)
    encoder = load_for(request)
    before, _, _ = POST_FIRST.partition("{hypothesis}")
    begun = encoder.tokenize([before.format(premise=post) for post in posts]).lengths.sum()
    whole = encoder.tokenize(request.premises, request.hypotheses, request.prompts).lengths.sum()
    suffixes = whole - len(CRITERIA) * begun
    found = encode(request, encoder, FeaturesConfig())
    assert found.slots <= 1.3 * (begun + suffixes)
    assert found.slots < 0.6 * whole


def test_each_template_has_vectors_of_its_own_in_one_folder_and_native_ones_have_their_old_key(
    tiny_gemma3, request_for, tmp_path
) -> None:
    store = FeatureStore(tmp_path)
    one, other = (framed(request_for, tiny_gemma3, template, POSTS[:3]) for template in (POST_FIRST, CRITERION_FIRST))
    native = framed(request_for, tiny_gemma3, "native", POSTS[:3])
    assert one.key == other.key != native.key
    assert native.facts["template"] == "joint/1"
    both = FeatureRequest.merged([one, other, one])
    assert store.ensure(both).encoded == 2 * len(one)
    assert [store.ensure(request).encoded for request in (one, other, both)] == [0, 0, 0]
    alone = FeatureStore(tmp_path / "alone").load(other)
    block = store.load(both)
    np.testing.assert_allclose(
        block.view("mean")[block.rows_of(other.digests)], alone.view("mean")[alone.rows_of(other.digests)], atol=1e-5
    )
