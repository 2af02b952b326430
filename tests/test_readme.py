"""Every command in the README is run here: as it stands where that is possible, on small parts where it is not."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from gemma_nli.corpus.synthetic import write_synthetic
from tests.commands import run_command

ROOT = Path(__file__).parent.parent
COMMANDS = re.findall(r"^\$ (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
ON_A_CLUSTER = ("gemma-nli submit", "gemma-nli jobs", "gemma-nli logs", "gemma-nli stop")  # run by tests/cluster
OURS = [c for c in COMMANDS if c.startswith("gemma-nli ") and not c.startswith(ON_A_CLUSTER)]


def test_every_command_has_its_test():
    others = {command.split()[0] + " " + command.split()[1] for command in COMMANDS if command not in OURS}
    tested = {"make demo", "ray up", "ray dashboard", "ray job", *ON_A_CLUSTER}
    assert others == tested  # the tests below, tests/cluster and tests/test_demo.py


@pytest.mark.usefixtures("local_ray")
def test_our_commands_work_in_their_order(tmp_path, tiny_bert, monkeypatch, capsys):
    write_synthetic(tmp_path / "data" / "redsm5", num_posts=60, seed=3)
    for name in ("sweeps", "search_spaces"):
        os.symlink(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    small = [
        f"model.name={tiny_bert}",
        "model.max_length=48",
        "model.layers=last",
        "data.num_folds=2",
        "training.num_epochs=2",
    ]
    small += ["resources.max_concurrent=1"]
    for command in OURS:
        words = [word for word in shlex.split(command)[1:] if not word.startswith(("storage=", "resources.gpu="))]
        if words[0] in ("sweep", "train"):
            kept = [word for word in words if word.split("=")[0] not in {key.split("=")[0] for key in small}]
            words = [*kept, *(small if words[0] == "sweep" else small[:-1])]
        status = run_command(*words)
        assert status == 0, f"{command}: {capsys.readouterr().err}"


def test_a_reader_is_told_how_to_have_the_command_after_make_demo():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before = text[: text.index("$ gemma-nli")]
    assert "`source .venv/bin/activate` puts `gemma-nli` on the PATH" in before
    ending = before.partition("\nNext:\n")[2].partition("```")[0].strip().splitlines()
    assert [line.split()[:2] for line in ending] == [[".venv/bin/gemma-nli", word] for word in ("best", "resume", "ui")]


def test_the_first_screen_says_who_it_is_for_and_what_they_get_before_how():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = text.partition("\n## ")[0]
    assert first.index("For researchers") < first.index("What you get:")
    assert "$ " not in first
    assert first.count("\n") < 24


def test_a_small_encoder_on_ones_own_data_takes_five_lines():
    part = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .split("## Gemma or MiniLM on your data")[1]
        .partition("\n## ")[0]
    )
    assert len(re.findall(r"^\$ gemma-nli ", part, flags=re.M)) == 5


def test_the_files_named_are_there():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## Files")[1]
    for line in re.findall(r"^( *)([\w./]+) {2,}\S", tree, flags=re.M):
        place = ROOT / ("gemma_nli/" if line[0] else "") / line[1]
        assert place.exists(), place


def test_the_yaml_shown_is_the_file():
    shown = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert shown is not None
    assert shown[1] == (ROOT / "sweeps" / "pooling.yaml").read_text(encoding="utf-8")
