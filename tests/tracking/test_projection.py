from __future__ import annotations

import math
from pathlib import Path

import mlflow.utils.validation as limits
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.tracking.write import projection as shape
from gemma_nli.tracking.write.projection import MetricPoint, batches, metric_rows, safe_name, safe_names
from tests.tracking.conftest import a_trial


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 350), st.integers(0, 3500), st.integers(0, 250), st.sampled_from([1, 500, 5900]))
def test_batches_hold_everything_in_order_within_mlflows_limits(params, metrics, tags, size):
    wanted_params = {f"p{i}": "x" * size for i in range(params)}
    wanted_tags = {f"t{i}": "x" * size for i in range(tags)}
    points = [MetricPoint(f"m{i}", 0.5) for i in range(metrics)]
    made = list(batches(wanted_params, points, wanted_tags))
    for batch in made:
        assert len(batch.params) <= limits.MAX_PARAMS_TAGS_PER_BATCH >= len(batch.tags)
        assert 0 < len(batch) <= limits.MAX_ENTITIES_PER_BATCH
        assert sum(len(v) for v in [*batch.params.values(), *batch.tags.values()]) < limits.MAX_BATCH_LOG_REQUEST_SIZE
    assert {k: v for batch in made for k, v in batch.params.items()} == wanted_params
    assert {k: v for batch in made for k, v in batch.tags.items()} == wanted_tags
    assert [point for batch in made for point in batch.metrics] == points
    if size == 1:
        assert len(made) <= math.ceil(params / 100) + math.ceil(metrics / 1000) + math.ceil(tags / 100)


@pytest.mark.parametrize(("metrics", "calls"), [(800, 1), (910, 1), (911, 2), (4910, 5)])
def test_a_usual_trial_is_as_few_batches_as_can_be(metrics, calls):
    points = [MetricPoint(f"m{i}", 0.5) for i in range(metrics)]
    made = list(batches({f"p{i}": "1" for i in range(60)}, points, {f"t{i}": "1" for i in range(30)}))
    assert len(made) == calls
    assert "t29" in made[-1].tags


@settings(deadline=None)
@given(st.text(max_size=400))
def test_every_name_becomes_one_that_mlflow_takes(name):
    legal = safe_name(name)
    assert limits.validate_param_and_metric_name(legal)
    assert not limits.path_not_unique(legal)
    assert 0 < len(legal) <= limits.MAX_ENTITY_KEY_LENGTH
    assert safe_name(legal) == legal


@settings(deadline=None)
@given(st.lists(st.text("ab@#_/", max_size=4), max_size=12))
def test_two_names_never_become_one(names):
    made = safe_names(names)
    assert len(set(made.values())) == len(set(names))


def test_a_point_given_twice_counts_once_the_last_time():
    rows, _ = metric_rows([MetricPoint("a", 1.0, 1), MetricPoint("a", 2.0, 1), MetricPoint("a", 3.0, 2)])
    assert [(row.step, row.value) for row in rows] == [(1, 2.0), (2, 3.0)]


def test_the_digest_follows_all_that_the_run_shows(tmp_path: Path):
    file = tmp_path / "f"
    file.write_text("a")
    base = a_trial(artifacts={"f": file})
    assert base.digest() == a_trial(artifacts={"f": file}).digest()
    changes = [
        {"params": {"a": 1}},
        {"metrics": [MetricPoint("a", 1.0)]},
        {"tags": {"a": "1"}},
        {"artifacts": {"f": b"a"}},
        {"ended_ms": 5},
        {"error": "x"},
        {"state": "failed"},
    ]
    digests = {a_trial(**{"artifacts": {"f": file}, **change}).digest() for change in changes}
    file.write_text("longer")
    assert len(digests | {base.digest(), a_trial().digest()}) == len(changes) + 2


def test_our_limits_are_mlflows():
    assert (shape.MAX_BATCH, shape.MAX_METRICS) == (limits.MAX_ENTITIES_PER_BATCH, limits.MAX_METRICS_PER_BATCH)
    assert shape.MAX_PARAMS == shape.MAX_TAGS == limits.MAX_PARAMS_TAGS_PER_BATCH
    assert (shape.MAX_PARAM, shape.MAX_TAG) == (limits.MAX_PARAM_VAL_LENGTH, limits.MAX_TAG_VAL_LENGTH)
    assert shape.MAX_KEY == limits.MAX_ENTITY_KEY_LENGTH
    assert shape.MAX_BATCH_BYTES < limits.MAX_BATCH_LOG_REQUEST_SIZE
