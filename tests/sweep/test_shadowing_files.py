"""A file in the working folder that hides a library ends the command with its name, not each worker without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gemma_nli.base.errors import SweepError
from gemma_nli.sweep.ray.shadowing_files import check_shadows, first_folders

ROOT = Path(__file__).parents[2]


def plant(folder: Path, name: str) -> Path:
    entry = folder / name
    file = entry / "__init__.py" if not name.endswith(".py") else entry
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("raise SystemExit('mine')\n")
    return entry


@pytest.mark.parametrize(
    "name", ["torch.py", "numpy.py", "ray", "yaml.py", "transformers", "gemma_nli", "pandas", "queue.py"]
)
def test_a_module_that_hides_a_library_is_named(tmp_path, name):
    entry = plant(tmp_path, name)
    with pytest.raises(SweepError) as caught:
        check_shadows([tmp_path])
    assert str(entry) in str(caught.value)
    assert "Rename it" in str(caught.value)


@pytest.mark.parametrize("name", ["my_poolings.py", "data", "notes", "sys.py", "a_folder/torch.py"])
def test_other_files_are_left_alone(tmp_path, name):
    plant(tmp_path, name)
    (tmp_path / "torch.md").write_text("notes")
    (tmp_path / "torch").mkdir()  # without __init__.py the library goes before it
    check_shadows([tmp_path])


def test_the_projects_own_folder_hides_nothing():
    check_shadows([ROOT])


def test_the_working_folder_and_pythonpath_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "a"), "", "b"]))
    assert first_folders() == [tmp_path, tmp_path / "a", tmp_path / "b"]


INSTALLED = ["-c", "import sys; sys.path.pop(0); sys.argv[0] = 'gemma-nli'; from gemma_nli.cli import main; main()"]


@pytest.mark.parametrize(("command", "name"), [(INSTALLED, "torch.py"), (["-m", "gemma_nli"], "torch.py"),
                                               (["-m", "gemma_nli"], "yaml.py")])  # fmt: skip
def test_the_command_says_so_and_starts_no_ray(sweep_tree, tmp_path, command, name):
    folder = tmp_path / "work"
    entry = plant(folder, name)
    file = tmp_path / "little.yaml"
    file.write_text(yaml.safe_dump(sweep_tree))
    ended = subprocess.run(
        [sys.executable, *command, "sweep", str(file)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr[-2000:]
    assert str(entry) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "mlflow").exists()
