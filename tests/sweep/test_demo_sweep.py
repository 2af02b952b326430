"""`make demo`, as a new user sees it."""

from __future__ import annotations

import json

import pytest

from gemma_nli.sweep.demo_sweep import demo_spec
from tests.commands import run_command


def test_the_demo_sweeps_twelve_configurations_over_a_corpus_marked_synthetic(tmp_path, minilm):
    spec = demo_spec(tmp_path)
    assert len(spec.cells()) >= 12
    assert spec.base.model.name == str(minilm)
    assert "SYNTHETIC" in (tmp_path / "synthetic_redsm5" / "README.md").read_text()


@pytest.mark.slow
def test_the_demo_ends_with_a_registered_model(local_ray, tmp_path, capsys):
    assert run_command("demo", "--folder", str(tmp_path / "demo"), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["trials"] == {"finished": 12, "pruned": 0, "failed": 0}
    assert (result["registered"]["name"], result["registered"]["alias"]) == ("gemma_nli_demo", "candidate")
