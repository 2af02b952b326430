"""Run by tests/cluster/test_jobs.py: a sweep of one trained trial on two nodes; the node that runs it is taken away."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.cluster.ray_session import ray_session
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.prepare import prepare
from gemma_nli.trial import TrialJournal, read_trial


def main(folder: Path, encoder: str) -> None:
    spec = SweepSpec.from_mapping(
        {
            "name": "lost",
            "base": {
                "data": {"data_dir": str(folder / "data")},
                "model": {"name": encoder, "max_length": 64, "freeze_encoder": False},
                "training": {"num_epochs": 12, "batch_size": 4},
                "mlflow": {"enabled": False},
            },
            "space": {"model.pooling_strategy": {"grid": ["mean"]}},
            "resources": {"cpu": 1, "max_failures": 3},
            "storage": str(folder / "storage"),
        }
    )
    scratch = tempfile.mkdtemp(prefix="ray")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "temp_dir": scratch})
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    ray.init(address=cluster.address, log_to_driver=False)
    key = next(iter(prepare(spec).cells))

    def take_away() -> None:
        while True:
            record = read_trial(Path(spec.storage), key)
            if record is not None and record.folds:
                break
            time.sleep(0.05)
        actors = [actor for actor in ray._private.state.actors().values() if actor["State"] == "ALIVE"]
        busy = {actor["Address"]["NodeID"] for actor in actors}
        lost = next(node for node in nodes if node.node_id in busy)
        cluster.remove_node(lost, allow_graceful=False)

    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    with ray_session():
        result = run_sweep(spec)
    record = read_trial(Path(spec.storage), key)
    assert record is not None
    events = [event for event in TrialJournal(Path(spec.storage), key).events() if event["event"] == "folds"]
    computed = [fold["fold"] for event in events for fold in event["folds"]]
    print(json.dumps({"trials": result.trials, "folds_computed": computed, "attempts": record.attempts}))
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
