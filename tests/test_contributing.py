"""CONTRIBUTING.md: its examples run and keep the contract they speak of; the files and targets it names are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gemma_nli.storage.bucket import Changed
from gemma_nli.training.results import FoldResult

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(section: str) -> dict[str, object]:
    """The names that the section's code defines."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.split(f"## {section}\n")[1].split("\n## ")[0], re.M | re.S)
    names: dict[str, object] = {}
    exec(compile(code, f"CONTRIBUTING.md, {section}", "exec", dont_inherit=True), names)
    return names


def test_the_artifact_counts_every_pair_once():
    rows, probabilities = np.arange(4), np.array([0.9, 0.2, 0.7, 0.1], dtype=np.float32)
    labels = np.array([1, 1, 0, 0], dtype=np.int8)
    fold = FoldResult(1, "finished", {"train_loss": [0.5]}, 1, 1, 0.5, rows, probabilities, labels, {})
    counts = json.loads(example("Add an artifact of a trial")["confusion_matrix"]({1: fold, 2: fold}))
    assert counts == {"label by decision": [[2, 2], [2, 2]]}


def test_the_bucket_keeps_two_writers_apart(tmp_path):
    bucket = example("Add a storage backend")["MemoryBucket"]("box")
    bucket.check_conditions("probe")
    version = bucket.put("a/b", b"1", if_absent=True)
    with pytest.raises(Changed):
        bucket.put("a/b", b"2", if_match=f"{version}x")
    assert (bucket.keys("a/"), bucket.get("a/b").data, bucket.head("none")) == (["a/b"], b"1", None)
    assert bucket.fetch("a/b", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_bytes() == b"1"
    bucket.delete("a/b")
    assert not bucket.fetch("a/b", tmp_path / "gone")


def test_the_files_and_targets_named_are_there():
    for name in re.findall(r"`((?:gemma_nli|tests|docs)/[\w/.]+)`", PAGE):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z-]+)", PAGE):
        assert re.search(rf"^{target}: ", makefile, re.M), target
