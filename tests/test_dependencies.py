"""pyproject.toml states what the code imports: no more trusted to another package's dependencies, no bound left out."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.lowest_versions import lowest_versions, project, requirements

ROOT = Path(__file__).parent.parent
OPTIONAL = {"boto3": "s3", "google-cloud-storage": "gcs", "requests": "gcs", "wandb": "wandb"}
"""Distributions that only an extra brings, with that extra."""
BROUGHT_BY = {"botocore": "boto3", "google-api-core": "google-cloud-storage", "google-auth": "google-cloud-storage"}
"""Parts of a library that come with it and are versioned by it."""


def imports() -> Iterator[tuple[str, str]]:
    """(file, module) of each import of a module that is neither Python's nor ours."""
    for path in sorted((ROOT / "gemma_nli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "gemma_nli":
                    yield path.relative_to(ROOT).as_posix(), name


OWNERS = packages_distributions()


def distribution_of(module: str) -> str:
    """The distribution that an imported module belongs to, by its normalized name."""
    for prefix, name in (
        ("google.cloud", "google-cloud-storage"),
        ("google.api_core", "google-api-core"),
        ("google.auth", "google-auth"),
        ("mlflow", "mlflow"),
    ):
        if f"{module}.".startswith(f"{prefix}."):
            return name
    (name,) = set(OWNERS[module.partition(".")[0]])
    return name.lower().replace("_", "-")


def names_of(listed: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~!; ]", requirement)[0].lower().replace("_", "-") for requirement in listed}


USED = {name: distribution_of(name) for _, name in imports() if name != "google" and not name.endswith(".cloud")}


@pytest.mark.parametrize("name", sorted({BROUGHT_BY.get(name, name) for name in USED.values()}))
def test_what_is_imported_is_declared(name):
    extra = OPTIONAL.get(name)
    listed = project()["dependencies"] if extra is None else project()["optional-dependencies"][extra]
    assert name in names_of(listed)


def test_nothing_is_declared_that_nobody_imports():
    drivers = {"cmaes"}  # Optuna imports it for the sampler of that name
    assert names_of(project()["dependencies"]) - set(USED.values()) - {"nvidia-ml-py"} <= drivers


def test_every_requirement_has_a_lower_bound_and_a_pin():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    pinned = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for name, lowest in lowest_versions().items():
        if name in OPTIONAL or name in pinned:
            assert as_numbers(pinned[name]) >= as_numbers(lowest), f"{name}: constraints.txt pins less than {lowest}"


def as_numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def test_a_library_whose_private_parts_are_used_has_an_upper_bound():
    private = {USED[module] for module in USED if any(part.startswith("_") for part in module.split("."))}
    assert {"ray", "mlflow"} <= private
    for requirement in requirements():
        if names_of([requirement]) & private:
            assert "<" in requirement, requirement


def test_the_extra_for_developers_holds_every_other_extra_but_those_of_weights():
    extras = project()["optional-dependencies"]
    for name, listed in extras.items():
        if name not in ("demo", "gemma", "dev"):
            assert set(listed) <= set(extras["dev"]), name


def test_the_sdist_holds_the_package_and_neither_benchmarks_nor_tests():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    included = table["sdist"]["include"]
    assert {"/gemma_nli", "/LICENSE", "/README.md"} <= set(included)
    assert not {"/benchmarks", "/tests"} & set(included)
    for name in included:
        assert (ROOT / name.removeprefix("/")).exists(), name
