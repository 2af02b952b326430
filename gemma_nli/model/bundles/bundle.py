"""A classifier as a self-contained folder: settings, safetensors and tokenizer files, never pickle.

bundle.json             format, settings, thresholds, scaling of the logits, the encoder's identity, checksums, metadata
classifier.safetensors  pooling, norm and head
encoder/                config.json, weights (adapters merged in), tokenizer; its modules.json under native pooling
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gemma_nli.base.errors import ConfigError, EncoderError
from gemma_nli.base.files import put_folder_in_place, put_in_place, unfinished
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
from gemma_nli.model.adapters import has_adapters, load_trainable_state, merged_state, trainable_state
from gemma_nli.model.bundles.bundle_record import DECIDED_FORMAT, FORMAT, read_bundle_record
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
from gemma_nli.model.loading.sentence_modules import copy_modules, named_prompts, read_sentence_modules
from gemma_nli.model.scaling import UNSCALED, Scaling

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
    if target.exists() and not (target / "bundle.json").is_file() and (not target.is_dir() or any(target.iterdir())):
        raise EncoderError(f"{target}: exists and is not a bundle; name another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        work.chmod(0o755)
        _write_encoder(work / "encoder", encoder, config.model)
        parts = {name: tensor.contiguous() for name, tensor in classifier.head_state().items()}
        save_file(parts, work / "classifier.safetensors")
        portable = _portable(config, encoder)
        written = None if encoder.sentence_modules is None else read_sentence_modules(work / "encoder")
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
                "fingerprint": identify_folder("bundle", work / "encoder", written).fingerprint,
                "attention": "causal" if encoder.is_causal else "bidirectional",
                "hidden_size": encoder.hidden_size,
            },
            "max_length": config.model.max_length,
            "classifier_sha256": file_digest(work / "classifier.safetensors"),
            "metadata": dict(metadata),
        }
        (work / "bundle.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        put_folder_in_place(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
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
    """Read a bundle, offline, on `device` (by default this machine's best, in the precision it was trained in).

    Raises:
        EncoderError: no bundle, a newer format, or files that were changed or damaged.
    """
    folder = Path(folder).absolute()
    record = read_bundle_record(folder)
    try:
        saved = build_stored_config(record.config, str(folder / "bundle.json"), "config.")
    except ConfigError as error:
        raise EncoderError(f"{folder / 'bundle.json'}: not a bundle's record: {error}") from None
    was, metadata = record.encoder, record.metadata
    device = device or _here(saved.device)
    config = saved.with_settings({"model.name": str(folder / "encoder"), "model.revision": None})
    encoder = load_encoder(config.model, device)
    if is_of_an_earlier_encoding(folder / "encoder", str(was.get("fingerprint"))):
        raise EncoderError(
            f"{folder}: was trained by a version that gave this kind of encoder different states (positions, segments "
            "or other texts in the batch); train it again."
        )
    if encoder.identity.fingerprint != was.get("fingerprint"):
        raise EncoderError(f"{folder / 'encoder'}: its files differ from those that were saved; copy the bundle again.")
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


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises EncoderError if it is missing, damaged or does not match `sha256`."""
    try:
        if sha256 is not None and file_digest(path) != sha256:
            raise EncoderError(f"{path}: is not the file that was saved (sha256 differs); copy it again.")
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except FileNotFoundError:
        raise EncoderError(f"{path}: no such file.") from None
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{path}: damaged: {error}.") from None


def save_adapters(path: str | Path, encoder: Encoder) -> Path:
    """The trained part of the encoder (adapters, layers or all) as plain safetensors, completely or not at all."""
    path = Path(path)
    with unfinished(path.parent, f".{path.name}.") as part:
        save_file(trainable_state(encoder), part, metadata={"encoder": encoder.identity.fingerprint})
        put_in_place(part, path)
    return path


def load_adapters(path: str | Path, encoder: Encoder) -> None:
    """Load what `save_adapters` wrote, into an encoder made trainable by the same settings."""
    load_trainable_state(encoder, read_tensors(Path(path)))
