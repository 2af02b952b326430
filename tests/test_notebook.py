"""docs/notebook.md is run from top to bottom, as a notebook is, on a small encoder and a synthetic corpus."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gemma_nli
from gemma_nli.corpus.synthetic import write_synthetic

PAGE = (Path(__file__).parent.parent / "docs" / "notebook.md").read_text(encoding="utf-8")
CELLS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.usefixtures("local_ray")
def test_the_cells_run_in_their_order(tmp_path, tiny_bert, monkeypatch, capsys):
    write_synthetic(tmp_path / "data" / "redsm5", num_posts=60, seed=3)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, cell in enumerate(CELLS, start=1):
        exec(compile(cell.replace(ENCODER, str(tiny_bert)), f"docs/notebook.md, cell {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "60 posts, 10 criteria" in printed
    assert "{'finished': 2" in printed
    assert "2 trials in MLflow" in printed
    assert "did you mean 'mean'?" in printed
    assert names["best"].config.model.pooling_strategy in ("mean", "max")


def test_the_page_uses_public_names_only():
    used = set(re.findall(r"\bnli\.(\w+)", "".join(CELLS)))
    assert used <= set(gemma_nli.__all__)
    assert ENCODER in "".join(CELLS)
