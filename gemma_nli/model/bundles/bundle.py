"""A classifier as a self-contained folder: settings, safetensors and tokenizer files, never pickle.

bundle.json             format, settings, thresholds, scaling of the logits, the encoder's identity, checksums, metadata
classifier.safetensors  pooling, norm and head
encoder/                config.json, weights (adapters merged in), tokenizer; its modules.json under native pooling
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import ConfigError, EncoderError
from gemma_nli.config import (
    DataConfig,
    DeviceConfig,
    MlflowConfig,
    ModelConfig,
    RunConfig,
    build_config,
    build_stored_config,
)
from gemma_nli.config.templates import PLACES, quoted
from gemma_nli.model.adapters import has_adapters, merged_state
from gemma_nli.model.bundles.bundle_record import (
    DECIDED_FORMAT,
    FORMAT,
    BundleRecord,
    new_bundle,
    read_bundle_record,
    read_tensors,
    write_record,
)
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import Encoder, load_encoder, resolve_device
from gemma_nli.model.loading.identity import (
    WEIGHTS_INDEX,
    file_digest,
    identify_folder,
    is_of_an_earlier_encoding,
    tokenizer_files,
    weight_files,
)
from gemma_nli.model.loading.network import load_network
from gemma_nli.model.loading.sentence_modules import (
    copy_modules,
    is_native,
    named_prompts,
    read_sentence_modules,
)
from gemma_nli.model.scaling import UNSCALED, Scaling

ENCODER = "encoder"
OF_THE_HEAD = {"pooling_strategy", "pooling_k", "head", "head_hidden", "head_norm", "dropout"}
"""Settings of a model that its encoder does not read, whatever their values; native pooling alone it does."""
_RELOADED = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.1}
"""How far a reloaded logit may be off, per unit: adapters that are merged in half precision are rounded."""


@dataclass(frozen=True)
class LoadedBundle:
    """A classifier in eval mode and everything that was saved with it; `config.model.name` is the bundle's encoder
    folder.

    threshold: from which probability on a pair is matched; `thresholds`: by criterion id, of those with one of their
    own (`metadata["criteria"]` has their texts).
    """

    folder: Path
    config: RunConfig
    classifier: PairClassifier
    threshold: float
    encoder_record: dict[str, Any]
    metadata: dict[str, Any]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def encoder(self) -> Encoder:
        return self.classifier.encoder

    @property
    def known(self) -> dict[str, str]:
        """Text to criterion id, of those the model was trained on; empty if it was saved without them."""
        criteria = self.metadata.get("criteria")
        return {str(text).strip(): str(name) for name, text in criteria.items()} if isinstance(criteria, dict) else {}

    def probability(self, premises: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
        """(N,) float64, of matched."""
        logit_N = self.classifier.predict(premises, hypotheses, self.config.features.batch_tokens)
        return np.asarray(torch.from_numpy(logit_N.astype(np.float64)).sigmoid().numpy())


def save_bundle(
    folder: str | Path,
    config: RunConfig,
    classifier: PairClassifier,
    threshold: float,
    metadata: Mapping[str, Any],
    thresholds: Mapping[str, float] | None = None,
    scaling: Scaling = UNSCALED,
) -> Path:
    """Write a bundle, completely or not at all; an existing one is replaced.

    A frozen encoder's files are copied as they are; a trained one is written with its adapters merged in. The locations
    of data and stores are left out of the bundle's settings.

    Args:
        thresholds: by criterion id, of criteria that have one of their own; `threshold` is of all others.
        scaling: of the logits, as the classifier has it.
    Raises:
        EncoderError: `folder` contains something that is not a bundle.
    """
    target, own = Path(folder).absolute(), dict(thresholds or {})
    for each in (threshold, *own.values()):
        if not 0 <= each <= 1:
            raise ValueError(f"threshold must be in 0..1, got {each}")
    if odd := sorted(own.keys() - metadata.get("criteria", {}).keys()):
        raise ValueError(f"thresholds of criteria that the metadata does not have: {', '.join(odd)}")
    if classifier.pooler.num_models != 1 or classifier.head.num_models != 1:
        raise ValueError("a bundle holds one model; take one of the stack")
    encoder = classifier.encoder
    with new_bundle(target) as work:
        _write_encoder(work / ENCODER, encoder, config.model)
        parts = {name: tensor.contiguous() for name, tensor in classifier.head_state().items()}
        save_file(parts, work / "classifier.safetensors")
        portable = _portable(config, encoder)
        written = None if encoder.sentence_modules is None else read_sentence_modules(work / ENCODER)
        record = {
            "format": DECIDED_FORMAT if own or scaling != UNSCALED else FORMAT,
            "config": portable.model_dump(mode="json"),
            "threshold": float(threshold),
            **({"thresholds": {name: float(value) for name, value in own.items()}} if own else {}),
            **({"scaling": scaling.facts()} if scaling != UNSCALED else {}),
            "encoder": {
                "name": portable.model.name,
                "revision": encoder.identity.revision,
                "trained_from": encoder.identity.fingerprint,
                "fingerprint": identify_folder("bundle", work / ENCODER, written).fingerprint,
                "attention": "causal" if encoder.is_causal else "bidirectional",
                "hidden_size": encoder.hidden_size,
            },
            "max_length": config.model.max_length,
            "classifier_sha256": file_digest(work / "classifier.safetensors"),
            "metadata": dict(metadata),
        }
        write_record(work, record)
    return target


def _portable(config: RunConfig, encoder: Encoder) -> RunConfig:
    """The settings without paths of this machine: they may not exist, or be secret, where the bundle is read."""
    data = config.data.model_dump() | {"data_dir": DataConfig().data_dir, "test": None}
    model = config.model.model_dump() | {"name": Path(config.model.name).name or "encoder", "revision": None}
    for setting, prompt in named_prompts(config.model, encoder.folder).items():  # of files that are left behind
        model[setting] = quoted(prompt) + f"{{{PLACES[setting][0]}}}"
    if encoder.identity.revision is not None:
        model |= {"name": encoder.identity.name, "revision": encoder.identity.revision}
    tree = config.model_dump() | {"data": data, "model": model, "mlflow": MlflowConfig().model_dump()}
    return build_config(tree, "bundle")


def _write_encoder(folder: Path, encoder: Encoder, model: ModelConfig) -> None:
    folder.mkdir()
    copied = tokenizer_files(encoder.folder)
    if not model.freeze_encoder or has_adapters(encoder):
        within = encoder.part if encoder.part.startswith("encoder") else ""
        state = {f"{within}.{name}".lstrip("."): weight for name, weight in _whole_state(encoder, model).items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        if within:  # an encoder-decoder's: its encoder has no configuration of its own to load it by
            copied += [encoder.folder / "config.json"]
        else:
            encoder.model.config.save_pretrained(str(folder))
    else:
        copied += [encoder.folder / "config.json", *weight_files(encoder.folder)]
        copied += [p for p in [encoder.folder / WEIGHTS_INDEX] if p.is_file()]
    for path in copied:
        shutil.copyfile(path, folder / path.name)
    if encoder.sentence_modules is not None:
        copy_modules(encoder.sentence_modules, encoder.folder, folder)


def _whole_state(encoder: Encoder, model: ModelConfig) -> dict[str, Tensor]:
    """The network's weights, adapters merged; layers above the highest that is read are as they were loaded."""
    state = merged_state(encoder)
    if encoder.reader.kept == encoder.depth:
        return state
    loaded = load_network(model, encoder.folder, encoder.dtype).module.state_dict()
    return {**{name: tensor.contiguous() for name, tensor in loaded.items()}, **state}


def load_bundle(folder: str | Path, device: DeviceConfig | None = None) -> LoadedBundle:
    """Read a bundle of one model, offline, on `device` (by default this machine's best, in the precision it was
    trained in).

    Raises:
        EncoderError: no bundle, a newer format, an ensemble, or files that were changed or damaged.
    """
    folder = Path(folder).absolute()
    record = read_bundle_record(folder)
    if not isinstance(record, BundleRecord):
        raise EncoderError(of_several(folder, len(record.members)))
    return load_member(folder, record, folder / ENCODER, device, {})


def of_several(name: str | Path, members: int) -> str:
    return (
        f"{name}: an ensemble of {members} models, which is no single torch module; score tables with "
        f"gemma_nli.load_scorer, {command_line('gemma-nli', 'predict')} or mlflow.pyfunc."
    )


def load_member(
    folder: Path, record: BundleRecord, encoder_folder: Path, device: DeviceConfig | None, loaded: dict[str, Encoder]
) -> LoadedBundle:
    """The model of a record and of the classifier's file beside it, on an encoder that may be another model's too.

    Args:
        loaded: encoders by what decides what they compute; one that is there is taken, another is added.
    """
    try:
        saved = build_stored_config(record.config, str(folder / "bundle.json"), "config.")
    except ConfigError as error:
        raise EncoderError(f"{folder / 'bundle.json'}: not a bundle's record: {error}") from None
    was, metadata = record.encoder, record.metadata
    device = device or _here(saved.device)
    config = saved.with_settings({"model.name": str(encoder_folder), "model.revision": None})
    encoder = loaded.get(decisive := _decisive(config.model, device)) or load_encoder(config.model, device)
    loaded[decisive] = encoder
    if is_of_an_earlier_encoding(encoder_folder, str(was.get("fingerprint"))):
        raise EncoderError(
            f"{folder}: was trained by a version that gave this kind of encoder different states (positions, segments "
            "or other texts in the batch); train it again."
        )
    if encoder.identity.fingerprint != was.get("fingerprint"):
        raise EncoderError(f"{encoder_folder}: its files differ from those that were saved; copy the bundle again.")
    if ("causal" if encoder.is_causal else "bidirectional") != was.get("attention"):
        raise EncoderError(
            f"{folder}: was saved with {was.get('attention')} attention, but a probe finds otherwise here."
        )
    classifier = PairClassifier(encoder, config.model)
    state = read_tensors(folder / "classifier.safetensors", record.classifier_sha256)
    try:
        classifier.load_head_state(state)
    except EncoderError as error:
        raise EncoderError(f"{folder}: {error} Its bundle.json was changed; copy the bundle again.") from None
    classifier.scaling = Scaling(record.scaling.slope, record.scaling.intercept)
    classifier.requires_grad_(False).eval()
    return LoadedBundle(folder, config, classifier, record.threshold, was, metadata, record.thresholds)


def _decisive(model: ModelConfig, device: DeviceConfig) -> str:
    """Settings that decide what an encoder computes."""
    native = {"native": is_native(model)}
    return json.dumps([model.model_dump(mode="json", exclude=OF_THE_HEAD) | native, device.model_dump(mode="json")])


def check_bundle(
    folder: Path, premises: Sequence[str], hypotheses: Sequence[str], logits: np.ndarray, device: DeviceConfig
) -> None:
    """Load a bundle as its users will; it must give the logits that the classifier gave before it was saved.

    Raises:
        EncoderError: it cannot be loaded, or computes something different.
    """
    again = load_bundle(folder, device).classifier
    found = again.predict(premises, hypotheses)
    tolerance = _RELOADED[again.encoder.dtype] * np.maximum(1.0, np.abs(logits))
    if not bool((np.abs(found - logits) <= tolerance).all()):  # NaN is not within it either
        raise EncoderError(
            f"{folder}: gives different logits after loading ({found.tolist()}, not {logits.tolist()}); it "
            "must not be used. Please report this, with the configuration."
        )


def _here(saved: DeviceConfig) -> DeviceConfig:
    """The saved precision on this machine's best device; float32 on a CPU if it was half precision on a GPU."""
    auto = saved.model_copy(update={"device": "auto"})
    on_cpu = resolve_device(auto).type == "cpu"
    return auto.model_copy(update={"mixed_precision": "none"}) if on_cpu and saved.mixed_precision == "fp16" else auto
