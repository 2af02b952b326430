"""The real Gemma 3 270M, converted once and kept in pytest's cache for the sessions that follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.model.encoder import Encoder, load_encoder
from gemma_nli.model.gemma_weights import gemma_folder


@pytest.fixture(scope="session")
def real_gemma(request: pytest.FixtureRequest) -> Path:
    """Its folder: 18 layers, hidden 640, windows of 512 tokens; the weights were quantized to 4 bits."""
    assert request.config.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(request.config.cache.mkdir("gemma_nli_home")))
        return gemma_folder(print)


@pytest.fixture(scope="module")
def causal(real_gemma: Path) -> Encoder:
    """As it is: each token sees itself and earlier ones."""
    return load_encoder(ModelConfig(name=str(real_gemma), max_length=1024), DeviceConfig(device="cpu"))
