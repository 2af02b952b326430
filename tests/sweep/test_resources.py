"""A trial's share: packed node by node, never over what a node has, and open to nodes that join."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemma_nli.base.errors import SweepError
from gemma_nli.spec.sweep_sections import Resources
from gemma_nli.sweep.cluster import autoscaling as waiting
from gemma_nli.sweep.cluster.autoscaling import wait_for_nodes
from gemma_nli.sweep.cluster.trial_resources import Node, choose, slots
from gemma_nli.sweep.prepare import Prepared, prepare
from tests.sweep.conftest import spec_of


def asked(ready: Prepared, **resources) -> Prepared:
    settings = {"max_concurrent": None, **resources}
    return replace(ready, spec=ready.spec.model_copy(update={"resources": Resources(**settings)}))


@pytest.fixture
def ready(sweep_tree) -> Prepared:
    return prepare(spec_of(sweep_tree))


@pytest.mark.parametrize(
    ("node", "cpu", "gpu", "fits"),
    [
        (Node(16, 16), 1, 0.5, 16),  # CPUs bind
        (Node(64, 4), 1, 0.3, 12),  # three to a GPU: a tenth of each stays free, no trial spans two
        (Node(64, 4), 1, 3, 1),
        (Node(0, 0), 1, 0, 0),
        (Node(8, 1), 0.1, 0, 80),
    ],
)
def test_fractions_are_packed_and_never_oversubscribed(node, cpu, gpu, fits):
    assert slots(node, cpu, gpu) == fits
    assert fits * cpu <= node.cpus + 1e-9
    assert fits * gpu <= node.gpus + 1e-9


def test_a_trial_must_fit_one_node_whatever_all_together_have(ready):
    with pytest.raises(SweepError, match=r"4 GPUs on one node, but the largest of 3 nodes has 16 and 2"):
        choose(asked(ready, gpu=4), [Node(16, 2)] * 3, 24.0)
    assert choose(asked(ready, gpu=2), [Node(16, 2)] * 3, 24.0).concurrent == 3


@pytest.mark.parametrize(("most", "runs"), [(None, 8), (1, 1), (5, 5), (8, 8), (50, 8)])
def test_no_more_trials_run_at_a_time_than_the_user_allows_or_than_fit(ready, most, runs):
    found = choose(asked(ready, max_concurrent=most), [Node(4, 0), Node(4, 0)], 0.0)
    assert (found.concurrent, found.limit) == (runs, runs)
    assert found.pending >= runs, "Ray's queue never holds back a trial that could run"


def test_what_is_asked_of_ray_is_what_was_chosen(ready):
    assert choose(asked(ready, cpu=2), [Node(4, 0)], 0.0).request() == {"CPU": 2.0}
    found = choose(asked(ready, gpu=0.5), [Node(4, 2)], 24.0)
    assert (found.request(), found.concurrent) == ({"CPU": 1.0, "GPU": 0.5}, 4)


def test_on_a_cluster_that_can_grow_only_the_user_limits_how_many_run(ready):
    here = choose(asked(ready), [Node(2, 0)], 0.0)
    assert (here.concurrent, here.limit, here.pending) == (2, 2, 2)
    there = choose(asked(ready), [Node(2, 0)], 0.0, growing=True)
    assert (there.concurrent, there.limit, there.pending) == (2, None, 200)
    limited = choose(asked(ready, max_concurrent=3), [Node(2, 0)], 0.0, growing=True)
    assert (limited.limit, limited.pending) == (3, 3)
    search = ready.spec.search.model_copy(update={"algorithm": "optuna"})
    searching = asked(replace(ready, spec=ready.spec.model_copy(update={"search": search})))
    assert choose(searching, [Node(2, 0)], 0.0, growing=True).pending == 1  # a sampler asked ahead knows less


@pytest.mark.usefixtures("local_ray")
def test_a_node_that_never_comes_ends_the_wait_with_what_was_wanted(monkeypatch):
    reported: list[str] = []
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.01)
    monkeypatch.setenv(waiting.WAIT, "0.002")
    with pytest.raises(SweepError, match=r"no node with 3 CPU and 8 GPU started within 0\.002 minutes"):
        wait_for_nodes(Resources(cpu=3, gpu=8), reported.append)
    assert reported == ["waiting"]
    monkeypatch.setenv(waiting.WAIT, "soon")
    with pytest.raises(SweepError, match="number of minutes, got 'soon'"):
        wait_for_nodes(Resources(), reported.append)


@pytest.mark.usefixtures("local_ray")
def test_nothing_is_waited_for_where_a_node_is_there_or_none_can_come(monkeypatch):
    reported: list[str] = []
    wait_for_nodes(Resources(gpu=8), reported.append)
    monkeypatch.setenv(waiting.WAIT, "10")
    wait_for_nodes(Resources(gpu=0), reported.append)
    assert reported == []
