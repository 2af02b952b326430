"""Every command of docs/tracking.md is run here in its order: on small parts, else as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.tracking.read.frames import list_runs
from gemma_nli.tracking.store import ui
from tests.commands import run_command

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, flags=re.M)
OURS = [command for command in COMMANDS if command.startswith("gemma-nli ")]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
MODEL = "gemma_nli_little"


def test_every_command_has_its_test():
    others = [command.split()[0] for command in COMMANDS if command not in OURS]
    assert others == ["export", "mlflow", "curl"]  # tests/tracking/test_serve.py
    assert len(OURS) > 20


def test_images_and_files_named_are_there():
    for name in re.findall(r"\]\((images/[\w.]+)\)", PAGE):
        assert (ROOT / "docs" / name).is_file(), name
    for name in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (ROOT / name).is_file(), name


def test_make_targets_are_lines_that_call_the_command():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = ["nli-train", "nli-train-4090", "nli-train-3090", "nli-ablation-pooling", "mlflow-ui", "mlflow-ui-custom"]
    wanted += [f"mlflow-{name}" for name in ("list", "runs", "models", "clean", "backup", "restore")]
    for target in wanted:
        done = subprocess.run(
            ["make", "-n", "-o", ".venv/.ready", target, "PORT=5001", "FILE=a.tar.gz"],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if "gemma-nli" in line]
        words = shlex.split(line.partition("gemma-nli ")[2])
        command = [sys.executable, "-m", "gemma_nli", words[0], "--help"]
        assert words[0] in {name.split()[1] for name in OURS} | {"sweep"}, command
        assert makefile.count(f"\n{target}: ") == 1


@pytest.fixture
def registered(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder as a reader of the page has it: data, a default store, and a model that a sweep has registered."""
    from gemma_nli.config import MlflowConfig
    from gemma_nli.tracking.registry.register import register_bundle
    from gemma_nli.tracking.write.tracker import MlflowTracker
    from tests.tracking.conftest import a_trial
    from tests.tracking.test_torch_models import TAGS, make_bundle

    write_synthetic(tmp_path / "data" / "redsm5", num_posts=60, seed=3)
    monkeypatch.chdir(tmp_path)
    tracker = MlflowTracker(MlflowConfig(), "little")
    bundle = make_bundle(tmp_path / "bundle", tiny_bert, max_length=48)
    register_bundle(bundle, MODEL, tracker, tracker.sync_trial(None, a_trial()), TAGS)
    rows = pd.DataFrame({"premise": ["so tired", "fine"], "hypothesis": ["fatigue", "mood"]})
    rows.to_csv("pairs.csv", index=False)
    rows[["premise"]].to_csv("posts.csv", index=False)
    return MODEL


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_and_snippets_work_in_their_order(registered, tiny_bert, monkeypatch, capsys):
    served: list[Any] = []
    monkeypatch.setattr(ui.os, "execve", lambda *words: served.append(words))  # tests/tracking/test_browser.py serves
    small = [f"model.name={tiny_bert}", "model.max_length=48", "data.num_folds=3", "training.num_epochs=2"]
    runs: list[str] = []
    for command in OURS:
        words = shlex.split(command.replace("MODEL", registered))[1:]
        if words[0] in ("train", "train-simple"):
            given = {word.split("=")[0] for word in small}
            words = [*(word for word in words if word.split("=")[0] not in given), *small]
        if words[0] == "compare":
            runs = list_runs("nli_full_5fold")["run_id"].tolist() + list_runs("gemma_9b_run1")["run_id"].tolist()
        if words[0] == "reproduce":
            words += ["mlflow.enabled=false"]
        words = [{"RUN_A": runs[0], "RUN_B": runs[-1]}.get(word, word) if runs else word for word in words]
        if words[0] in ("restore", "export", "clean"):  # this process still holds the store that restore moves aside
            done = subprocess.run([sys.executable, "-m", "gemma_nli", *words], capture_output=True, text=True)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            continue
        status = run_command(*words)
        reported = capsys.readouterr()
        assert status == 0, f"{command}: {reported.err}"
        if words[0] == "runs":
            assert "no run matches" not in reported.out, command
    assert [words[1][-3] for words in served] == ["5000", "5001"]


@pytest.fixture
def read_through(registered: str) -> str:
    """And the runs and roles that the page's snippets ask for."""
    from gemma_nli.config import MlflowConfig, RunConfig
    from gemma_nli.tracking.registry.promotion import promote
    from gemma_nli.tracking.write.artifacts.config_yaml import config_yaml
    from gemma_nli.tracking.write.tracker import MlflowTracker
    from tests.tracking.conftest import a_trial

    tracker = MlflowTracker(MlflowConfig(), "nli_full_5fold")
    for key in ("k1", "k2"):
        tracker.sync_trial(None, a_trial(key, artifacts={"config.yaml": config_yaml(RunConfig()).encode()}))
    promote(tracker.store, registered, 1, "production")
    return registered


@pytest.mark.slow
def test_each_snippet_works_as_it_is_pasted_and_leaves_no_store_behind(read_through, tmp_path):
    assert len(SNIPPETS) == 4
    folder = tmp_path / "fresh"
    folder.mkdir()
    last = {0: "assert len(table) >= 2", 1: "", 2: "", 3: "assert module.predict(['a'], ['b']).shape == (1,)"}
    for number, snippet in enumerate(SNIPPETS):
        code = f"{snippet.replace('MODEL', read_through)}\n{last[number]}"
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"
        assert list(folder.iterdir()) == [], snippet
    (mine,) = list_runs("notebook")["status"]
    assert mine == "FINISHED"


def test_the_line_that_names_the_store_for_mlflows_own_commands_works(read_through, tmp_path):
    line = next(command for command in COMMANDS if command.startswith("export "))
    folder = tmp_path / "fresh"
    folder.mkdir()
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        f"{line} && mlflow experiments search", shell=True, cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert "nli_full_5fold" in done.stdout, done.stderr
    assert list(folder.iterdir()) == []
