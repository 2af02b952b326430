"""Private parts of other libraries: each use is listed here with its library, is really there, and is bounded above."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = {
    ("model/probing/encoding_manner.py", "_modules"): ("torch", "torch.nn", "Module().{}"),
    ("model/probing/encoding_manner.py", "_buffers"): ("torch", "torch.nn", "Module().{}"),
    ("training/frozen/ragged_attention.py", "_embedding_bag_per_sample_weights_backward"): (
        "torch",
        "torch",
        "ops.aten.{}",
    ),
    ("sweep/ray/ray_processes.py", "_private"): ("ray[tune]", "ray._private.worker", "_global_node"),
    ("sweep/ray/ray_processes.py", "_global_node"): ("ray[tune]", "ray._private.worker", "{}"),
    ("sweep/ray/address.py", "_private"): ("ray[tune]", "ray._private.services", "find_gcs_addresses"),
    ("sweep/ray/address.py", "_raylet"): ("ray[tune]", "ray._raylet", "GcsClient"),  # in a program that is a text
    ("sweep/cluster/ray_session.py", "_private"): ("ray[tune]", "ray._private.ray_constants", "__name__"),
    ("storage/gcs.py", "_http"): ("google-cloud-storage", "google.cloud.storage", "Client.{}"),
    ("tracking/archives/archived_database.py", "_get_alembic_config"): ("mlflow", "mlflow.store.db.utils", "{}"),
    ("tracking/store/database_owner.py", "_get_alembic_config"): ("mlflow", "mlflow.store.db.utils", "{}"),
    ("tracking/write/runs.py", "_metric_objs"): ("mlflow", "mlflow.entities", "RunData().{}"),
}
THEIRS = ("ray", "mlflow", "optuna", "torch", "transformers", "peft", "huggingface_hub", "sqlalchemy", "google")
DOCUMENTED = {"_exit", "_replace", "_Hash"}  # of os, of named tuples, and the type that hashlib's stubs name


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def uses(path: Path) -> set[str]:
    """Private names that the file imports from others' packages, or takes from what is not its own self or class."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    own = set(re.findall(r"(?:def|class) (_\w+)|^\s*(?:self\.)?(_\w+)\b *[:=]|\bself\.(_\w+)", text, flags=re.M))
    own_names = {name for found in own for name in found if name}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in THEIRS:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found |= {name for name in names if private(name)}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in THEIRS:
                    found |= {name for name in alias.name.split(".") if private(name)}
        elif (
            isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own_names | DEFINED | DOCUMENTED
        ):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            found |= set(re.findall(r"from (?:ray|mlflow|torch)\.(_\w+)", node.value))
    return found


PACKAGE = ROOT / "gemma_nli"
DEFINED = {
    name
    for path in PACKAGE.rglob("*.py")
    for name in re.findall(r"(?:def|class) (_\w+)|\bself\.(_\w+) *[:=]", path.read_text(encoding="utf-8"))
    for name in name
    if name
} | {
    name
    for path in PACKAGE.rglob("*.py")
    for name in re.findall(r"^    (_\w+) *[:=]", path.read_text(encoding="utf-8"), flags=re.M)
}
"""Private names of our own classes and modules, which one file may take from another."""


def test_each_use_of_a_private_part_is_listed() -> None:
    found = {(str(path.relative_to(PACKAGE)), name) for path in PACKAGE.rglob("*.py") for name in uses(path)}
    assert found == set(LISTED)


@pytest.mark.parametrize(("place", "where"), LISTED.items(), ids=lambda item: "-".join(map(str, item))[:60])
def test_it_is_there_and_its_library_bounded(place: tuple[str, str], where: tuple[str, str, str]) -> None:
    library, module, path = where
    found = importlib.import_module(module)
    for part in path.format(place[1]).split("."):
        if part == "Module()":
            found = found.Module()
        elif part == "RunData()":
            found = found.RunData()
        else:
            assert hasattr(found, part), f"{library}: {part} of {module} is gone; {place[0]} uses it"
            found = getattr(found, part)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    every = [*project["dependencies"], *(one for many in project["optional-dependencies"].values() for one in many)]
    (requirement, *_) = [one for one in every if re.match(rf"{re.escape(library)}[><=]", one)]
    assert "<" in requirement, f"{requirement}: bounded below only, and {place[0]} uses a private part of it"
