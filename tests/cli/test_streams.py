"""No output fails for its encoding, and no command for a home that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gemma_nli
from gemma_nli.corpus.synthetic import write_synthetic
from tests.tracking.conftest import empty_database, sqlite_uri

__all__ = ["empty_database", "sqlite_uri"]

NAME = "caf\u00e9 \u4f60\u597d \U0001f600 [/]"
WITHOUT_HOME = """
import pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
"""


def command(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own with nothing in its environment but what is given, on pipes."""
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(gemma_nli.__file__).parents[1]), **environment}
    code = "import sys; from gemma_nli.cli import main; sys.argv = ['gemma-nli', *sys.argv[1:]]; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], env=kept, cwd=folder, capture_output=True, timeout=200, check=False
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        pytest.param({"PYTHONIOENCODING": "latin-1:strict"}, marks=pytest.mark.slow),
        pytest.param({"PYTHONIOENCODING": "cp1252"}, marks=pytest.mark.slow),
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=str,
)
def test_a_narrow_encoding_loses_no_output(environment, sqlite_uri, tmp_path):
    from mlflow.tracking import MlflowClient

    MlflowClient(sqlite_uri, sqlite_uri).create_experiment(NAME)
    environment = {**environment, "GEMMA_NLI_HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": sqlite_uri}
    shown = command(tmp_path, "experiments", **environment)
    assert shown.returncode == 0, shown.stderr
    assert b"\\u4f60" in shown.stdout
    assert b"[/]" in shown.stdout
    refused = command(tmp_path, "resume", NAME, **environment)
    assert refused.returncode == 2, refused.stderr
    assert b"Traceback" not in refused.stderr


def test_processes_that_a_command_starts_lose_none_either(monkeypatch):
    from gemma_nli.cli.process import prepare_streams

    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    prepare_streams()
    child = subprocess.run([sys.executable, "-c", f"print({NAME!r})"], capture_output=True, check=False)
    assert child.returncode == 0
    assert b"caf\\xe9" in child.stdout


@pytest.fixture
def without_home(tmp_path: Path) -> dict[str, str]:
    """No HOME, and a user of whom the system knows nothing."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_HOME)
    return {"PYTHONPATH": f"{tmp_path / 'site'}:{Path(gemma_nli.__file__).parents[1]}", "HF_HUB_OFFLINE": "1"}


def test_without_a_home_a_run_works_where_a_place_is_named(without_home, tmp_path, tiny_bert):
    write_synthetic(tmp_path / "data", num_posts=40, seed=1)
    words = [f"data.data_dir={tmp_path / 'data'}", f"model.name={tiny_bert}", "model.max_length=32"]
    words += ["data.num_folds=2", "training.num_epochs=1", "device.device=cpu"]
    done = command(tmp_path, "train", *words, **without_home, GEMMA_NLI_HOME=str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept" / "mlflow" / "mlflow.db").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"site", "data", "kept"}, "nothing lies beside it"


@pytest.mark.parametrize("words", [["train"], ["runs"], ["features", "list"]], ids=" ".join)
def test_without_a_home_and_a_place_one_sentence_says_what_to_set(words, without_home, tmp_path):
    asked = command(tmp_path, *words, **without_home)
    reported = asked.stderr.decode()
    assert asked.returncode == 2, reported
    assert "Traceback" not in reported
    assert "$GEMMA_NLI_HOME" in reported
    assert command(tmp_path, "--version", **without_home).returncode == 0
