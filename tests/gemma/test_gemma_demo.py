"""`gemma-nli demo --model gemma`, as a sweep: what it compares, and on which weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_nli.sweep.demo_sweep import demo_spec

pytestmark = pytest.mark.gemma


def test_it_compares_layers_templates_and_poolings_on_the_real_weights(real_gemma: Path, tmp_path: Path) -> None:
    spec = demo_spec(tmp_path, "gemma")
    assert spec.base.model.name == str(real_gemma)
    assert {"model.layers", "model.template", "model.pooling_strategy"} == set(spec.compare)
    assert len(spec.cells()) == 16
    texts = {cell.config.model.template for cell in spec.cells()}
    assert "native" in texts
    assert any("?" in text for text in texts)
    assert "SYNTHETIC" in (tmp_path / "synthetic_redsm5_120" / "README.md").read_text()
