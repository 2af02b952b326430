"""A variable that a library reads is set while it reads it, and is then as it was found."""

from __future__ import annotations

import os

import pytest

from gemma_nli.base.environment import set_in_environment

NAME = "GEMMA_NLI_TRIED_VARIABLE"


def set_and_fail() -> None:
    with set_in_environment(NAME, "7"):
        raise ZeroDivisionError(os.environ[NAME])


@pytest.mark.parametrize("before", [None, "mine"])
def test_a_variable_is_afterwards_as_it_was_found_whatever_happens_meanwhile(monkeypatch, before):
    monkeypatch.delenv(NAME, raising=False) if before is None else monkeypatch.setenv(NAME, before)
    with pytest.raises(ZeroDivisionError, match="7"):
        set_and_fail()
    assert os.environ.get(NAME) == before


def test_a_variable_that_was_taken_away_meanwhile_stays_away(monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    with set_in_environment(NAME, "7"):
        del os.environ[NAME]
    assert NAME not in os.environ
