"""docs/sweep_files.md: the grammar as the real parser has it, no key and no form of a domain left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gemma_nli.base.errors import SpecError
from gemma_nli.config import setting_names
from gemma_nli.spec.conditions import _EVALUATION, _NO_EFFECT, _SEALED
from gemma_nli.spec.domain import KINDS
from gemma_nli.spec.space import SearchSpace
from gemma_nli.spec.spec import SweepSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sweep_files.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.M | re.S)
REFUSED = [example for example in EXAMPLES if example.startswith("# refused: ")]
SWEEP_KEYS = {*SweepSpec.model_fields, "tune"}
LEAST = {"model.pooling_strategy": {"grid": ["mean", "max"]}}


def read(text: str) -> SearchSpace | SweepSpec:
    """A space by itself, or a part of a sweep file with what every sweep needs laid under it."""
    tree: dict[str, Any] = yaml.safe_load(text)
    if not set(tree) & SWEEP_KEYS:
        return SearchSpace.from_mapping(tree)
    least = {} if {"space", "compare", "tune"} & set(tree) else {"space": LEAST}
    return SweepSpec.from_mapping({"name": "example", **least, **tree}, str(ROOT / "sweeps" / "example.yaml"))


@pytest.mark.parametrize("example", [example for example in EXAMPLES if example not in REFUSED])
def test_an_example_is_read_as_it_stands(example):
    spec = read(example)
    if isinstance(spec, SweepSpec) and "algorithm: optuna" not in example:
        assert len(spec.cells()) >= 2


@pytest.mark.parametrize("example", REFUSED)
def test_what_is_said_to_be_refused_is_refused_with_those_words(example):
    with pytest.raises(SpecError, match=re.escape(example.splitlines()[0].removeprefix("# refused: "))):
        read(example)


def keys_in(tree: Any, prefix: str = "") -> set[str]:
    """Dotted names of every key in a tree, list items seen through."""
    if isinstance(tree, list):
        return {key for item in tree for key in keys_in(item, prefix)}
    if not isinstance(tree, dict):
        return set()
    return {name for key, item in tree.items() for name in (f"{prefix}{key}", *keys_in(item, f"{prefix}{key}."))}


def test_every_key_of_a_sweep_file_is_in_an_example():
    shown = set[str]().union(*(keys_in(yaml.safe_load(example)) for example in EXAMPLES))
    wanted = {name for name in setting_names(SweepSpec) if not name.startswith("base.")}
    assert wanted <= shown
    assert {"search.objectives.metric", "search.objectives.mode", "tune"} <= shown


def test_every_form_of_a_domain_is_in_an_example():
    domains = [body for example in EXAMPLES for body in domains_in(yaml.safe_load(example))]
    for kind in KINDS:
        assert any(kind in body for body in domains), kind
    long_forms = [set(body[kind]) for body in domains for kind in KINDS if isinstance(body.get(kind), dict)]
    assert set().union(*long_forms) == {"low", "high", "step", "log"}
    assert any(isinstance(value, list) for body in domains for value in body.get("when", {}).values())


def domains_in(tree: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [tree, *(tree.get(key) for key in ("space", "compare", "tune"))]
    return [body for part in parts if isinstance(part, dict) for body in part.values() if isinstance(body, dict)]


def test_what_cannot_vary_is_named():
    for name in (*_EVALUATION, _SEALED, *_NO_EFFECT):
        assert f"`{name}*`" in PAGE if name.endswith(".") else f"`{name}`" in PAGE, name
