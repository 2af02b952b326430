"""Hosts that share a bucket and no folder: the sweep's numbers are those of one machine without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gemma_nli.config import home
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.features import FeatureStore
from gemma_nli.training.cross_validation import cross_validate
from gemma_nli.trial import read_trial
from tests import gcs_server, s3_server
from tests.cluster.local_cluster import local_cluster
from tests.cluster.test_jobs import sweep_tree
from tests.s3_server import SECRET

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(
    "serving",
    [
        pytest.param(s3_server.serving, id="s3", marks=pytest.mark.cluster),
        pytest.param(gcs_server.serving, id="gcs", marks=pytest.mark.slow),
    ],
)
def test_nodes_that_share_only_a_bucket_run_a_sweep_once_and_to_the_same_numbers(
    serving: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_cluster() as hosts, serving(hosts.gateway) as store:
        hosts.extra = store.environment()
        write_synthetic(hosts.scratch / "data", num_posts=60, seed=3)
        hosts.head(cpus=0, prepare=f"mkdir -p {hosts.private} && cp -r {hosts.scratch / 'data'} {hosts.private}/data")
        for _ in range(2):
            hosts.worker(cpus=1)
        tree = sweep_tree(hosts, tiny_bert, name="apart", storage=str(store.place("kept")))
        tree["space"]["training.learning_rate"] = {"grid": ["1e-3", "1e-2"]}
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
        words = ["submit", "x.yaml", "--follow", "--address", hosts.address]
        reported = []
        for _ in range(2):
            ended = hosts.run("python", "-m", "gemma_nli", *words, cwd=tmp_path, seconds=400)
            assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
            assert SECRET not in ended.stdout + ended.stderr
            (result,) = [key for key in store.names() if key.endswith("/result.json")]
            reported.append(json.loads(store.read(result)))
        assert [each["ran"] for each in reported] == [4, 0]
        assert reported[0]["trials"] == {"finished": 4, "pruned": 0, "failed": 0}
        assert reported[0]["registered"]["version"] == reported[1]["registered"]["version"] == 1

        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        storage, corpus = store.place("kept"), load_corpus(str(hosts.scratch / "data"))
        keys = {key.split("/")[-2] for key in store.names() if key.endswith("/journal.jsonl")}
        assert len(keys) == 4
        for key in keys:
            record = read_trial(storage, key)
            assert record is not None
            assert record.attempts == 1
            pairs = build_pairs(corpus, record.config.data)
            alone = cross_validate(record.config, corpus, pairs, FeatureStore(home() / "features"))
            assert record.aggregates == pytest.approx(alone.aggregates, abs=1e-6)
