"""Every layer that a sweep's space can ask for is one that its encoder has, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from gemma_nli.config import ModelConfig, RunConfig
from gemma_nli.config.chosen_layers import LAST, as_stored, choose_layers
from gemma_nli.model.layers import FINAL_NORMS, layers_of
from gemma_nli.model.loading.folder_files import read_header
from gemma_nli.model.loading.identity import encoder_folder, weight_files
from gemma_nli.model.loading.network import sizes
from gemma_nli.spec.domain import Range
from gemma_nli.spec.spec import SweepSpec


def check_layers(spec: SweepSpec, configs: Iterable[RunConfig]) -> None:
    """
    Args:
        configs: the sweep's cells; with Optuna a sample, and then every layer of the space is checked as well.
    Raises:
        EncoderError: quotes `model.layers` and the encoder's number of layers.
    """
    models = {(m.name, m.revision, m.layers, m.unfreeze_last_n): m for m in (config.model for config in configs)}
    for model in models.values():
        if model.layers != LAST:
            layers_of(model)
    if spec.search.algorithm == "optuna":
        for name, layers in _asked(spec):
            model = spec.base.model.model_copy(update={"name": name})
            choose_layers(as_stored(layers), sizes(name, encoder_folder(model))[1], name)


def layer_notes(configs: Iterable[RunConfig]) -> list[str]:
    """Of each encoder whose lower layers are read: which of its states have its final norm. Nothing is loaded."""
    models = {(m.name, m.revision, m.layers): m for m in (config.model for config in configs) if m.layers != LAST}
    depths: dict[tuple[str, str | None], tuple[ModelConfig, int]] = {}
    for model in models.values():
        if (choice := layers_of(model)).numbers != (choice.depth,):
            depths[model.name, model.revision] = (model, choice.depth)
    return [
        f"{model.name}: layer {depth}, the last, has the encoder's final norm; the layers below it have none."
        if _has_final_norm(model)
        else f"{model.name}: no final norm after its {depth} layers was found; all are read as they are."
        for model, depth in depths.values()
    ]


def _has_final_norm(model: ModelConfig) -> bool:
    """Whether the weights have a norm behind the last layer: under one of its usual names, and of no layer."""
    names = (name for file in weight_files(encoder_folder(model)) for name in read_header(file))
    usual = "|".join((*FINAL_NORMS, "final_layernorm"))
    return any(re.fullmatch(rf"([a-z_]+\.)*({usual})\.weight", name) for name in names)


def _asked(spec: SweepSpec) -> Iterator[tuple[str, Any]]:
    """Each encoder with each layer that the space lets it have: of a range, its two ends."""
    named = spec.space.domain("model.name")
    names = [spec.base.model.name] if named is None else list(named.corners)
    for varied in spec.space.varied:
        if varied.key == "model.layers":
            allowed = dict(varied.when).get("model.name", names)
            values = varied.domain.corners if isinstance(varied.domain, Range) else varied.domain.values
            yield from ((str(name), value) for name in names if name in allowed for value in values)
