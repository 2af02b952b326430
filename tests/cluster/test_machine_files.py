"""The files about machines: taken by Ray's own validation, closed to unknown fields, and at one with our pins."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cluster.rayjob_schema import RAY_JOB

ROOT = Path(__file__).parent.parent.parent
LAUNCHED = ("cluster.yaml", "cluster.onprem.yaml")


def tree(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def validated(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_up_takes_the_file(name):
    validated(tree(name))
    with pytest.raises(Exception, match="wokers"):
        validated({**tree(name), "wokers": 3})


def test_the_head_runs_no_trial_and_gpu_workers_come_and_go_on_spot():
    types = validated(tree("cluster.yaml"))["available_node_types"]
    head, worker = types["head"], types["gpu_worker"]
    assert head["resources"]["CPU"] == 0
    assert (worker["min_workers"], worker["max_workers"] > 0) == (0, True)
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_setup_installs_this_project_with_its_pins(name):
    config = tree(name)
    install = next(line for line in config["setup_commands"] if "pip install" in line)
    words = shlex.split(install)
    assert words[words.index("-c") + 1] == "constraints.txt"
    project, extras = re.fullmatch(r"(\.)\[(.+)\]", words[words.index("-e") + 1]).groups()
    assert project == "."
    known = set(tomllib_extras())
    assert set(extras.split(",")) <= known
    assert "." in config["file_mounts"].values()


def tomllib_extras() -> list[str]:
    import tomllib

    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_images_are_those_of_the_pinned_ray():
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)[1]
    docker = tree("cluster.yaml")["docker"]
    base = re.search(r"^FROM (.+)$", (ROOT / "deploy" / "Dockerfile").read_text(), flags=re.M)[1]
    for image in (docker["head_image"], docker["worker_image"], base):
        assert re.fullmatch(rf"rayproject/ray:{re.escape(pinned)}-py311-(cpu|gpu)", image), image
    assert tree("deploy/kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == pinned


def test_ray_asks_for_a_token_on_every_node():
    assert "-e RAY_AUTH_MODE=token" in tree("cluster.yaml")["docker"]["run_options"]
    assert "RAY_AUTH_MODE=token" in (ROOT / "deploy" / "onprem.env").read_text()
    for name in LAUNCHED:
        assert "~/.ray/auth_token" in tree(name)["file_mounts"].values()


def test_no_file_about_machines_holds_a_secret_or_opens_a_dashboard_to_the_world():
    for name in LAUNCHED:
        text = (ROOT / name).read_text()
        assert "0.0.0.0" not in text
        assert not re.search(r"://[^/\s]+:[^/\s]+@|AKIA|BEGIN", text)


def test_the_rayjob_fits_its_schema():
    job = tree("deploy/kuberay-rayjob.yaml")
    jsonschema.validate(job, RAY_JOB)
    assert job["spec"]["entrypoint"].startswith("gemma-nli sweep sweeps/")
    assert (ROOT / shlex.split(job["spec"]["entrypoint"])[2]).exists()
    cluster = job["spec"]["rayClusterSpec"]
    workers = cluster["workerGroupSpecs"][0]
    assert (cluster["headGroupSpec"]["rayStartParams"]["num-cpus"], workers["minReplicas"]) == ("0", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "entryPoint"), "gemma-nli sweep x"),
        (("spec", "backoffLimit"), "1"),
        (("spec", "submissionMode"), "Kubernetes"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "image"), None),
        (("metadata", "name"), "Gemma_NLI"),
    ],
)
def test_the_schema_refuses_what_the_operator_would(path, value):
    job = tree("deploy/kuberay-rayjob.yaml")
    place = job
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)
