"""Where this process starts Ray for itself, it encodes while Ray starts: the same features, given up at once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import ray

from gemma_nli.base.errors import EncoderError
from gemma_nli.features import FeatureStore
from gemma_nli.sweep.prepare import Prepared, feature_requests, prepare
from gemma_nli.sweep.ray import encode_corpus as encoding
from gemma_nli.sweep.ray.encode_corpus import Encoding, encode_on_nodes
from tests.sweep.conftest import spec_of


@pytest.fixture
def alone(monkeypatch, local_ray):
    """As if no Ray ran yet when the encoding begins."""
    monkeypatch.setattr(encoding, "starts_its_own", lambda: True)


@pytest.fixture
def ready(sweep_tree) -> Prepared:
    return prepare(spec_of(sweep_tree))


def arrays_of(blocks):
    return [ray.get(block.arrays) for block in blocks]


def test_it_encodes_here_what_nodes_would_have_encoded_and_says_how_far_it_is(alone, ready, tmp_path):
    requests, reported = feature_requests(ready), []
    with Encoding(
        requests, ready.storage, ready.spec.base.features, lambda done, of: reported.append((done, of))
    ) as here:
        blocks, reports = here.shared()
    texts = len(requests[0].unique_rows)
    assert [(report.encoded, report.reused) for report in reports] == [(texts, 0)]
    assert reported == sorted(reported)
    assert reported[-1] == (texts, texts)
    there, _ = encode_on_nodes(requests, tmp_path / "elsewhere", ready.spec.base.features)
    for mine, theirs in zip(arrays_of(blocks), arrays_of(there), strict=True):
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            np.testing.assert_array_equal(values, theirs[name])
    with Encoding(requests, ready.storage, ready.spec.base.features) as again:
        assert [report.encoded for report in again.shared()[1]] == [0]


def test_left_before_its_end_it_stops_at_the_next_batch_and_leaves_nothing_half(alone, ready):
    first, settings = threading.Event(), ready.spec.base.features.model_copy(update={"batch_tokens": 64})
    seen = []

    def slow(done, of):
        seen.append((done, of))
        first.set()
        time.sleep(0.05)

    requests = feature_requests(ready)
    with Encoding(requests, ready.storage, settings, slow):
        assert first.wait(30)
    assert seen[-1][0] < seen[-1][1], "it went on to its end"
    assert FeatureStore(ready.storage / "features", settings).missing(requests[0]) == requests[0].unique_rows


def test_an_encoder_that_is_gone_is_told_when_its_features_are_asked_for(alone, ready, monkeypatch):
    def gone(*_):
        raise EncoderError("it is not there")

    monkeypatch.setattr("gemma_nli.features.store.load_for", gone)
    features = ready.spec.base.features
    with (
        Encoding(feature_requests(ready), ready.storage, features) as here,
        pytest.raises(EncoderError, match="not there"),
    ):
        here.shared()


def test_in_a_cluster_the_nodes_encode(local_ray, ready, monkeypatch):
    monkeypatch.setattr(Encoding, "_encode_here", None)  # a call of it would fail
    with Encoding(feature_requests(ready), ready.storage, ready.spec.base.features) as there:
        assert there.shared()[1][0].encoded > 0
