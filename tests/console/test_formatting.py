"""How values, reasons and next steps are said in a terminal."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest

from gemma_nli.console.command_results import REASONS, failure_lines, leaderboard, next_commands, waiting_of
from gemma_nli.console.formatting import duration, shown
from gemma_nli.console.store_tables import cut_line, records
from gemma_nli.console.sweep_progress import facts_of
from gemma_nli.console.terminal import Sheet, Terminal
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.records.outcome import TrialOutcome
from gemma_nli.sweep.records.progress_state import ProgressState
from tests.sweep.test_outcome import result

F1 = "cv_aggregate/mean_f1"


def spec(**changes):
    return SweepSpec.from_mapping(
        {"name": "pooling", "space": {"training.seed": {"grid": [1, 2]}}, **changes}, "pooling.yaml"
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds, said):
    assert duration(seconds) == said


def test_values_are_said_as_they_were_given():
    assert [shown(value) for value in (None, 0.001, 1e-5, "mean", 3, False)] == [
        "-", "0.001", "1e-05", "mean", "3", "False",
    ]  # fmt: skip


def test_the_facts_of_a_running_sweep_count_every_state_and_name_the_best():
    board = ProgressState(F1, "max", 9)
    board.phase = "tuning"
    for key, state in zip("abcdef", ("finished", "finished", "failed", "pruned", "running", "waiting"), strict=True):
        board.add(key, {"model.pooling_strategy": key})
        board.update(key, state, {F1: 0.5 + (key == "b") / 4} if state == "finished" else None)
    said = facts_of(board).split(" | ")
    assert [re.findall(r"\d[\d.]*", part) for part in said] == [["4", "9"], ["1"], ["1"], ["1"], ["1", "0.750"]]
    assert ["running" in said[1], "failed" in said[3], "pooling_strategy b" in said[4]] == [True, True, True]


def failure(number, trials=1):
    return {"error": f"TrainingError: reason {number}", "trials": trials, "settings": {"training.seed": number}}


def test_each_reason_why_trials_failed_is_a_line_and_those_past_the_fifth_are_counted():
    assert failure_lines(result(), spec()) == []
    lines = failure_lines(result(failures=[failure(0, 3), failure(1)]), spec())
    assert ["3 " in lines[0], "seed 0" in lines[0], "TrainingError: reason 0" in lines[0]] == [True, True, True]
    assert ["1 " in lines[1], "seed 1" in lines[1], "TrainingError: reason 1" in lines[1]] == [True, True, True]
    many = failure_lines(result(failures=[failure(number) for number in range(REASONS + 2)]), spec())
    assert sum("reason " in line for line in many) == REASONS
    assert any("2 more" in line for line in many)
    assert any("MLflow" in line for line in lines)
    base = {"mlflow": {"enabled": False}}
    assert not any("MLflow" in line for line in failure_lines(result(failures=[failure(0)]), spec(base=base)))


def test_what_is_left_undone_is_said_with_its_numbers():
    assert waiting_of(result()) == []
    left = result(waiting=3, confirming={"finished": 2, "failed": 0, "waiting": 1})
    assert [re.findall(r"\d+", part) for part in waiting_of(left)] == [["3", "6"], ["2", "1"]]


def test_the_next_commands_are_those_that_work_here():
    enabled = next_commands(result(name="pooling"), spec())
    assert [any(word in line for line in enabled) for word in ("best", "resume", "ui")] == [True, True, True]
    off = next_commands(result(name="pooling"), spec(base={"mlflow": {"enabled": False}}))
    assert [any(word in line for line in off) for word in ("best", "resume", "ui", "report")] == [
        False,
        True,
        False,
        True,
    ]


def test_a_sweep_whose_password_is_not_kept_is_not_said_to_resume():
    storage = "postgresql://ann:secret@db/study"
    search = {"algorithm": "optuna", "num_trials": 4, "storage": storage}
    asked = spec(space={"training.seed": {"choice": [1, 2]}}, search=search)
    assert not any("resume" in line for line in next_commands(result(name="pooling"), asked))


def test_the_leaderboard_has_the_best_first_and_each_number_in_its_own_column():
    numbers = [{F1: 0.9 - n / 100, "cv_aggregate/macro_auc": n / 1000} for n in range(12)]
    ranked = [TrialOutcome(str(n), {"training.seed": n}, "finished", m[F1], m) for n, m in enumerate(numbers)]
    table = leaderboard(ranked, spec(), result(trials={"finished": 12, "pruned": 0, "failed": 0}))
    columns = {str(column.header): [str(cell) for cell in column.cells] for column in table.columns}
    assert columns["#"] == [str(n) for n in range(1, 11)]
    assert columns["seed"] == [str(n) for n in range(10)]
    assert columns["mean_f1"][:2] == ["0.900", "0.890"]
    assert columns["macro_auc"][:2] == ["0.000", "0.001"]
    assert columns["mean_auc"] == ["nan"] * 10
    assert "10 best of 12, at 1 matched negative per positive" in str(table.title)


def test_a_table_becomes_json_values_without_a_number_that_json_lacks():
    table = pd.DataFrame(
        {"f1": [0.5, math.nan, math.inf], "at": [pd.Timestamp("2026-11-25"), pd.NaT, pd.NaT], "name": ["a", None, "c"]}
    )
    assert records(table) == [
        {"f1": 0.5, "at": "2026-11-25T00:00:00", "name": "a"},
        {"f1": None, "at": None, "name": None},
        {"f1": None, "at": None, "name": "c"},
    ]


@pytest.mark.parametrize(("matching", "said"), [(3, None), (1203, "3 of 1,203 shown"), (None, "3 of many more shown")])
def test_a_list_that_was_cut_says_what_it_leaves_out(matching, said):
    table = pd.DataFrame({"run": np.arange(3)})
    table.attrs["matching"] = matching
    line = cut_line(table)
    assert line is None if said is None else line.startswith(said)


def test_a_table_without_a_count_is_whole():
    assert cut_line(pd.DataFrame()) is None


def test_a_leaderboard_that_is_too_wide_breaks_headings_at_their_underscores():
    def headings(width):
        console = Terminal()
        console.width = width
        table = Sheet("#", "pooling_strategy", "learning_rate")
        table.add("1", "attention", "0.001")
        with console.capture() as printed:
            console.print(table.fit(console))
        return [line.split() for line in printed.get().splitlines()[:-1]]

    assert headings(80) == [["#", "pooling_strategy", "learning_rate"]]
    assert headings(30) == [["pooling_"], ["#", "strategy", "learning_rate"]]
