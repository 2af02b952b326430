"""What a message tells its reader to type works as it is printed, in the folder where it is printed."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gemma_nli.base.advice import command_line, install_line
from gemma_nli.config import MlflowConfig
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.tracking.store.mlflow_store import resolve_store
from tests.commands import run_command
from tests.tracking.conftest import empty_database, sqlite_uri

__all__ = ["empty_database", "sqlite_uri"]
ROOT = Path(__file__).parents[2]
BARE = {"PATH": "/usr/bin:/bin"}
"""A shell's environment in which no virtual environment was activated."""


def run_line(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PATH"}
    return subprocess.run(
        line, shell=True, cwd=folder, capture_output=True, text=True, env={**inherited, **BARE, **environment}
    )


def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a blank in it, and a PATH that leads to no environment."""
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", BARE["PATH"])
    return folder


@pytest.mark.parametrize("words", [("best", "--experiment", "it's [mine] $HOME"), ("resume", "a b"), ("--version",)])
def test_words_reach_the_command_as_they_are(words, tmp_path, monkeypatch):
    folder = outside(tmp_path, monkeypatch)
    line = command_line("gemma-nli", *words)
    assert tuple(shlex.split(line)[1:]) == words
    assert os.access(shlex.split(line)[0], os.X_OK)
    reported = run_line(line, folder)
    assert "not found" not in reported.stderr
    if words == ("--version",):
        assert (reported.returncode, reported.stdout.split()[0]) == (0, "gemma-nli")


def test_a_program_that_the_path_leads_to_is_named_plainly(monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    assert command_line("gemma-nli", "ui") == "gemma-nli ui"


def test_another_environments_program_of_the_same_name_is_not_taken_for_ours(tmp_path, monkeypatch):
    other = tmp_path / "gemma-nli"
    other.write_text("#!/bin/sh\nexit 3\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    assert run_line(command_line("gemma-nli", "--version"), tmp_path, PATH=str(tmp_path)).returncode == 0


def test_in_the_folder_of_make_demo_the_path_is_short(monkeypatch):
    monkeypatch.chdir(Path(sys.executable).parent.parent.parent)
    monkeypatch.setenv("PATH", BARE["PATH"])
    assert command_line("gemma-nli", "ui") == ".venv/bin/gemma-nli ui"


def test_a_package_is_installed_into_this_environment(tmp_path):
    line = install_line("gemma-nli[postgres]")
    assert run_line(f"{line} --dry-run --no-deps --no-index --quiet", ROOT).returncode == 0


@pytest.mark.parametrize("named", ["by the setting", "by the environment", "not at all"])
def test_a_store_is_asked_for_by_name_only_where_it_is_not_the_default(named, tmp_path, monkeypatch, sqlite_uri):
    folder = outside(tmp_path, monkeypatch)
    if named == "by the environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    store = resolve_store(MlflowConfig(tracking_uri=sqlite_uri if named == "by the setting" else None))
    line = store.line("experiments")
    assert ("--tracking-uri" in line) == (named == "by the setting")
    done = run_line(line, folder)
    assert done.returncode == (2 if named == "not at all" else 0), done.stderr


def test_a_store_with_a_password_is_asked_for_through_the_environment(monkeypatch):
    secret = "postgresql://ann:canary@db/x"
    store = resolve_store(MlflowConfig(tracking_uri=secret))
    line = store.line("best", "--experiment", "x")
    assert "canary" not in line + store.mlflow_line("gc")
    assert shlex.split(line, comments=True)[-1] == "x"
    assert "export MLFLOW_TRACKING_URI=" in line
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    assert "#" not in store.line("best", "--experiment", "x")


def test_a_sweep_ends_with_lines_that_work(local_ray, tiny_bert, tmp_path, monkeypatch, capsys):
    """Also in a store that is not the default one, and where neither the environment nor its folder was entered."""
    folder = outside(tmp_path, monkeypatch)
    write_synthetic(folder / "data", num_posts=30, seed=3)
    uri = f"sqlite:///{tmp_path / 'elsewhere' / 'mlflow.db'}"
    text = f"""
name: small
base:
  data: {{data_dir: {folder / "data"}, num_folds: 2}}
  model: {{name: {tiny_bert}, max_length: 48}}
  training: {{num_epochs: 1}}
  output: {{experiment_name: quick}}
  mlflow: {{tracking_uri: '{uri}'}}
space: {{training.learning_rate: {{grid: [0.001]}}}}
"""
    Path("sweep.yaml").write_text(text)
    assert run_command("sweep", "sweep.yaml", "resources.max_concurrent=1") == 0
    reported = capsys.readouterr().out
    lines = [line.strip() for line in reported.partition("Next:")[2].strip().splitlines()]
    assert [re.search(r"gemma-nli (\w+)", line)[1] for line in lines] == ["best", "resume", "ui"]
    done = run_line(f"{lines[0]} --json", folder)
    assert done.returncode == 0, done.stderr
    assert run_command(*shlex.split(lines[1])[1:]) == 0  # in this process: a Ray of its own takes half a minute
    assert lines == [line.strip() for line in capsys.readouterr().out.partition("Next:")[2].strip().splitlines()]
    command = json.loads(done.stdout)["command"]
    assert run_command(*shlex.split(command)[1:]) == 0
    assert os.access(shlex.split(command)[0], os.X_OK)
    assert not list(folder.glob("mlruns*")) + list(folder.glob("*.db"))


PROGRAMS = re.compile(r"(?<![\w.\[`-])(gemma-nli [a-z-]+|pip install|mlflow [a-z-]+ |wandb sync)")
ELSEWHERE = {
    "gemma_nli/base/advice.py",
    "gemma_nli/sweep/cluster/preflight.py",  # a node's own message
    "gemma_nli/tracking/archives/backup.py",  # to be typed where a server's store lies
    "gemma_nli/analysis/findings.py",  # the report: a page that is read on any machine
    "gemma_nli/analysis/report/model_card.py",  # the same
    "gemma_nli/analysis/conclusion.py",  # the same
    "gemma_nli/analysis/sealed_posts.py",  # the same
}


def test_no_message_spells_a_command_of_its_own():
    """Each printed command is made by advice.py: found by looking through every string that is no docstring."""
    found = []
    for file in sorted((ROOT / "gemma_nli").rglob("*.py")):
        if str(file.relative_to(ROOT)) in ELSEWHERE:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docs = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, _DOCUMENTED)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docs:
                found += [f"{file.relative_to(ROOT)}:{node.lineno}: {m[0]}" for m in PROGRAMS.finditer(node.value)]
    assert found == []


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
