"""What is registered, and a registered model as a torch module."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import EncoderError, TrackingError, did_you_mean
from gemma_nli.base.what_was_measured import measured_at_by_tags
from gemma_nli.config import DeviceConfig, MlflowConfig
from gemma_nli.model.bundles.bundle import of_several
from gemma_nli.model.bundles.ensemble import LoadedEnsemble
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.tracking.read.run_ids import get_run
from gemma_nli.tracking.registry.promotion import METRIC, PROMOTION, check_name, find_version
from gemma_nli.tracking.registry.register import ENSEMBLE, SWEEP_RUN, TORCH
from gemma_nli.tracking.store.mlflow_store import Store, connect_existing, resolve_store, talking

if TYPE_CHECKING:
    from gemma_nli.model.classifier import PairClassifier

METRIC_VALUE = "gemma_nli.metric_value"
SWEEP_NAME = "gemma_nli.sweep_name"
BUNDLE = Path("artifacts") / "bundle"  # within a stored model; pyfunc names it after the bundle's folder


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model. `metric` and `value` are those of the trial it was refitted from."""

    name: str
    version: int
    aliases: tuple[str, ...]
    stage: str
    metric: str
    value: float | None
    sweep: str
    run_id: str
    created_ms: int
    torch: str  # `pt2`, or why mlflow.pytorch finds no module
    decisions: dict[str, str]  # role -> the last decision it was part of
    measured_at: str  # `at 1 matched negative per positive`; empty where it is not said
    members: str  # the trials of an ensemble with their weights; empty for one trial
    honest: float | None  # the score with the luck of being chosen taken off


def registered_versions(tracking_uri: str | None = None, name: str | None = None) -> list[RegisteredVersion]:
    """Every version of every model (or of one), newest first within a model.

    Raises:
        TrackingError: the store cannot be reached.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, "list registered models"):
        client = connect_existing(store)
        found: list[RegisteredVersion] = []
        token = None
        while True:
            page = client.search_registered_models(max_results=100, page_token=token)
            for model in page:
                if name is None or model.name == name:
                    found += _versions(client, model.name, dict(model.aliases))
            token = page.token
            if not token:
                return found


def _versions(client: MlflowClient, name: str, aliases: dict[str, str]) -> list[RegisteredVersion]:
    versions = client.search_model_versions(f"name = '{name}'", max_results=1000)
    rows = [_row(client, version, aliases) for version in versions]
    return sorted(rows, key=lambda row: -row.version)


def _row(client: MlflowClient, version: ModelVersion, aliases: dict[str, str]) -> RegisteredVersion:
    tags = dict(version.tags)
    value = tags.get(METRIC_VALUE, "")
    own = tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(version.version)))
    return RegisteredVersion(
        name=version.name,
        version=int(version.version),
        aliases=own,
        stage=version.current_stage or "None",
        metric=tags.get(METRIC, ""),
        value=float(value) if value not in ("", "None", "nan") else None,
        sweep=tags.get(SWEEP_NAME) or tags.get(SWEEP_RUN, ""),
        run_id=version.run_id or "",
        created_ms=int(version.creation_timestamp or 0),
        torch=tags.get(TORCH, ""),
        measured_at=measured_at_by_tags(tags),
        members=tags.get(ENSEMBLE, ""),
        honest=float(tags["gemma_nli.honest_value"]) if "gemma_nli.honest_value" in tags else None,
        decisions={k.removeprefix(PROMOTION): v for k, v in tags.items() if k.startswith(PROMOTION)},
    )


def load_model(uri: str, tracking_uri: str | None = None, device: str = "auto") -> PairClassifier:
    """The torch module of a model, from its bundle, in eval mode; also works for models beyond the export limit.

    Args:
        uri: `models:/NAME/3`, `models:/NAME@production`, `models:/NAME/latest`, `models:/NAME/Production`,
            `runs:/RUN/PATH`, or a bundle's folder.
        device: `auto`, `cpu`, `cuda`, as for the setting device.device.
    Raises:
        TrackingError: no such model, or the store cannot be reached. EncoderError: a damaged bundle, or an ensemble.
    """
    bundle = load_scorer(uri, tracking_uri, device).bundle
    if isinstance(bundle, LoadedEnsemble):
        raise EncoderError(of_several(uri, len(bundle.members)))
    return bundle.classifier


def load_scorer(uri: str, tracking_uri: str | None = None, device: str = "auto") -> PairScorer:
    """The same as a `PairScorer`: tables in, probabilities out."""
    settings = None if device == "auto" else DeviceConfig(device=device)
    folder = Path(uri)
    if (folder / "bundle.json").is_file():
        return PairScorer.from_bundle(folder, settings)
    if not uri.startswith(("models:/", "runs:/")):
        raise TrackingError(f"model '{uri}': neither a bundle's folder nor models:/NAME/VERSION or runs:/RUN/PATH.")
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with tempfile.TemporaryDirectory(prefix="gemma_nli_model_") as scratch:
        with talking(store, f"load {uri}", seconds=120):
            place = _files_of(connect_existing(store), store, uri)
            found = Path(download_artifacts(place, dst_path=scratch, tracking_uri=store.uri))
        bundles = sorted((path.parent for path in found.rglob("bundle.json")), key=lambda path: len(path.parts))
        if not bundles:
            raise TrackingError(f"{uri}: contains no bundle of gemma-nli; load it with mlflow itself.")
        return PairScorer.from_bundle(bundles[0], settings)


def _files_of(client: MlflowClient, store: Store, uri: str) -> str:
    """Where a model's files are; MLflow's own handling of `models:/` asks the process-wide registry, not ours."""
    if uri.startswith("runs:/"):
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        return f"runs:/{get_run(client, store, run_id).info.run_id}/{path}"
    if not uri.startswith("models:/"):
        return uri
    version = _version_of(client, store, uri)
    return str(client.get_model_version_download_uri(version.name, version.version))


def _version_of(client: MlflowClient, store: Store, uri: str) -> ModelVersion:
    rest = uri.removeprefix("models:/")
    if "@" in rest:
        name, _, alias = rest.partition("@")
        check_name(client, store, name)
        aliases = dict(client.get_registered_model(name).aliases)
        if alias not in aliases:
            raise TrackingError(f"{uri}: no version has the alias '{alias}'{did_you_mean(alias, aliases) or '.'}")
        return find_version(client, store, name, int(aliases[alias]))
    name, _, which = rest.partition("/")
    if which.isdigit():
        return find_version(client, store, name, int(which))
    check_name(client, store, name)
    versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    if which != "latest":
        versions = [v for v in versions if (v.current_stage or "").lower() == which.lower()]
    if not versions:
        raise TrackingError(f"{uri}: no version is in stage '{which}'; write a number, latest, or @alias.")
    return versions[-1]
