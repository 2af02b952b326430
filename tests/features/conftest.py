"""Requests over the small models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.features import FeatureRequest
from gemma_nli.model.encoder import identify_encoder


@pytest.fixture
def request_for() -> Callable[..., FeatureRequest]:
    """(model folder, premises, hypotheses, views=..., with_tokens=..., any model setting) -> FeatureRequest."""

    def build(
        folder: Path,
        premises: list[str],
        hypotheses: list[str] | None = None,
        views: tuple[str, ...] = ("mean",),
        with_tokens: bool = False,
        **settings: Any,
    ) -> FeatureRequest:
        model = ModelConfig.model_validate({"name": str(folder), "max_length": 64, **settings})
        pairs = None if hypotheses is None else tuple(hypotheses)
        device = DeviceConfig(device="cpu")
        return FeatureRequest(model, device, identify_encoder(model), tuple(premises), pairs, views, with_tokens)

    return build
