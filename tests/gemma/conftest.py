"""The real Gemma 3 270M, converted once and kept in pytest's cache for the sessions that follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.model.encoder import Encoder, load_encoder
from gemma_nli.model.gemma_weights import gemma_folder


@pytest.fixture(scope="session")
def kept_home(request: pytest.FixtureRequest) -> Path:
    """A home in pytest's cache: the converted folder, and what was found by probing it."""
    assert request.config.cache is not None
    return request.config.cache.mkdir("gemma_nli_home")


@pytest.fixture(autouse=True)
def probes_kept(clean_environment: None, kept_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA_NLI_HOME", str(kept_home))


@pytest.fixture(scope="session")
def real_gemma(kept_home: Path) -> Path:
    """Its folder: 18 layers, hidden 640, windows of 512 tokens; the weights were quantized to 4 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(kept_home))
        return gemma_folder(print)


@pytest.fixture(scope="session")
def causal(real_gemma: Path, kept_home: Path) -> Encoder:
    """As it is: each token sees itself and earlier ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(kept_home))
        return load_encoder(ModelConfig(name=str(real_gemma), max_length=640), DeviceConfig(device="cpu"))
