"""Words mean what was typed: text stays text, numbers are plain digits, what YAML 1.1 makes of the rest is refused."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.base.errors import ConfigError, GemmaNliError
from gemma_nli.config import RunConfig, build_config, parse_overrides, parse_yaml
from gemma_nli.spec.space import SearchSpace
from gemma_nli.spec.spec import SweepSpec, load_sweep

WORDS = [
    "1.10", "010", "no", "yes", "on", "off", "y", "12:30", "1:30:00", "0x1F", "0o17", "0b11", "1e3", "1E3", "null", "~",
    "true", "False", "2024-01-01", "2024-01-01 10:00:00", "1_000", "1,000", ".5", "5.", "+5", "-0", "00", "=", ".inf",
    "-.INF", ".nan", "NaN", "1.0", "1e400", "0.30000000000000001", "v1.10", "08", "1__0", "9" * 30,
]  # fmt: skip
ODD_NUMBERS = ["010", "0x1F", "0b11", "0o17", "1_000", "12:30", "1:30:00", "2024-01-01", "00", "08", "1,000", "0_1"]
SPACE = "space: {training.learning_rate: {grid: [1e-4, 1e-3]}}\n"


@pytest.mark.parametrize("word", WORDS)
def test_a_tag_keeps_its_text_in_a_sweep_file_and_in_an_override(word, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(f"{SPACE}tags: {{a: {word if ',' not in word else repr(word)}, b: x}}\n")
    assert load_sweep(path).tags == {"a": word, "b": "x"}
    assert load_sweep(path, [f"tags.a={word}"]).tags["a"] == word
    again = tmp_path / "again.yaml"
    again.write_text(load_sweep(path, [f"tags.a={word}"]).to_yaml())
    assert load_sweep(again).tags["a"] == word


@pytest.mark.parametrize("word", ["010", "no", "1e3", "1.10", "0x1F", "2024-01-01", "10", "1_000", "on"])
def test_a_name_keeps_its_text(word, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(f"name: {word}\nbase: {{model: {{name: {word}, revision: {word}}}}}\n{SPACE}")
    spec = load_sweep(path, [f"output.experiment_name={word}", f"finalize.model_name={word}"])
    assert (spec.name, spec.base.model.name, spec.base.model.revision) == (word, word, word)
    assert (spec.base.output.experiment_name, spec.finalize.model_name) == (word, word)
    path.write_text(spec.to_yaml())
    assert load_sweep(path) == spec
    grid = parse_yaml(f"{{model.revision: {{grid: [{word}, other]}}}}", "x")
    assert SearchSpace.from_mapping(grid).domain("model.revision").corners == (word, "other")  # type: ignore[union-attr]


@pytest.mark.parametrize("word", ODD_NUMBERS)
def test_a_number_not_in_plain_digits_is_refused_everywhere(word, tmp_path):
    path = tmp_path / "s.yaml"
    quoted = repr(word) if "," in word else word
    for text, overrides in (
        (f"search: {{algorithm: random, seed: {quoted}}}\n{SPACE}", []),
        (f"base: {{training: {{batch_size: {quoted}}}}}\n{SPACE}", []),
        (f"base: {{training.seed: {quoted}}}\n{SPACE}", []),
        (f"space: {{training.batch_size: {{grid: [8, {quoted}]}}}}\n", []),
        (f"search: {{algorithm: random}}\nspace: {{model.dropout: {{uniform: [1e-5, {quoted}]}}}}\n", []),
        (f"resources: {{gpu: {quoted}}}\n{SPACE}", []),
        (SPACE, [f"training.seed={word}"]),
        (SPACE, [f"search.seed={word}"]),
        (SPACE, [f"resources.cpu={word}"]),
    ):
        path.write_text(text)
        with pytest.raises(GemmaNliError, match="in plain digits, got"):
            load_sweep(path, overrides)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("010", "write 10 or 8"),
        ("12:30", "write 750"),
        ("0x1F", "write 31"),
        ("1_000", "write 1000"),
        ("08", "write 8"),
        ("0o17", "write 15"),
        ("0X1f", "write 31"),
        ("-0B101", "write -5"),
    ],
)
def test_what_a_refused_number_may_have_meant_is_said(word, meant):
    with pytest.raises(ConfigError, match=meant):
        RunConfig().with_settings(parse_overrides([f"training.seed={word}"]))


@pytest.mark.parametrize("kind", ["int", "float"])
@pytest.mark.parametrize("word", [word for word in ODD_NUMBERS if "," not in word])
def test_a_number_that_yaml_is_told_to_read_its_old_way_is_refused_as_well(kind, word, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(f"base: {{training: {{seed: !!{kind} {word}}}}}\n{SPACE}")
    with pytest.raises(GemmaNliError, match="in plain digits, got"):
        load_sweep(path)
    path.write_text(f"base: {{training: {{seed: !!{kind} 12}}}}\n{SPACE}")
    assert load_sweep(path).base.training.seed == 12
    path.write_text(f"base: {{training: {{seed: !!{kind} [12]}}}}\n{SPACE}")
    with pytest.raises(GemmaNliError, match="not valid YAML"):
        load_sweep(path)


@pytest.mark.parametrize("word", ["1e-4", "1E-4", "0.0001", ".0001", "1.e-4", "+1e-4", "'1e-4'", "0.00010"])
def test_every_plain_way_to_write_a_number_is_read(word):
    assert RunConfig().with_settings(parse_overrides([f"training.learning_rate={word}"])).training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("training.seed", True), ("training.seed", "yes"), ("training.learning_rate", False), ("training.seed", 1.5),
        ("model.freeze_encoder", 1), ("model.freeze_encoder", 0.0), ("training.learning_rate", float("inf")),
        ("training.learning_rate", ".inf"), ("training.learning_rate", "nan"), ("model.name", True),
        ("model.name", [1]),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(setting, value):
    with pytest.raises(ConfigError, match=setting):
        RunConfig().with_settings({setting: value})


@pytest.mark.parametrize(
    ("word", "value"), [("no", False), ("off", False), ("yes", True), ("on", True), ("true", True)]
)
def test_a_yes_or_no_is_read_where_one_is_wanted(word, value):
    tree = parse_yaml(f"model: {{freeze_encoder: {word}}}", "x")
    assert build_config(tree, "x").model.freeze_encoder is bool(value)


def test_an_override_without_brackets_is_one_word():
    words = ["question=Which: mean or max? #1", "tags.note=run #3: the first", "a=[1, 'b: c']", "b='010'", "c={d: 1}"]
    reported = parse_overrides(words)
    assert reported["question"] == "Which: mean or max? #1"
    assert reported["tags.note"] == "run #3: the first"
    assert (reported["a"], reported["b"], reported["c"]) == ([1, "b: c"], "010", {"d": 1})


def test_a_key_given_twice_a_merge_and_a_bomb_of_aliases_are_refused(tmp_path):
    path = tmp_path / "s.yaml"
    bomb = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]" for n in range(12))
    for text in ("name: a\nname: b\n", "tags: {a: 1, a: 2}\n", "tags: {010: x, '010': y}\n", "base: {<<: {}}\n", bomb):
        path.write_text(f"{text}\n{SPACE}")
        with pytest.raises(GemmaNliError):
            load_sweep(path)


WORDS = st.text(st.characters(exclude_characters="\x85", exclude_categories=["Cs"]), max_size=8)
"""PyYAML writes U+0085 as a line break where it may write Unicode, and then reads a blank."""


@settings(deadline=None)
@given(st.floats(allow_nan=False) | st.integers(-(10**15), 10**15) | st.booleans() | st.none() | WORDS)
def test_what_is_written_is_read_again(value: Any):
    tree = {"a": value, "tags": {"b": str(value)}}
    reported = parse_yaml(yaml.safe_dump(tree, allow_unicode=True), "x")
    assert reported["a"] == value
    assert type(reported["a"]) is type(value) or isinstance(value, float)
    assert parse_yaml(yaml.safe_dump(reported), "x") == reported
    assert pickle.loads(pickle.dumps(reported)) == reported


def test_a_number_typed_as_a_version_is_a_plain_number_in_a_configuration():
    tree = parse_yaml("{model: {dropout: 0.10}, training: {learning_rate: 1e-4}}", "x")
    config = build_config(tree, "x")
    assert {type(value) for value in (config.model.dropout, config.training.learning_rate)} == {float}


def test_tags_of_a_mapping_in_python_are_text():
    spec = SweepSpec.from_mapping({**parse_yaml(SPACE, "x"), "name": "s", "tags": {"a": 1.5, "b": True, "c": 3}})
    assert spec.tags == {"a": "1.5", "b": "true", "c": "3"}
