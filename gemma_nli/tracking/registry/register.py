"""Registers a bundle as a model version, once: identified by its trial, its folds and the bundle's content."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow.entities import LifecycleStage
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.what_was_measured import measured_at_by_tags
from gemma_nli.tracking.registry.model_folder import save_model_folder
from gemma_nli.tracking.store.mlflow_store import talking
from gemma_nli.tracking.write.projection import FOLD_FINGERPRINT, TASK_TAG, TRIAL_KEY
from gemma_nli.tracking.write.runs import quoted, tag_texts
from gemma_nli.tracking.write.tracker import MlflowTracker

BUNDLE_DIGEST = "gemma_nli.bundle_digest"
SOURCE_RUN = "gemma_nli.source_run_id"
SWEEP_RUN = "gemma_nli.sweep_run_id"
METRIC, VALUE, REFITTED = "gemma_nli.metric", "gemma_nli.metric_value", "gemma_nli.refit"
ENSEMBLE = "gemma_nli.ensemble"  # the trials that answer as one, with their weights
ALIASED = "gemma_nli.aliased"  # the alias this version once got: given only once, so that moving it is up to the user
TORCH = "gemma_nli.torch"  # `pt2`, or why mlflow.pytorch finds no module in the version
PATIENCE_SECONDS = 120  # for a server to answer an upload of weights


@dataclass(frozen=True)
class Registered:
    name: str
    version: int
    alias: str | None  # None if the alias has since been moved to another version
    uri: str  # models:/NAME/VERSION
    created: bool
    torch: str = ""  # `pt2`, or why `mlflow.pytorch` cannot load it


def find_registered(
    tracker: MlflowTracker, model_name: str, trial_key: str, fold_fingerprint: str, bundle_digest: str | None = None
) -> Registered | None:
    """The newest version made from this trial on these folds (and from this same bundle), or None.

    Call it before a refit: if it gives a version, there is nothing to refit.
    """
    wanted = {TRIAL_KEY: trial_key, FOLD_FINGERPRINT: fold_fingerprint}
    wanted |= {BUNDLE_DIGEST: bundle_digest} if bundle_digest else {}
    with talking(tracker.store, f"look up model '{model_name}'"):
        matching = _whole(tracker.client, _versions(tracker.client, model_name, wanted))
        return _registered(tracker.client, matching[-1], created=False) if matching else None


def register_bundle(
    bundle_folder: Path,
    model_name: str,
    tracker: MlflowTracker,
    source_run_id: str,
    tags: Mapping[str, str],
    sweep_run_id: str | None = None,
    alias: str = "candidate",
    input_example: pd.DataFrame | None = None,
    export_limit_gib: float = 4.0,
    card: Path | None = None,
) -> Registered:
    """The bundle in the source run's artifacts as a version of `model_name`, under `alias`.

    It is a pyfunc model and, up to `export_limit_gib` of weights, a pt2 program for `mlflow.pytorch`.

    The same bundle of the same trial on the same folds is registered once, also when an earlier call was killed
    half-way: all of a version's tags are written in the call that creates it, after its files are there.

    Args:
        source_run_id: the trial's run, which holds the files.
        tags: of the version; `gemma_nli.trial_key` and `gemma_nli.fold_fingerprint` must be among them.
        input_example: columns premise and hypothesis; invented text, never a post.
        card: a model card, put beside the model's files as README.md.
    Raises:
        TrackingError: MLflow is unreachable or refuses, or there is no such bundle.
    """
    if not (bundle_folder / "bundle.json").is_file():
        raise TrackingError(f"{bundle_folder}: no bundle to register here.")
    digest = bundle_digest(bundle_folder)
    identity = {TRIAL_KEY: tags[TRIAL_KEY], FOLD_FINGERPRINT: tags[FOLD_FINGERPRINT], BUNDLE_DIGEST: digest}
    everything: dict[str, str] = {**tags, **identity, SOURCE_RUN: source_run_id}
    everything |= {SWEEP_RUN: sweep_run_id} if sweep_run_id else {}
    with talking(tracker.store, f"register model '{model_name}'", PATIENCE_SECONDS):
        client = tracker.client
        matching = _whole(client, _versions(client, model_name, identity))
        created = not matching
        if created:
            # A folder named by content: files of an existing version are never overwritten.
            name = f"model-{digest[:12]}"
            source, torch = _upload(client, source_run_id, bundle_folder, name, input_example, export_limit_gib, card)
            everything[TORCH] = torch
            _open_model(client, model_name)
            client.create_model_version(
                model_name, source, source_run_id, tag_texts(everything), description=_described(everything)
            )
            matching = _whole(client, _versions(client, model_name, identity))
            for duplicate in matching[1:]:  # of a retried request
                client.delete_model_version(model_name, duplicate.version)
        version = matching[0]
        _alias_once(client, version, alias)
        return _registered(client, version, created, alias)


def give_alias(
    tracker: MlflowTracker, registered: Registered, alias: str, sweep_run_id: str | None = None
) -> Registered:
    """The alias that a version never got because its maker was killed in between; one it got and lost is not given
    again.

    Args:
        sweep_run_id: what the version names as its sweep from now on if the run that it names was deleted.
    """
    with talking(tracker.store, f"give model '{registered.name}' its alias"):
        client = tracker.client
        version = client.get_model_version(registered.name, str(registered.version))
        named = version.tags.get(SWEEP_RUN)
        if sweep_run_id is not None and named != sweep_run_id and not _active(client, named):
            client.set_model_version_tag(version.name, version.version, SWEEP_RUN, sweep_run_id)
        _alias_once(client, version, alias)
        return _registered(client, version, registered.created, alias)


def _alias_once(client: MlflowClient, version: ModelVersion, alias: str) -> None:
    if version.tags.get(ALIASED) != alias:
        client.set_registered_model_alias(version.name, alias, version.version)
        client.set_model_version_tag(version.name, version.version, ALIASED, alias)


def bundle_digest(folder: Path) -> str:
    """sha256 of what the bundle computes: all its files except `metadata` in bundle.json, which may contain times."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name == "bundle.json":  # a member of an ensemble has its own
            record = json.loads(path.read_text(encoding="utf-8"))
            content = json.dumps({k: v for k, v in record.items() if k != "metadata"}, sort_keys=True).encode()
            own = hashlib.sha256(content).hexdigest()
        else:
            with path.open("rb") as stream:
                own = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name}\0{own}\n".encode())
    return digest.hexdigest()


def _upload(
    client: MlflowClient,
    run_id: str,
    bundle: Path,
    name: str,
    example: pd.DataFrame | None,
    limit_gib: float,
    card: Path | None,
) -> tuple[str, str]:
    """(the files' address, what `save_model_folder` says of a torch module in it)."""
    with tempfile.TemporaryDirectory(prefix=".register_", dir=bundle.parent) as folder:
        exported_as = save_model_folder(bundle, Path(folder) / name, example, limit_gib)
        if card is not None:
            shutil.copyfile(card, Path(folder) / name / "README.md")
        client.log_artifacts(run_id, folder)
    return f"{client.get_run(run_id).info.artifact_uri}/{name}", exported_as


def _described(tags: Mapping[str, str]) -> str:
    """What MLflow's page of a version says: whose score it shows, and that its own was never measured."""
    lines = []
    if METRIC in tags and VALUE in tags:
        whose = "its trial's" if ENSEMBLE not in tags else "that of its members out of fold, which chose them"
        lines.append(f"{tags[METRIC]} {tags[VALUE]} {measured_at_by_tags(tags)}".rstrip() + f" is {whose}.")
    if ENSEMBLE in tags:
        lines.append(f"An ensemble of the trials {tags[ENSEMBLE]}.")
    if REFITTED in tags:
        lines.append(f"This version is {tags[REFITTED]}." if ENSEMBLE not in tags else f"Its are {tags[REFITTED]}.")
    return " ".join(lines)


def _open_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name, TASK_TAG)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: MlflowClient, name: str, wanted: Mapping[str, str]) -> list[ModelVersion]:
    """Versions that carry all the wanted tags, oldest first."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = {quoted(name)}", max_results=200, page_token=token)
        found += [v for v in page if wanted.items() <= v.tags.items()]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def _active(client: MlflowClient, run_id: str | None) -> bool:
    return run_id is not None and _stage(client, run_id) == LifecycleStage.ACTIVE


def _stage(client: MlflowClient, run_id: str) -> str | None:
    """active, deleted (in MLflow's trash), or None: permanently deleted."""
    try:
        return str(client.get_run(run_id).info.lifecycle_stage)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _whole(client: MlflowClient, versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    """Those whose run, which holds their files, exists. A run in MLflow's trash is restored, since emptying the trash
    would delete the model too; one that was permanently deleted leaves a version that nobody can load."""
    whole = []
    for version in versions:
        stage = _stage(client, version.run_id) if version.run_id else LifecycleStage.ACTIVE
        if stage == LifecycleStage.DELETED:
            client.restore_run(version.run_id)
        if stage is not None:
            whole.append(version)
    return whole


def _registered(client: MlflowClient, version: ModelVersion, created: bool, alias: str | None = None) -> Registered:
    alias = alias or version.tags.get(ALIASED)
    aliases = client.get_registered_model(version.name).aliases
    holds = alias is not None and str(aliases.get(alias)) == str(version.version)
    uri = f"models:/{version.name}/{version.version}"
    held = alias if holds else None
    return Registered(version.name, int(version.version), held, uri, created, version.tags.get(TORCH, ""))
