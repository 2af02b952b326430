"""`--help`: the commands in groups, each with a first line that says what it does and an example that works."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer.main

from gemma_nli.base.advice import command_line
from gemma_nli.cli import app
from gemma_nli.cli.command_groups import GROUPS
from tests.commands import run_command

ROOT: Any = typer.main.get_command(app)
EXAMPLES = {name: example for commands in GROUPS.values() for name, example in commands.items()}


def registered() -> list[str]:
    features = ROOT.commands["features"]
    return [*ROOT.commands, *(f"features {name}" for name in features.commands)]


def helped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    assert run_command(*words, "--help") == 0
    return capsys.readouterr().out.splitlines()


def test_every_command_stands_in_one_group_with_an_example() -> None:
    listed = [name for commands in GROUPS.values() for name in commands]
    assert sorted(listed) == sorted(registered())


def test_the_groups_come_in_order_with_what_a_newcomer_needs_first(monkeypatch, capsys) -> None:
    lines = helped(monkeypatch, capsys)
    titles = [found[1] for line in lines if (found := re.match(r"╭─ (.+?) ─+╮", line)) and found[1] != "Options"]
    assert titles == list(GROUPS)
    assert [title.partition(":")[0] for title in titles] == ["Sweep", "Train", "Ask", "Registry", "Cluster", "Keep"]
    names = [found[1] for line in lines if (found := re.match(r"│ ([a-z][a-z-]+)  +[A-Z]", line))]
    assert names[:4] == ["sweep", "demo", "best", "report"]
    assert names == [name for commands in GROUPS.values() for name in commands if " " not in name]  # one line each
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_help_says_what_a_command_does_and_ends_with_its_example(name, monkeypatch, capsys) -> None:
    lines = helped(monkeypatch, capsys, *name.split())
    assert max(map(len, lines)) <= 80
    text = [line.strip() for line in lines if line.strip()]
    assert f"gemma-nli {name} " in text[0]
    assert re.fullmatch(r"[A-Z].+\.", text[1]), "the first line is a sentence"
    example = command_line("gemma-nli", *shlex.split(EXAMPLES[name]))
    assert "".join(text).replace(" ", "").endswith(f"Example:{example}".replace(" ", ""))  # wherever it was wrapped


@pytest.mark.parametrize(("name", "example"), list(EXAMPLES.items()))
def test_each_example_is_a_command_line_that_is_understood(name, example) -> None:
    words = shlex.split(example)
    assert example.startswith(name)
    group = ROOT
    with group.make_context("gemma-nli", list(words)) as context:
        while hasattr(group, "commands"):
            known, group, words = group.resolve_command(context, list(words))
            context = group.make_context(known, list(words), parent=context)


@pytest.mark.parametrize("name", ["settings", "features list", "features verify", "features prune"])
def test_examples_that_need_nothing_run(name) -> None:
    assert run_command(*shlex.split(EXAMPLES[name])) == 0
