"""What is large is read in time that grows with its size and not with its square, or is refused by its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.base.errors import ConfigError, SpecError, did_you_mean
from gemma_nli.config import RunConfig, read_yaml
from gemma_nli.corpus.criteria import read_criteria
from gemma_nli.corpus.file_problems import FileProblems
from gemma_nli.spec.space import SearchSpace
from tests.growth import growth


class Counted(str):
    """A text that counts how often it is compared."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)


def values(count: int, kind: str) -> list[Any]:
    if kind == "lists":
        return [[f"q_{n}"] for n in range(count)]
    return [f"r{n}" for n in range(count)]


@pytest.mark.parametrize(("setting", "kind"), [("model.revision", "texts"), ("model.lora.target_modules", "lists")])
def test_grid_values_are_not_compared_each_with_each(setting, kind):
    tree = {setting: {"grid": values(8_000, kind)}}
    if kind == "lists":
        tree["model.lora.target_modules"] = tree.pop(setting)

    def use(count: int) -> None:
        space = SearchSpace.from_mapping({setting: {"grid": values(count, kind)}})
        domain = space.domain(setting)
        assert domain is not None
        params = [domain.to_param(value) for value in domain.corners]
        assert [domain.from_param(param) for param in params] == list(domain.corners)
        assert all(domain.contains(value) for value in domain.corners)

    assert growth(use, 1_000, 8_000) < 24  # 8 where it is linear, 64 where it is the square


def test_conditions_on_many_values_are_looked_up():
    names = [Counted(f"r{n}") for n in range(3_000)]
    tree = {
        "model.revision": {"grid": names},
        "model.dropout": {"grid": [0.1], "when": {"model.revision": [str(name) for name in names]}},
    }
    space = SearchSpace.from_mapping(tree)
    Counted.comparisons = 0
    assert len(space.cells(RunConfig())) == 3_000
    assert Counted.comparisons < 30 * 3_000


def test_a_value_given_twice_stays_one_and_true_is_not_one():
    domain = SearchSpace.from_mapping({"training.learning_rate": {"grid": [1, 1.0, "1", 0.5]}}).domain(
        "training.learning_rate"
    )
    assert domain is not None
    assert domain.corners == (1.0, 0.5)
    assert domain.contains(1)
    assert not domain.contains(True)


def criteria_of(count: int, path: Path) -> Path:
    items = [{"id": f"c{n}", "text": f"criterion number {n} " + "x" * 80} for n in range(count)]
    path.write_text("[\n" + ",\n".join(json.dumps(item) for item in items) + "\n]")
    return path


def test_a_long_list_of_criteria_is_read_in_linear_time(tmp_path):
    files = {count: criteria_of(count, tmp_path / f"{count}.json") for count in (2_000, 16_000)}
    assert growth(lambda count: read_criteria(files[count], FileProblems("x")), 2_000, 16_000) < 24


def test_criteria_of_many_megabytes_keep_the_lines_of_their_faults(tmp_path):
    path = criteria_of(50_000, tmp_path / "criteria.json")
    lines = path.read_text().split("\n")
    lines[40_000] = '{"id": "c7", "text": "again"},'
    lines[45_000] = json.dumps({"id": "other", "text": json.loads(lines[1].rstrip(","))["text"]}) + ","
    path.write_text("\n".join(lines))
    problems = FileProblems("criteria.json")
    assert len(read_criteria(path, problems)) == 49_999
    assert [text.partition(": ")[0] for text in problems.shown()] == ["criteria.json:40001", "criteria.json:45001"]


def test_a_settings_file_of_many_megabytes_is_refused_by_its_size(tmp_path):
    (tmp_path / "s.yaml").write_text("a: [" + "1, " * 2_000_000 + "1]")
    with pytest.raises(ConfigError, match="bytes; a settings file may have at most"):
        read_yaml(tmp_path / "s.yaml")


def test_a_thousand_problems_are_counted_and_a_hundred_shown():
    with pytest.raises(SpecError) as caught:
        SearchSpace.from_mapping({"training.seed": {"grid": [f"x{n}" for n in range(1_000)]}})
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("1,000 problems")
    assert len(lines) == 102
    assert lines[-1] == "  ... and 900 more"


def test_the_nearest_of_very_many_names_is_not_looked_for():
    assert did_you_mean("x", (f"name{n}" for n in range(100_000))) == "; 100,000 names are known."


def test_a_random_search_configures_each_combination_once(monkeypatch):
    """To draw the last ones of a space, each other is drawn again many times."""
    configured: list[dict[str, Any]] = []
    plain = SearchSpace.configure

    def counted(space: SearchSpace, base: RunConfig, settings: dict[str, Any]) -> RunConfig:
        configured.append(settings)
        return plain(space, base, settings)

    space = SearchSpace.from_mapping({"training.seed": {"int": [1, 300]}})
    monkeypatch.setattr(SearchSpace, "configure", counted)
    assert len(space.draw(RunConfig(), 300, 0)) == len(configured) > 290
