"""A search space is checked whole before any trial starts, and walked exactly as it reads."""

import math

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.base.errors import SpecError
from gemma_nli.config import RunConfig, parse_yaml
from gemma_nli.spec.space import MAX_CELLS, SearchSpace

BASE = RunConfig()


def space(text: str) -> SearchSpace:
    return SearchSpace.from_mapping(parse_yaml(text, "test"), "space.yaml")


def refused(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        space(text).cells(BASE)
    return str(caught.value)


def test_a_grid_is_the_product_in_the_files_order():
    cells = space("model.head: {grid: [linear, mlp]}\ntraining.batch_size: {grid: [8, 16, 32]}").cells(BASE)
    assert [tuple(cell.settings.values()) for cell in cells] == [
        ("linear", 8),
        ("linear", 16),
        ("linear", 32),
        ("mlp", 8),
        ("mlp", 16),
        ("mlp", 32),
    ]
    assert [cell.config.training.batch_size for cell in cells] == [8, 16, 32, 8, 16, 32]


def test_text_like_1e_5_is_a_number_and_equal_values_are_one_cell():
    cells = space("training.learning_rate: {grid: [1e-5, 0.00001, 1.0e-5, 1e-3]}").cells(BASE)
    assert [cell.settings["training.learning_rate"] for cell in cells] == [1e-5, 1e-3]


def test_a_conditioned_setting_varies_only_where_its_condition_holds():
    cells = space(
        "model.pooling_k: {grid: [2, 8], when: {model.pooling_strategy: [first_k, last_k]}}\n"
        "model.pooling_strategy: {grid: [mean, first_k, last_k]}"
    ).cells(BASE)
    assert [tuple(cell.settings.values()) for cell in cells] == [
        ("mean",),
        ("first_k", 2),
        ("first_k", 8),
        ("last_k", 2),
        ("last_k", 8),
    ]
    assert cells[0].config.model.pooling_k == BASE.model.pooling_k


def test_conditions_nest_and_an_inactive_parent_switches_its_children_off():
    cells = space(
        "model.freeze_encoder: {grid: [true, false]}\n"
        "model.lora: {grid: [null, {rank: 4}], when: {model.freeze_encoder: false}}\n"
        "model.lora.alpha: {grid: [8, 32], when: {model.lora: {rank: 4}}}"
    ).cells(BASE)
    assert [cell.config.model.lora and cell.config.model.lora.alpha for cell in cells] == [None, None, 8.0, 32.0]


def test_settings_that_are_dormant_in_a_cell_do_not_make_it_twice():
    cells = space("model.head: {grid: [linear, mlp]}\nmodel.head_hidden: {grid: [64, 128]}").cells(BASE)
    assert len(cells) == 3


def test_encoders_are_different_cells_though_the_canonical_form_leaves_their_name_out():
    assert len(space("model.name: {grid: [a/one, b/two]}").cells(BASE)) == 2


def test_impossible_cells_are_listed_with_their_reasons():
    text = refused("training.batch_size: {grid: [4, 64]}\ntraining.gradient_accumulation: {grid: [1, 8]}")
    assert "1 of 4 configurations are impossible" in text
    assert "training.batch_size=4, training.gradient_accumulation=8: training.gradient_accumulation (8) exceeds" in text


def test_a_grid_too_large_is_refused_with_its_count_and_fast():
    values = ", ".join(str(i) for i in range(1, 101))
    text = refused(
        f"training.batch_size: {{grid: [{values}]}}\nmodel.pooling_k: {{grid: [{values}]}}\n"
        f"training.seed: {{grid: [{values}]}}"
    )
    assert "1,000,000 cells" in text
    assert f"{MAX_CELLS:,}" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model.poolng_strategy: {grid: [mean]}", "did you mean 'model.pooling_strategy'?"),
        ("model.pooling_strategy: {grid: [mean, lats]}", "grid[1]: unknown name 'lats'; did you mean 'last'?"),
        ("model.pooling_strategy: {gird: [mean]}", "unknown kind 'gird'; did you mean 'grid'?"),
        ("model.pooling_strategy: [mean, max]", "write {grid: [...]}"),
        ("training.batch_size: 16", "move a fixed value to base"),
        ("training.batch_size: {grid: []}", "at least one value"),
        ("training.batch_size: {grid: 16}", "must be a list"),
        ("training.batch_size: {grid: [1], choice: [2]}", "exactly one of"),
        ("training.batch_size: {}", "exactly one of"),
        ("training.learning_rate: {loguniform: [1e-5, 3]}", "loguniform.high: must be less than or equal to 1"),
        ("training.learning_rate: {loguniform: [0.1, 0.01]}", "low must be below high, got [0.1, 0.01]"),
        ("training.weight_decay: {loguniform: [0, 1]}", "low must be above 0"),
        ("training.batch_size: {uniform: [4, 64]}", "whole numbers only; write int: [4, 64]"),
        ("training.batch_size: {loguniform: [4, 64]}", "write int: {low: 4, high: 64, log: true}"),
        ("training.batch_size: {int: {low: 4, high: 64, step: 7}}", "misses high 64; write high 60"),
        ("training.batch_size: {int: {low: 4, high: 64, step: 4, log: true}}", "log and step are both set"),
        ("training.batch_size: {int: [4, 8.5]}", "must be"),
        ("training.batch_size: {int: {low: 4}}", "needs low and high"),
        ("model.head: {uniform: [0, 1]}", "got 0"),
        ("model.freeze_encoder: {int: [0, 1]}", "must be a number"),
        ("data.num_folds: {grid: [3, 5]}", "could not be compared"),
        ("mlflow.enabled: {grid: [true, false]}", "does not change a trial's numbers"),
        ("model.head: {grid: [mlp], when: {model.head: mlp}}", "form a circle"),
        ("model.head_hidden: {grid: [1], when: {model.head: mlp}}", "the space does not vary this setting"),
        ("model.head: {grid: [linear]}\nmodel.head_hidden: {grid: [1], when: {model.head: mlp}}", "never mlp"),
        ("model.head: {grid: [linear]}\nmodel.head_hidden: {grid: [1], when: {model.haed: mlp}}", "'model.head'?"),
        ("model.head: {grid: [linear]}\nmodel.head_hidden: {grid: [1], when: {}}", "must name a setting"),
        ("model.lora: {grid: [null, {}]}\nmodel.lora.rank: {grid: [4]}", "whose null this setting would undo"),
        ("training.learning_rate: {uniform: [0.1, 0.2]}", "lists no values for a grid"),
        ("[1, 2]", "expected settings to vary"),
    ],
)
def test_a_bad_space_is_refused_with_what_to_write(text, says):
    assert says in refused(text)


def test_all_problems_are_told_at_once():
    text = refused("model.heed: {grid: [linear]}\ntraining.batch_size: {grid: [0, -1]}")
    assert text.startswith("space.yaml: 3 problems")


MIXED = (
    "model.pooling_strategy: {choice: [mean, last_k]}\n"
    "model.pooling_k: {int: [1, 3], when: {model.pooling_strategy: last_k}}\n"
    "training.batch_size: {int: {low: 4, high: 12, step: 4}}\n"
    "training.label_smoothing: {uniform: {low: 0, high: 0.3, step: 0.1}}\n"
    "model.head_hidden: {int: {low: 1, high: 4, log: true}}\n"
    "training.learning_rate: {loguniform: [1e-5, 1e-3]}\n"
    "model.dropout: {uniform: [0.0, 0.5]}\n"
)


def draws():
    rng = np.random.default_rng(0)
    return [space(MIXED).sample(BASE, rng).settings for _ in range(300)]


def suggestions():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space(MIXED).suggest(study.ask()) for _ in range(300)]


@pytest.mark.parametrize("walk", [draws, suggestions])
def test_samples_reach_both_ends_and_nothing_beyond(walk):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawn = walk()
    assert {d["model.pooling_k"] for d in drawn if "model.pooling_k" in d} == {1, 2, 3}
    assert all(("model.pooling_k" in d) == (d["model.pooling_strategy"] == "last_k") for d in drawn)
    assert {d["training.batch_size"] for d in drawn} == {4, 8, 12}
    assert {round(d["training.label_smoothing"], 9) for d in drawn} == {0.0, 0.1, 0.2, 0.3}
    assert {d["model.head_hidden"] for d in drawn} == {1, 2, 3, 4}
    rates = [d["training.learning_rate"] for d in drawn]
    assert min(rates) >= 1e-5
    assert max(rates) <= 1e-3
    assert 0.3 < sum(rate < 1e-4 for rate in rates) / len(rates) < 0.7


def test_drawing_more_begins_with_the_same_cells_and_stops_when_the_space_is_empty():
    some = space(MIXED)
    assert [c.settings for c in some.draw(BASE, 30, 7)[:10]] == [c.settings for c in some.draw(BASE, 10, 7)]
    assert len(space("model.head: {choice: [linear, mlp]}").draw(BASE, 50, 0)) == 2


def test_a_sample_space_with_impossible_corners_is_refused():
    with pytest.raises(SpecError, match="configurations are impossible"):
        space("training.batch_size: {int: [1, 64]}\ntraining.gradient_accumulation: {int: [1, 8]}").probe(BASE)


def test_params_and_settings_are_each_others_inverse():
    some = space("model.freeze_encoder: {choice: [false]}\nmodel.lora: {choice: [null, {rank: 4}]}\n" + MIXED)
    rng = np.random.default_rng(1)
    for _ in range(100):
        drawn = some.sample(BASE, rng).settings
        params = some.params_of(drawn)
        assert params is not None
        assert all(isinstance(value, (str, int, float, bool, type(None))) for value in params.values())
        assert some.settings_of(params) == drawn
    assert some.params_of({"model.dropout": 0.9}, partial=True) is None


def test_a_space_says_what_it_is_again():
    some = space(MIXED)
    assert SearchSpace.from_mapping(some.tree()).varied == some.varied
    assert some.encoder_settings_vary() == {
        "model.pooling_strategy",
        "model.pooling_k",
        "model.head_hidden",
        "model.dropout",
    }


SETTINGS = [
    "model.pooling_strategy",
    "training.batch_size",
    "training.learning_rate",
    "model.lora",
    "model.lora.rank",
    "model.freeze_encoder",
    "model.head",
    "data.negative_ratio",
    "model.nmae",
    "data.num_folds",
    "",
]
values = st.one_of(
    st.sampled_from(["mean", "mlp", "1e-5", "", "null"]),
    st.integers(-3, 70000),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=True),
    st.lists(st.integers(0, 9), max_size=2),
    st.just({"rank": 4}),
    st.integers(10**300, 10**301),
)
bodies = st.one_of(
    values,
    st.dictionaries(
        st.sampled_from(["grid", "choice", "uniform", "loguniform", "int", "when", "grids"]),
        st.one_of(
            values,
            st.lists(values, max_size=3),
            st.dictionaries(st.sampled_from([*SETTINGS, "low", "high", "step", "log"]), values, max_size=4),
        ),
        max_size=3,
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(SETTINGS), bodies, max_size=4))
def test_any_tree_is_a_space_or_a_spec_error(tree):
    try:
        found = SearchSpace.from_mapping(tree)
        found.probe(BASE)
        cell = found.sample(BASE, np.random.default_rng(0))
    except SpecError:
        return
    assert all(math.isfinite(v) for v in cell.settings.values() if isinstance(v, float))
