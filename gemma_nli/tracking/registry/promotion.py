"""Which version of a model serves: aliases and stages, moved manually or by a paired test.

A version replaces another only if both were measured by the same metric on the same corpus, and every decision
is recorded on both of them.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from safetensors.numpy import load_file

from gemma_nli.analysis.inference.significance import Difference, paired_bootstrap
from gemma_nli.base.errors import TrackingError, did_you_mean
from gemma_nli.base.metrics import MacroMetric, metric_of
from gemma_nli.base.what_was_measured import measured_at_by_tags
from gemma_nli.tracking.registry.register import SOURCE_RUN
from gemma_nli.tracking.store.mlflow_store import Store, connect, talking
from gemma_nli.tracking.write.artifacts.out_of_fold import OUT_OF_FOLD
from gemma_nli.tracking.write.projection import FOLD_FINGERPRINT

Role = Literal["production", "staging", "champion"]
STAGES = {"production": "Production", "staging": "Staging"}
"""A champion is an alias only: MLflow's stages, deprecated since 2.9, have no such name."""
DATA, METRIC, RATIO = "gemma_nli.data_fingerprint", "gemma_nli.metric", "gemma_nli.eval_negative_ratio"
NEGATIVES = "gemma_nli.negatives"
_SAME = {DATA: "corpus", METRIC: "metric", RATIO: "evaluation ratio", NEGATIVES: "choice of negatives"}
_BEFORE = {NEGATIVES: "pooled"}  # what versions have that were registered before there was such a tag
PROMOTION = "gemma_nli.promotion."  # + role: the last decision that a version was part of
DECIDED = "gemma_nli.decided."  # + role: this version was measured against the holder once
FILES = "gemma_nli.out_of_fold"  # where the run has a version's out-of-fold predictions, if not where a trial's are
REPETITIONS = 5000


@dataclass(frozen=True)
class Decision:
    """Whether `version` holds the role now, and why; `before` held it until then."""

    name: str
    version: int
    role: str
    promoted: bool
    why: str
    before: int | None
    difference: Difference | None = None


def promote(store: Store, name: str, version: int, role: Role) -> Decision:
    """Give a version a role: the alias and, for those who load by it, the stage.

    Raises:
        TrackingError: no such model or version; or the current holder was measured on another corpus, by another metric
            or at another ratio (or does not say): `demote` it first.
    """
    with _registry(store, f"promote '{name}'") as client:
        new = find_version(client, store, name, version)
        holder = _holder(client, name, role)
        if holder is not None and holder.version != new.version:
            differ = _differ(new.tags, holder.tags)
            if differ:
                raise TrackingError(
                    f"model '{name}': version {version} does not replace version {holder.version}: {differ}. To "
                    f"start over: {store.line('demote', name, '--from', role)}"
                )
        why = "by hand"
        _move(client, new, holder, role, f"{why}{_in_place_of(holder, new)}")
        return Decision(name, version, role, True, why, _number(holder))


def demote(store: Store, name: str, role: Role) -> int:
    """Take a role away from the version that holds it; gives its number.

    Raises:
        TrackingError: no such model, or no version has the role.
    """
    with _registry(store, f"demote '{name}'") as client:
        check_name(client, store, name)
        holder = _holder(client, name, role)
        if holder is None:
            raise TrackingError(f"model '{name}': no version is {role}.")
        client.delete_registered_model_alias(name, role)
        if role in STAGES and holder.current_stage == STAGES[role]:
            _set_stage(client, holder, "Archived")
        _note(client, holder, role, f"{_now()}: no longer {role}, by hand")
        return int(holder.version)


def promote_if_better(store: Store, name: str, version: int, role: Role, level: float) -> Decision:
    """Give a version the role if none holds it, or if it beats the holder on the same evaluation pairs.

    The test: `paired_bootstrap` over posts, within folds, of the metric both were chosen by, less the luck of each
    one's choice among its sweep's trials (its score less its honest score, as its report has them); better is a
    difference above zero with a two-sided p-value below `level`. Asked again about the same version, the decision
    stays.
    """
    with _registry(store, f"promote '{name}'") as client:
        new = find_version(client, store, name, version)
        holder = _holder(client, name, role)
        if holder is not None and holder.version == new.version:
            return Decision(name, version, role, True, f"is {role} already", version)
        decided = new.tags.get(f"{DECIDED}{role}")
        if decided is not None:
            return Decision(name, version, role, False, decided, _number(holder))
        difference = None
        if holder is None:
            better, why = True, f"no version was {role}"
        else:
            better, why, difference = _compare(client, new, holder, level)
        if better:
            _move(client, new, holder, role, f"{why}{_in_place_of(holder, new)}")
        else:
            assert holder is not None
            _note(client, new, role, f"{_now()}: not {role} in place of version {holder.version}: {why}")
            _note(client, holder, role, f"{_now()}: stays {role}; version {new.version} does not replace it: {why}")
        client.set_model_version_tag(name, new.version, f"{DECIDED}{role}", why)
        return Decision(name, version, role, better, why, _number(holder), difference)


def _compare(
    client: MlflowClient, new: ModelVersion, old: ModelVersion, level: float
) -> tuple[bool, str, Difference | None]:
    differ = _differ(new.tags, old.tags)
    if differ:
        return False, differ, None
    if new.tags.get(FOLD_FINGERPRINT) != old.tags.get(FOLD_FINGERPRINT):
        return False, "measured on different folds: no pair-by-pair comparison", None
    metric = metric_of(new.tags[METRIC])
    if metric is None:
        return False, f"no paired test for {new.tags[METRIC]}", None
    a, b = _out_of_fold(client, new), _out_of_fold(client, old)
    if a is None or b is None:
        return False, f"version {(new if a is None else old).version} has no out-of-fold predictions in MLflow", None
    if not np.array_equal(a["rows"], b["rows"]) or not np.array_equal(a["labels"], b["labels"]):
        return False, "their evaluation pairs differ", None
    if isinstance(metric, MacroMetric) and not ("criteria" in a and "criteria" in b):
        return False, "their out-of-fold predictions in MLflow do not say the criteria, as an older version's", None
    column = metric.takes("decisions", "probabilities")
    luck = _luck(new.tags, metric.name) - _luck(old.tags, metric.name)
    decided = (a["posts"], a["labels"], a[column], b[column])
    pairs = {"folds": a["folds"], "criteria": a.get("criteria")}
    difference = paired_bootstrap(*decided, metric.name, REPETITIONS, level=1 - level, luck=luck, **pairs)
    said = (
        f"{metric.name} {difference.score_a:.4f} against {difference.score_b:.4f}, difference {difference.value:+.4f} "
        f"({100 * difference.level:g}% interval {difference.low:+.4f} to {difference.high:+.4f}), "
        f"p {difference.p_value:.4f} at level {level:g}, {difference.method} on {len(a['rows'])} pairs"
    )
    if luck:
        said += f", less {luck:.4f} for the luck of its choice"
    better = difference.value > 0 and difference.p_value < level
    worse = difference.value < 0 and difference.p_value < level
    verdict = "better" if better else "not shown to be better, but worse" if worse else "not shown to be better"
    return better, f"{verdict}: {said} {measured_at_by_tags(new.tags)}".rstrip(), difference


def _out_of_fold(client: MlflowClient, version: ModelVersion) -> dict[str, Any] | None:
    """The run's out-of-fold predictions; None if it has none (an older run, or another program's)."""
    run_id = version.tags.get(SOURCE_RUN) or version.run_id
    path = version.tags.get(FILES, OUT_OF_FOLD)
    folder = path.rpartition("/")[0] or None
    if not run_id or path not in [file.path for file in client.list_artifacts(run_id, folder)]:
        return None
    with tempfile.TemporaryDirectory(prefix="gemma_nli_oof_") as scratch:
        arrays: dict[str, Any] = load_file(Path(client.download_artifacts(run_id, path, scratch)))
    return arrays


def _luck(tags: Mapping[str, str], metric: str) -> float:
    """How far a version's score lies above its honest score: 0 where it is not the best of several trials, or where no
    report says so.
    """
    raw, honest = tags.get("gemma_nli.honest_raw"), tags.get("gemma_nli.honest_value")
    if raw is None or honest is None or tags.get("gemma_nli.honest_metric") != metric:
        return 0.0
    return float(raw) - float(honest)


def _differ(new: Mapping[str, str], old: Mapping[str, str]) -> str:
    """What makes the numbers of two versions incomparable; empty if nothing does."""
    new, old = {**_BEFORE, **new}, {**_BEFORE, **old}
    for tag, name in _SAME.items():
        if tag not in new or tag not in old:
            return f"a version does not say its {name}"
        if new[tag] != old[tag]:
            shown = [value if tag != DATA else value[:12] for value in (new[tag], old[tag])]
            return f"different {name} ({shown[0]} against {shown[1]})"
    return ""


def _move(client: MlflowClient, new: ModelVersion, old: ModelVersion | None, role: str, why: str) -> None:
    client.set_registered_model_alias(new.name, role, new.version)
    if role in STAGES:
        _set_stage(client, new, STAGES[role])
    _note(client, new, role, f"{_now()}: became {role}: {why}")
    if old is not None and old.version != new.version:
        _note(client, old, role, f"{_now()}: version {new.version} became {role} in its place: {why}")


def _set_stage(client: MlflowClient, version: ModelVersion, stage: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # stages are deprecated, but users who load by them are still served
        archive = stage in STAGES.values()
        client.transition_model_version_stage(version.name, version.version, stage, archive_existing_versions=archive)


def _note(client: MlflowClient, version: ModelVersion, role: str, text: str) -> None:
    client.set_model_version_tag(version.name, version.version, f"{PROMOTION}{role}", text[:5000])


def _holder(client: MlflowClient, name: str, role: str) -> ModelVersion | None:
    number = client.get_registered_model(name).aliases.get(role)
    return client.get_model_version(name, str(number)) if number is not None else None


def find_version(client: MlflowClient, store: Store, name: str, version: int) -> ModelVersion:
    """The version, or a TrackingError that names the nearest model or the existing versions."""
    check_name(client, store, name)
    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        there = sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'"))
        shown = ", ".join(map(str, there)) or "none"
        raise TrackingError(f"model '{name}': no version {version}; versions: {shown}.") from None


def check_name(client: MlflowClient, store: Store, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        names = [model.name for model in client.search_registered_models()]
        hint = did_you_mean(name, names) or "; nothing is registered yet: a sweep registers its best trial."
        raise TrackingError(f"{store.shown}: no registered model '{name}'{hint}") from None


@contextmanager
def _registry(store: Store, doing: str) -> Iterator[MlflowClient]:
    with talking(store, doing):
        yield connect(store)


def _number(version: ModelVersion | None) -> int | None:
    return int(version.version) if version is not None else None


def _in_place_of(old: ModelVersion | None, new: ModelVersion) -> str:
    return f" (in place of version {old.version})" if old is not None and old.version != new.version else ""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def check_role(role: str) -> Role:
    """Raises TrackingError if there is no such role."""
    known: tuple[Role, ...] = get_args(Role)
    for each in known:
        if role == each:
            return each
    raise TrackingError(f"unknown role '{role}'{did_you_mean(role, known)}")
