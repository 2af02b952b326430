"""A template has its places and stands where it is read, or is refused in a sentence that quotes it."""

from __future__ import annotations

from typing import Any

import pytest

from gemma_nli.base.errors import ConfigError, SpecError
from gemma_nli.config import RunConfig, load_config
from gemma_nli.spec.spec import SweepSpec

POST_FIRST = "Post: {premise}\nStatement: {hypothesis}\nAnswer:"
SEPARATE = {"model.pair_encoding": "separate"}


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{premise} and nothing", "lacks {hypothesis}"),
        ("the {hypothesis} alone", "lacks {premise}"),
        ("no place at all", "lacks {premise} and {hypothesis}"),
        ("nativ", "lacks {premise} and {hypothesis}"),
        ("chat: {premise}", "lacks {hypothesis}"),
        ("{post} shows {hypothesis}", "has the place {post}; its places are {premise} and {hypothesis}"),
        ("{premis} shows {hypothesis}", "did you mean 'premise'"),
        ("{} {premise} {hypothesis}", "has the place {}"),
        ("{0} {premise} {hypothesis}", "has the place {0}"),
        ("{premise!r} {hypothesis}", "has the place {premise!r}"),
        ("{premise:>9} {hypothesis}", "has the place {premise:>9}"),
        ("{premise} {premise} {hypothesis}", "has {premise} more than once"),
        ("{premise} {hypothesis", "a brace that is not closed"),
        ("{premise} } {hypothesis}", "a brace that is not closed or not opened"),
        ("prompt:query", "stands before one text"),
        ({"premise": None}, "put it in quotes"),
    ],
)
def test_a_pairs_template_without_its_places_or_with_others_is_refused(template: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.template") as refused:
        RunConfig().with_settings({"model.template": template})
    assert what in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "template", "what"),
    [
        ("premise_template", "query", "lacks {premise}"),
        ("premise_template", "{premise} {hypothesis}", "has the place {hypothesis}; its places are {premise}"),
        ("hypothesis_template", "{premise}", "has the place {premise}; its places are {hypothesis}"),
        ("hypothesis_template", "prompt:", "names no prompt"),
    ],
)
def test_so_is_one_of_a_text_alone(setting: str, template: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"model.{setting}") as refused:
        RunConfig().with_settings({**SEPARATE, f"model.{setting}": template})
    assert what in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "quoted"),
    [
        ({**SEPARATE, "model.template": POST_FIRST}, ["'Post: {premise}", "model.pair_encoding is separate"]),
        ({"model.premise_template": "q: {premise}"}, ["'q: {premise}'", "model.pair_encoding is joint"]),
        ({"model.hypothesis_template": "{hypothesis}?"}, ["'{hypothesis}?'", "model.pair_encoding is joint"]),
        (
            {**SEPARATE, "model.premise_template": "q: {premise}", "model.premise_prompt": "query"},
            ["'q: {premise}'", "model.premise_prompt is 'query'"],
        ),
    ],
)
def test_a_template_where_it_is_not_read_is_refused_with_both_values(
    settings: dict[str, Any], quoted: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        RunConfig().with_settings(settings)
    assert [value for value in quoted if value not in str(refused.value)] == []


@pytest.mark.parametrize("algorithm", ["grid", "random", "optuna"])
def test_it_is_refused_in_every_trial_of_a_space(algorithm: str) -> None:
    kind = "grid" if algorithm == "grid" else "choice"
    space = {
        "model.template": {kind: ["native", POST_FIRST]},
        "model.pair_encoding": {kind: ["joint", "separate"]},
        "training.learning_rate": {kind: [1e-4, 1e-3]},
    }
    search = {"algorithm": algorithm} | ({} if algorithm == "grid" else {"num_trials": 2})
    with pytest.raises(SpecError, match=r"model\.pair_encoding is separate"):
        SweepSpec.from_mapping({"name": "x", "space": space, "search": search}).cells()


def test_on_a_command_line_a_template_is_taken_as_it_is_typed() -> None:
    typed = {
        "model.template={premise}: {hypothesis}": "{premise}: {hypothesis}",
        "model.template=Post: {premise}\nStatement: {hypothesis}": "Post: {premise}\nStatement: {hypothesis}",
        r'model.template="{premise}\n{hypothesis}"': "{premise}\n{hypothesis}",
        "model.template={{a}} {hypothesis} # {premise} ": "{{a}} {hypothesis} # {premise} ",
    }
    assert {word: load_config(overrides=[word]).model.template for word in typed} == typed


def test_a_template_is_in_the_key_and_native_is_not() -> None:
    plain = RunConfig()
    assert not {"model.template", "model.premise_template", "model.hypothesis_template", "data.wording"} & set(
        plain.canonical()
    )
    worded = plain.with_settings({"model.template": POST_FIRST, "data.wording": "short"})
    assert worded.canonical() == {**plain.canonical(), "model.template": POST_FIRST, "data.wording": "short"}
