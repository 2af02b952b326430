"""What came from outside is shown as it is and never read as markup, nor obeyed by the terminal."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

import gemma_nli
from gemma_nli.console.sweep_progress import Progress, Steps, facts_of
from gemma_nli.console.terminal import Sheet, Terminal, line
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.tracking.write.projection import KIND, STATE
from tests.commands import run_command
from tests.tracking.conftest import empty_database, sqlite_uri

__all__ = ["empty_database", "sqlite_uri"]

NAMES = [
    "../[/] <b>",
    "[red]alarm[/red]",
    "[link=https://evil.example]here[/link]",
    "[/bold]",
    "[bold",
    "\\[x]",
    ":smiley: :skull:",
    "a\x1b[31mred\x1b]8;;https://evil.example\x07link",
    "two\nrows",
    "back\rover",
    "tab\there",
    "bell\x07",
    "right\u202eto left\u202c",
    "no\u200bwidth\u2066x\u2069",
    "c1\x9b31m",
    "{name} %s $HOME `id`",
    "caf\u00e9 \u4f60\u597d \U0001f600",
]
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def strange_store(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A store in which another program has given everything such names; the ids of its runs."""
    client = MlflowClient(sqlite_uri, sqlite_uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    monkeypatch.setenv("COLUMNS", "200")
    runs = []
    for place, name in enumerate(NAMES):
        experiment = client.create_experiment(name)
        tags = {KIND: "trial", STATE: name, "gemma_nli.metric": name, "mlflow.note.content": name}
        run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        client.log_param(run, f"param_{place}", name)
        client.log_metric(run, "cv_aggregate/mean_f1", 0.5)
        client.set_terminated(run)
        runs.append(run)
    for name in ("[red]model", "m\x1b[31m", "[bold"):
        client.create_registered_model(name)
        client.create_model_version(
            name, "file:///nowhere", runs[0], {"gemma_nli.sweep": "[/]", "gemma_nli.metric": "[/b]"}
        )
        client.set_registered_model_alias(name, "champion", "1")
    return runs


def test_no_command_over_a_store_reads_a_name_as_markup(strange_store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = strange_store[:2]
    asked = [
        ["experiments"], ["runs"], ["runs", "--kind", "all"], ["runs", "--csv"], ["compare", *strange_store],
        ["models"], ["models", "[red]model"], ["models", "[/]"], ["clean"], ["compare", first, second],
        *(["runs", "--experiment", name] for name in NAMES), *(["best", "--experiment", name] for name in NAMES),
        *(["export", name, "--to", "out"] for name in NAMES[:2]), ["reproduce", first],
        ["promote", "[/]", "1", "--to", "[/]"],
        ["resume", "[/]\x1b[31m"], ["train", "[/]"], ["train", "[/]=\x1b[31m"], ["sweep", "[/]\x1b[31m.yaml"], ["[/]"],
        ["features", "list", "--storage", "[/]"], ["predict", "--model", "[/]", "--input", "[/]", "--output", "[/]"],
    ]  # fmt: skip
    for words in asked:
        monkeypatch.setattr("sys.stdin", io.StringIO(""))  # `clean` asks, and nobody answers
        status = run_command(*words)
        reported = capsys.readouterr()
        assert status in (0, 1, 2), (words, status)
        assert "Traceback" not in reported.err, (words, reported.err)
        assert "MarkupError" not in reported.err, words
        assert not OBEYED.search(reported.out + reported.err), (words, reported.out + reported.err)


def test_names_stand_in_the_tables_as_they_are(strange_store, capsys):
    assert run_command("experiments") == 0
    reported = capsys.readouterr().out
    for name in ("../[/] <b>", "[red]alarm[/red]", "[link=https://evil.example]here[/link]", ":smiley:", "\\[x]"):
        assert name in reported
    assert "two\\nrows" in reported
    assert "right\\u202eto left" in reported
    assert len([row for row in reported.splitlines() if row.strip()]) == len(NAMES) + 2, (
        "a header, Default, a row per experiment"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_line_a_cell_and_a_column_are_one_line_of_plain_text(name):
    out = io.StringIO()
    console = Terminal()
    console.file = out
    console.width = 200
    console.say(f"note: {name}", "yellow")
    sheet = Sheet(name, "x", title=name)
    sheet.add(name, 1)
    console.print(sheet)
    reported = out.getvalue()
    assert not OBEYED.search(reported)
    assert len(reported.splitlines()) == 4
    assert "[" not in name or name.split("[")[1].split("\x1b")[0].split("\n")[0][:4] in reported


def test_the_progress_of_a_sweep_with_such_names_is_plain(capsys):
    for terminal in (True, False):
        out = io.StringIO()
        state = ProgressState("cv_aggregate/mean_f1", "max", 1)
        console = Console(file=out, width=80, force_terminal=terminal, legacy_windows=False)
        with Progress(console=console) as progress:
            progress.watch(state)
            state.link("MLflow run", "http://h/[/]\x1b]8;;x\x07")
            state.add("a", {"model.name": "[/]\u202e"})
            state.update("a", "finished", {"cv_aggregate/mean_f1": 0.5})
            state.enter("tuning")
        reported = out.getvalue()
        assert "\\x1b]8;;x\\x07" in reported
        assert "\u202e" not in reported
    assert "[/]" in facts_of(state)


def test_an_address_is_whole_on_a_line_of_its_own_in_80_columns():
    address = "http://127.0.0.1:5000/#/experiments/123456789012345678/runs/" + 32 * "a" + "/artifacts"
    for terminal in (True, False):
        out = io.StringIO()
        state = ProgressState("cv_aggregate/mean_f1", "max", 1)
        console = Console(file=out, width=80, force_terminal=terminal, legacy_windows=False)
        with Progress(console=console) as progress:
            progress.watch(state)
            state.link("MLflow run", address)
        assert address in out.getvalue()


def test_the_live_line_of_a_sweep_is_never_cut():
    out = io.StringIO()
    state = ProgressState("cv_aggregate/mean_f1", "max", 2)
    console = Console(file=out, width=80, force_terminal=True, legacy_windows=False)
    with Progress(console=console) as progress:
        progress.watch(state)
        state.add("a", {f"model.setting_{place}": "a_long_value" for place in range(9)})
        state.update("a", "finished", {"cv_aggregate/mean_f1": 0.5})
        state.enter("tuning")
        reported = "".join(part.text for part in console.render(progress._render()))
    assert "setting_8 a_long_value" in " ".join(reported.split())
    assert "left" in " ".join(reported.split())


@pytest.mark.parametrize("terminal", [True, False])
def test_each_step_of_a_measurement_is_told_as_it_begins(terminal):
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=terminal, legacy_windows=False)
    with Steps("measuring", console=console) as steps:
        for step in ("starting Ray", "[/] a rehearsal"):
            steps.report(step)
            time.sleep(0.2)
            assert step in out.getvalue()
    quiet = io.StringIO()
    with Steps("measuring", enabled=False, console=Console(file=quiet)) as steps:
        steps.report("x")
    assert quiet.getvalue() == ""


def test_only_one_file_makes_consoles_tables_and_texts():
    package = Path(gemma_nli.__file__).parent
    made = re.compile(r"\bConsole\(|\bTable\(|\bText\(|\bTextColumn\(|Console\.print|typer\.echo\(|\bprint\(f?[\"']")
    for path in [*(package / "console").glob("*.py"), *(package / "cli").glob("*.py")]:
        if path.name != "terminal.py":
            found = [row for row in path.read_text().splitlines() if made.search(row)]
            assert [row for row in found if "typer.echo" not in row or path.name != "app.py"] == [], path


def test_a_line_says_what_it_was_given():
    assert line("[b]x[/b]", "bold").plain == "[b]x[/b]"


@pytest.mark.parametrize("columns", ["20", "80"])
def test_a_command_longer_than_the_terminal_is_printed_whole_on_one_line(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    command = f"gemma-nli train --config '/home/ann/{'folder/' * 40}config.yaml' --tag note='two words'"
    Terminal().say(command, "bold", whole=True)
    Terminal().say_all(f"note: {command}\n{command}")
    assert capsys.readouterr().out == f"{command}\nnote: {command}\n{command}\n"


def test_a_sentence_longer_than_the_terminal_loses_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sentence = f"the best is {'x' * 200} of them all {'y ' * 80}"
    Terminal().say(sentence)
    assert "".join(capsys.readouterr().out.split()) == "".join(sentence.split())
