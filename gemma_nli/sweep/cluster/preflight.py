"""What a cluster must have before a sweep is queued on it: checked on the head and on every running node.

The driver runs on the head: it reads the data, whose pairs then travel through Ray's object store, and it alone talks
to MLflow. Trials run anywhere: each node needs the shared storage, the same weights and the same version of this
package. Everything missing is reported in one sentence each.
"""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gemma_nli.base.errors import GemmaNliError, StorageError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.base.version import __version__
from gemma_nli.config import ModelConfig
from gemma_nli.corpus.sealed import training_corpus
from gemma_nli.model.loading.identity import identify_encoder
from gemma_nli.model.loading.sentence_modules import native_way
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place, Prefix, place_of
from gemma_nli.sweep.cluster.ray_session import alive_nodes, ray_session
from gemma_nli.tracking.store.mlflow_store import connect, resolve_store, talking

NODE_SECONDS = 300.0
"""How long a node may take to answer: it reads its copy of the weights once, and a dead mount never answers."""


@dataclass
class Checked:
    """`misses`: what must be fixed, one sentence each; empty if the sweep can be queued."""

    nodes: list[str] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"nodes": self.nodes, "misses": self.misses}


def check_cluster(spec: SweepSpec, node_seconds: float = NODE_SECONDS) -> Checked:
    """Whether the cluster that Ray joins here, from this process as the driver, has what the sweep needs."""
    checked = Checked()
    checked.misses += [miss for miss in (_tracking(spec), _data(spec), *_kept_with_the_job(spec)) if miss]
    encoders, misses = _encoders(spec)
    checked.misses += misses
    with ray_session():
        _ask_nodes(spec, encoders, checked, node_seconds)
    return checked


def _tracking(spec: SweepSpec) -> str | None:
    if not spec.base.mlflow.enabled:
        return None
    try:
        store = resolve_store(spec.base.mlflow)
        with talking(store, "be reached"):
            connect(store).search_experiments(max_results=1)
    except GemmaNliError as error:
        return f"MLflow from the head ({socket.gethostname()}): {error}"
    return None


def _data(spec: SweepSpec) -> str | None:
    try:
        training_corpus(spec.base.data)
    except GemmaNliError as error:
        return f"data on the head ({socket.gethostname()}): {error}"
    return None


def _kept_with_the_job(spec: SweepSpec) -> list[str]:
    """A job's working folder is a copy that Ray deletes: nothing may be stored in it."""
    if not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        return []
    here, kept = Path.cwd(), {} if spec.kept_in_bucket else {"storage": Path(spec.storage)}
    database = resolve_store(spec.base.mlflow).database if spec.base.mlflow.enabled else None
    if database is not None:
        kept["mlflow.tracking_uri"] = database
    return [
        f"{name}: {path.relative_to(here)} is inside the job's working folder, which is deleted with the "
        f"job; set {name}= to a permanent folder."
        for name, path in kept.items()
        if path.is_relative_to(here)
    ]


def _encoders(spec: SweepSpec) -> tuple[dict[str, tuple[ModelConfig, str]], list[str]]:
    """(name, revision) as text -> its settings and the head's fingerprint; what the head lacks."""
    found: dict[str, tuple[ModelConfig, str]] = {}
    misses: list[str] = []
    configs = [cell.config for cell in (spec.space.draw(spec.base, 64, seed=0) if _searched(spec) else spec.cells())]
    for way, model in {(c.model.name, c.model.revision, native_way(c.model)): c.model for c in configs}.items():
        try:
            found["@".join(map(str, way))] = (model, identify_encoder(model).fingerprint)
        except GemmaNliError as error:
            misses.append(f"model on the head ({socket.gethostname()}): {error}")
    return found, misses


def _searched(spec: SweepSpec) -> bool:
    return spec.search.algorithm == "optuna"


def _ask_nodes(
    spec: SweepSpec, encoders: dict[str, tuple[ModelConfig, str]], checked: Checked, node_seconds: float
) -> None:
    """Each node looks for the head's file in the storage, writes one of its own, and reads its weights."""
    storage, token = place_of(spec.storage), f".check-{uuid.uuid4().hex}"
    try:
        if isinstance(storage, Prefix):
            storage.bucket.check_conditions((storage / token).key)
        else:
            storage.mkdir(parents=True, exist_ok=True)
        (storage / token).write_bytes(__version__.encode())
    except StorageError as error:
        checked.misses.append(f"storage on the head: {error}")
        return
    except OSError as error:
        checked.misses.append(f"storage on the head: {storage} cannot be written ({error.strerror}); set storage=.")
        return
    asked: dict[str, tuple[str, ray.ObjectRef[list[str]]]] = {}
    try:
        for node in alive_nodes():
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            mark = f"{token}-{node['NodeID'][:12]}"
            asked[name] = (mark, _look.options(scheduling_strategy=there).remote(storage, token, mark, encoders))
        for name, (mark, answer) in asked.items():
            checked.nodes.append(name)
            checked.misses += [f"node {name}: {miss}" for miss in _answer(answer, storage / mark, node_seconds)]
    finally:
        for mark in (token, *(mark for mark, _ in asked.values())):
            (storage / mark).unlink(missing_ok=True)


def _answer(answer: ray.ObjectRef[list[str]], mark: Place, node_seconds: float) -> list[str]:
    try:
        misses: list[str] = ray.get(answer, timeout=node_seconds)
    except GetTimeoutError:
        return [f"did not answer within {node_seconds:g} seconds; is the storage still mounted there?"]
    except RayError as error:
        last = mask_credentials(str(error)).strip().splitlines()[-1:]
        return [f"cannot run this package ({last[0][:200] if last else type(error).__name__}); install it there."]
    if not misses and not mark.exists():
        misses.append("what it writes to the storage is not visible on the head; mount the same shared folder there.")
    return misses


@ray.remote(num_cpus=0, max_retries=0)
def _look(storage: Place, token: str, mark: str, encoders: dict[str, tuple[ModelConfig, str]]) -> list[str]:
    """What this node lacks."""
    misses = []
    try:
        theirs = (storage / token).read_bytes().decode()
        if theirs != __version__:
            misses.append(f"has gemma-nli {__version__} but the head has {theirs}; install the same version.")
        (storage / mark).write_bytes(b"")
    except FileNotFoundError:
        mend = (
            "mount the same shared folder on every node."
            if isinstance(storage, Path)
            else f"give all nodes the same store: {' or '.join(f'${name}' for name in storage.endpoints)}."
        )
        misses.append(f"{storage} is not the head's folder of that name; {mend}")
    except StorageError as error:
        misses.append(str(error))
    except OSError as error:
        misses.append(f"{storage} cannot be read and written ({error.strerror}).")
    for model, fingerprint in encoders.values():
        try:
            if identify_encoder(model).fingerprint != fingerprint:
                misses.append(
                    f"model.name: {model.name} has different weights or a different tokenizer from the head's."
                )
        except GemmaNliError as error:
            misses.append(str(error))
    return misses
