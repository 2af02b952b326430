from __future__ import annotations

import inspect

import pytest

from gemma_nli.base import errors
from gemma_nli.base.errors import ConfigError, GemmaNliError, Problems, did_you_mean

KINDS = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, Exception)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_one_of_ours_stands_in_the_tree_and_says_what_it_is_for(kind):
    assert issubclass(kind, GemmaNliError)
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind.__doc__


def test_the_tree_draws_a_child_under_its_parent():
    lines = (errors.__doc__ or "").splitlines()
    assert "    └── SweepBusyError" in "\n".join(lines)
    assert errors.SweepBusyError.__bases__ == (errors.SweepError,)


@pytest.mark.parametrize(
    ("name", "known", "reported"),
    [
        ("lats", ["last", "mean"], "; did you mean 'last'?"),
        ("zzz", ["last", "mean"], "; known: last, mean."),
        ("zzz", {"mean", "last"}, "; known: last, mean."),
        ("zzz", ["last", "last", "mean", "mean"], "; known: last, mean."),
        ("zzz", [], ""),
        ("", ["last"], "; known: last."),
    ],
)
def test_a_wrong_name_is_met_with_the_nearest_or_with_all(name, known, reported):
    assert did_you_mean(name, known) == reported


def test_of_many_names_the_nearest_five_are_told_and_none_twice():
    names = [f"{section}.setting_{number}" for section in ("data", "model") for number in range(50)] * 2
    reported = did_you_mean("xylophone", [*names, "training.xyl"])
    assert reported.startswith("; the nearest of 101: training.xyl, ")
    listed = reported.rpartition(": ")[2].rstrip(".").split(", ")
    assert len(listed) == len(set(listed)) == 5


def test_no_problems_raise_nothing():
    Problems("x.yaml").raise_if_any(ConfigError)


def test_problems_are_told_all_at_once_in_order():
    problems = Problems("x.yaml")
    problems.add("b.c", "is wrong.")
    problems.add("", "stands nowhere.")
    with pytest.raises(ConfigError) as caught:
        problems.raise_if_any(ConfigError)
    assert str(caught.value) == "x.yaml: 2 problems\n  b.c: is wrong.\n  stands nowhere."


def test_one_problem_is_singular():
    problems = Problems("x.yaml")
    problems.add("a", "is wrong.")
    assert problems.text().startswith("x.yaml: 1 problem\n")
