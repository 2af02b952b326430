"""`gemma-nli settings` and docs/settings.md say what the classes check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemma_nli.base.errors import ConfigError
from gemma_nli.config import RunConfig, setting_names
from gemma_nli.spec.every_setting import every_setting, find_settings, settings_page
from tests.commands import run_command

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_command_prints():
    assert PAGE.read_text(encoding="utf-8") == settings_page()


def test_every_setting_has_a_meaning_and_a_type():
    settings = every_setting()
    assert {s.name for s in settings if s.of == "run"} == set(setting_names(RunConfig))
    assert len({s.name for s in settings}) == len(settings)
    assert [s.name for s in settings if not s.meaning or not s.kind] == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("training.batch_size", ["training.batch_size"]),
        ("lora.rank", ["model.lora.rank"]),
        ("scheduler", ["scheduler.kind", "scheduler.grace_folds", "scheduler.keep_last", "scheduler.level"]),
    ],
)
def test_a_setting_is_found_by_its_name_its_last_parts_or_its_section(asked, found):
    assert [s.name for s in find_settings(asked)][: len(found)] == found


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"training\.batch_size"):
        find_settings("training.batchsize")


def test_the_command_shows_one_setting_and_its_json(capsys):
    assert run_command("settings", "model.dropout") == 0
    shown = capsys.readouterr().out
    assert "model.dropout = 0.1" in shown
    assert ">= 0, < 1" in shown
    assert run_command("settings", "model.dropout", "--json") == 0
    (fact,) = json.loads(capsys.readouterr().out)
    assert (fact["default"], fact["of"]) == ("0.1", "run")
