from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import torch

from gemma_nli.trial.hardware import environment_tags, hardware_tags


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True).stdout


def test_a_machine_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tags = hardware_tags()
    assert (tags["device"], tags["has_gpu"], tags["gpu_name"]) == ("cpu", "false", "none")
    assert int(tags["cpu_count"]) >= 1
    assert float(tags["memory_gb"]) > 0
    able = torch.cpu.get_capabilities()
    assert tags["supports_bfloat16"] == str(bool(able["avx512_bf16"] or able["amx_bf16"])).lower()


def test_only_the_gpus_given_to_the_process_are_named(monkeypatch):
    """torch's own list follows CUDA_VISIBLE_DEVICES; the stand-in is what it shows of one H200 and one V100."""
    gpus = [
        SimpleNamespace(name="NVIDIA H200", total_memory=140 * 1024**3, major=9),
        SimpleNamespace(name="Tesla V100", total_memory=16 * 1024**3, major=7),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert hardware_tags() == {
        "device": "cuda", "has_gpu": "true", "gpu_name": "NVIDIA H200", "gpu_count": "1", "gpu_memory_gb": "140.0",
        "supports_bfloat16": "true", "supports_tf32": "true",
    }  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    both = hardware_tags()
    assert both["gpu_name"] == "NVIDIA H200, Tesla V100"
    assert both["supports_bfloat16"] == "false"
    assert hardware_tags(torch.device("cuda", 1))["gpu_name"] == "Tesla V100"
    trained_beside_it = hardware_tags(torch.device("cpu"))
    assert (trained_beside_it["has_gpu"], trained_beside_it["gpu_name"]) == ("false", "none")


def test_the_commit_and_whether_the_tree_was_changed_are_named(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    tags = environment_tags(tmp_path)
    assert tags["gemma_nli.git_commit"] == git(tmp_path, "rev-parse", "HEAD").strip()
    assert tags["gemma_nli.git_dirty"] == "false"
    assert tags["version.torch"] == torch.__version__
    (tmp_path / "file").write_text("two")
    assert environment_tags(tmp_path)["gemma_nli.git_dirty"] == "true"


def test_a_machine_without_git_leaves_the_commit_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    tags = environment_tags(tmp_path)
    assert "gemma_nli.git_commit" not in tags
    assert "version.mlflow" in tags
