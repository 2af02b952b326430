"""`compare:` and `tune:`: each compared value gets the same search, and what would make that unfair is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gemma_nli.base.errors import SpecError
from gemma_nli.spec.spec import SweepSpec

TREE: dict[str, Any] = {
    "name": "compared",
    "compare": {"model.pooling_strategy": {"grid": ["mean", "last_k"]}},
    "tune": {
        "training.learning_rate": {"grid": ["1e-4", "1e-3"]},
        "model.pooling_k": {"grid": [2, 8], "when": {"model.pooling_strategy": "last_k"}},
    },
}


def spec_of(**changes: Any) -> SweepSpec:
    return SweepSpec.from_mapping({**TREE, **changes}, source="compared.yaml")


def test_a_grid_of_compare_and_tune_has_every_combination_and_conditions_hold() -> None:
    spec = spec_of()
    assert spec.compare == ("model.pooling_strategy",)
    cells = [cell.settings for cell in spec.cells()]
    assert len(cells) == spec.total_trials == 2 + 4
    assert all(("model.pooling_k" in cell) == (cell["model.pooling_strategy"] == "last_k") for cell in cells)


def test_it_reads_back_from_what_it_writes() -> None:
    spec = spec_of()
    written = yaml.safe_load(spec.to_yaml())
    assert "space" not in written
    assert list(written["compare"]) == ["model.pooling_strategy"]
    again = SweepSpec.from_mapping(written, source="again.yaml")
    assert again.compare == spec.compare
    assert [cell.identity for cell in again.cells()] == [cell.identity for cell in spec.cells()]


def test_a_random_sweep_tries_the_same_draws_for_each_compared_value() -> None:
    tune = {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}, "model.dropout": {"uniform": [0.0, 0.5]}}
    spec = spec_of(tune=tune, search={"algorithm": "random", "num_trials": 5})
    by_value: dict[str, list[tuple[float, float]]] = {}
    for cell in spec.cells():
        drawn = (cell.settings["training.learning_rate"], cell.settings["model.dropout"])
        by_value.setdefault(cell.settings["model.pooling_strategy"], []).append(drawn)
    assert by_value["mean"] == by_value["last_k"]
    assert len(by_value["mean"]) == 5


def test_arms_fix_what_is_compared_and_leave_what_is_tuned() -> None:
    variants = {fixed["model.pooling_strategy"]: variant for fixed, variant in spec_of().variants()}
    assert variants["mean"].space.keys == ["training.learning_rate"]
    assert set(variants["last_k"].space.keys) == {"training.learning_rate", "model.pooling_k"}
    assert variants["last_k"].base.model.pooling_strategy == "last_k"
    domain = next(varied for varied in variants["last_k"].space.varied if varied.key == "model.pooling_k")
    assert domain.when == ()


def test_nothing_need_be_tuned() -> None:
    spec = spec_of(tune=None)
    assert [cell.settings for cell in spec.cells()] == [
        {"model.pooling_strategy": "mean"},
        {"model.pooling_strategy": "last_k"},
    ]


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"space": {"model.dropout": {"grid": [0.1]}}}, "space: compare and tune say what varies"),
        ({"compare": None}, "compare: must name settings and the values to compare"),
        ({"compare": {}}, "compare: must name settings and the values to compare"),
        ({"compare": {"model.poling": {"grid": [1]}}}, "compare.model.poling: unknown setting"),
        (
            {"compare": {"model.dropout": {"uniform": [0, 0.5]}}, "tune": None},
            "compare.model.dropout: uniform [0.0, 0.5] lists no values",
        ),
        ({"tune": {"model.pooling_strategy": {"grid": ["cls"]}}}, "is compared; a setting is either compared or tuned"),
        ({"tune": {"training.learning_rate": {"grid": []}}}, "tune.training.learning_rate.grid: must be a list"),
        ({"tune": [1]}, "tune: expected settings to vary"),
        ({"tune": "nowhere.yaml"}, "tune: no such file 'nowhere.yaml'"),
        ({"scheduler": {"kind": "fold_racing"}}, "scheduler.kind: fold_racing stops trials of a compared value"),
        (
            {"compare": {"model.pooling_strategy": {"grid": ["mean"], "when": {"model.dropout": 0.1}}}},
            "compared everywhere",
        ),
        (
            {
                "search": {
                    "algorithm": "optuna",
                    "warm_start": {"configs": [{"model.pooling_strategy": "mean"}]},
                },
                "tune": {"model.dropout": {"uniform": [0, 0.5]}},
            },
            "is compared; a warm start is tried for each compared value",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], reported: str) -> None:
    with pytest.raises(SpecError, match="problem") as error:
        spec_of(**changes)
    assert reported in str(error.value)


def test_an_optuna_sweep_may_compare_a_grid_and_tunes_by_choice() -> None:
    tune = {"model.dropout": {"uniform": [0.0, 0.5]}}
    spec = spec_of(tune=tune, search={"algorithm": "optuna", "num_trials": 7})
    assert spec.total_trials == 14
    with pytest.raises(SpecError, match=r"tune.model.dropout: grid \[0.1, 0.2\] asks for every value"):
        spec_of(tune={"model.dropout": {"grid": [0.1, 0.2]}}, search={"algorithm": "optuna"})
