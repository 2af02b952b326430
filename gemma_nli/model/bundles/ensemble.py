"""Several bundles that answer as one: their probabilities and thresholds, averaged by weight.

bundle.json       format, weights, thresholds, which encoder each member is read with, metadata
members/NAME/     bundle.json and classifier.safetensors of each, as it was
encoders/1/ ...   the encoders, each once, however many members it has

Letters: M members, N pairs.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, RunConfig
from gemma_nli.model.bundles.bundle import ENCODER, LoadedBundle, load_bundle, load_member
from gemma_nli.model.bundles.bundle_record import (
    ENSEMBLE_FORMAT,
    BundleRecord,
    EnsembleRecord,
    new_bundle,
    read_bundle_record,
    write_record,
)
from gemma_nli.model.classifier import predict_each
from gemma_nli.model.encoder import Encoder

MEMBERS, ENCODERS = "members", "encoders"
Weights = Mapping[str, float]


@dataclass(frozen=True)
class LoadedEnsemble:
    """Models that answer as one; a criterion, known by the text that any of them was trained on, is given to each
    in its own wording.

    weights: by member, 1 together; `criterion_weights`: of criteria with weights of their own.
    threshold: from which averaged probability on a pair is matched; `thresholds`: by criterion id.
    """

    folder: Path
    members: Mapping[str, LoadedBundle]
    weights: Weights
    criterion_weights: Mapping[str, Weights]
    threshold: float
    thresholds: Mapping[str, float]
    metadata: dict[str, Any]

    @property
    def first(self) -> LoadedBundle:
        return next(iter(self.members.values()))

    @property
    def config(self) -> RunConfig:
        """Of the first member; of all, what concerns where and how to compute."""
        return self.first.config

    @property
    def encoder(self) -> Encoder:
        return self.first.encoder

    @cached_property
    def known(self) -> dict[str, str]:
        """Text to criterion id, of all wordings."""
        found: dict[str, str] = {}
        for member in self.members.values():
            for text, name in member.known.items():
                found.setdefault(text, name)
        return found

    def probability(self, premises: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
        """(N,) float64."""
        names = [self.known.get(text.strip()) for text in hypotheses]
        total_N = np.zeros(len(premises))
        for group in self._together().values():
            first = next(iter(group.values()))
            texts = _in_words(first.metadata.get("criteria") or {}, names, hypotheses)
            classifiers = [member.classifier for member in group.values()]
            logit_MN = predict_each(classifiers, premises, texts, self.config.features.batch_tokens)
            for member, logit_N in zip(group, logit_MN, strict=True):
                weight_N = np.array([self._weights_of(name).get(member, 0.0) for name in names])
                total_N += weight_N * torch.from_numpy(logit_N.astype(np.float64)).sigmoid().numpy()
        return total_N

    def _weights_of(self, name: str | None) -> Weights:
        return self.weights if name is None else self.criterion_weights.get(name, self.weights)

    def _together(self) -> dict[Any, dict[str, LoadedBundle]]:
        """Members that read the same texts by the same encoder."""
        groups: dict[Any, dict[str, LoadedBundle]] = {}
        for name, member in self.members.items():
            words = tuple(sorted((member.metadata.get("criteria") or {}).items()))
            groups.setdefault((id(member.encoder), member.classifier.separate, words), {})[name] = member
        return groups


def save_ensemble(
    folder: str | Path,
    bundles: Mapping[str, Path],
    weights: Weights,
    metadata: Mapping[str, Any],
    criterion_weights: Mapping[str, Weights] | None = None,
) -> Path:
    """Write an ensemble of saved bundles, completely or not at all; an existing one is replaced.

    An encoder that several bundles hold is written once. The threshold of a criterion is the mean of its members'.

    Args:
        bundles: by member's name, those with a weight somewhere, in the order in which they are listed.
        weights: of all pairs whose criterion has none of its own; 1 together.
        metadata: `criteria`, by id the text that `gemma-nli predict` gives posts to, and whatever else is to be kept.
    Raises:
        EncoderError: a bundle is damaged or an ensemble itself, or `folder` contains something that is not a bundle.
    """
    target, of = Path(folder).absolute(), {name: dict(own) for name, own in (criterion_weights or {}).items()}
    records = {name: _single(bundle) for name, bundle in bundles.items()}
    places: dict[str, str] = {}
    with new_bundle(target) as work:
        for name, bundle in bundles.items():
            fingerprint = str(records[name].encoder.get("fingerprint"))
            if fingerprint not in places:
                places[fingerprint] = str(len(places) + 1)
                shutil.copytree(bundle / ENCODER, work / ENCODERS / places[fingerprint])
            (work / MEMBERS / name).mkdir(parents=True)
            for file in ("bundle.json", "classifier.safetensors"):
                shutil.copyfile(bundle / file, work / MEMBERS / name / file)
        record = EnsembleRecord(
            members={name: places[str(each.encoder.get("fingerprint"))] for name, each in records.items()},
            weights=dict(weights),
            criterion_weights=of,
            threshold=_mean(weights, {name: each.threshold for name, each in records.items()}),
            thresholds=_own_thresholds(records, weights, of),
            metadata=dict(metadata),
        )
        write_record(work, {"format": ENSEMBLE_FORMAT, **record.model_dump(mode="json")})
    return target


def load_any(folder: str | Path, device: DeviceConfig | None = None) -> LoadedBundle | LoadedEnsemble:
    """A bundle of one model or of several, as `load_bundle` reads one.

    Raises:
        EncoderError: no bundle, a newer format, or files that were changed or damaged.
    """
    folder = Path(folder).absolute()
    record = read_bundle_record(folder)
    if not isinstance(record, EnsembleRecord):
        return load_bundle(folder, device)
    encoders: dict[str, Encoder] = {}
    members = {}
    for name, place in record.members.items():
        member = folder / MEMBERS / name
        members[name] = load_member(member, _single(member), folder / ENCODERS / place, device, encoders)
    return LoadedEnsemble(
        folder,
        members,
        record.weights,
        record.criterion_weights,
        record.threshold,
        record.thresholds,
        record.metadata,
    )


def _single(folder: Path) -> BundleRecord:
    record = read_bundle_record(folder)
    if not isinstance(record, BundleRecord):
        raise EncoderError(f"{folder}: is an ensemble itself; an ensemble's members are single models.")
    return record


def _own_thresholds(
    records: Mapping[str, BundleRecord], weights: Weights, criterion_weights: Mapping[str, Weights]
) -> dict[str, float]:
    """Of the criteria that have weights or, in some member, a threshold of their own."""
    names = {*criterion_weights, *(name for record in records.values() for name in record.thresholds)}
    return {
        name: _mean(
            criterion_weights.get(name, weights),
            {member: record.thresholds.get(name, record.threshold) for member, record in records.items()},
        )
        for name in sorted(names)
    }


def _mean(weights: Weights, values: Mapping[str, float]) -> float:
    return min(max(math.fsum(weight * values[name] for name, weight in weights.items()), 0.0), 1.0)


def _in_words(criteria: Mapping[str, str], names: Sequence[str | None], texts: Sequence[str]) -> list[str]:
    """Each criterion as a member knows it; a text that is nobody's criterion stays."""
    return [criteria.get(name, text) if name is not None else text for name, text in zip(names, texts, strict=True)]
