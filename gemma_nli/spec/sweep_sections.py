"""The parts of a sweep file besides its base and space: search, scheduler, resources, finalize."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from gemma_nli.base.errors import did_you_mean
from gemma_nli.base.metrics import deciding_names
from gemma_nli.base.part_registry import find_parts
from gemma_nli.config import Settings
from gemma_nli.config.parts import WhereRead
from gemma_nli.config.typed_values import as_text

SCHEDULERS = find_parts("search/rules", "rule")
if TYPE_CHECKING:
    SchedulerKind: TypeAlias = str
else:
    SchedulerKind = Literal[("none", *SCHEDULERS)]


def known_metric(name: str) -> str:
    known = deciding_names()
    if name not in known:
        raise ValueError(f"unknown metric {name!r}{did_you_mean(name, known)}")
    return name


def _slug(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(f"must be at most 100 letters, digits or . _ -, starting with a letter or digit, got {name!r}")
    return name


Slug = Annotated[str, AfterValidator(_slug)]
"""A name that is also safe as a folder name: it can never be a path."""


def checked_tags(tags: dict[str, str]) -> dict[str, str]:
    """A user's own tags: without the names that MLflow and this package reserve."""
    for name in tags:
        if name.startswith(("mlflow.", "gemma_nli.", "version.")) or not re.fullmatch(r"[\w./ :-]{1,250}", name):
            raise ValueError(
                f"tag {name!r}: must be letters, digits or . _ - / : and must not start like MLflow's own tags"
            )
        if len(tags[name]) > 8000:
            raise ValueError(f"tag {name!r}: at most 8000 characters, got {len(tags[name])}")
    return tags


def _texts(value: Any) -> Any:
    """Numbers in tags as they were typed."""
    if not isinstance(value, dict):
        return value
    return {as_text(k): str(v).lower() if isinstance(v, bool) else as_text(v) for k, v in value.items()}


Tags = Annotated[dict[str, str], BeforeValidator(_texts), AfterValidator(checked_tags)]


class Objective(Settings):
    metric: str = Field(description="a trial's metric, such as cv_aggregate/mean_f1 or model/trained_parameters")
    mode: Literal["max", "min"] = Field(description="whether higher or lower values are better")

    _known = field_validator("metric")(known_metric)


class WarmStart(Settings):
    configs: tuple[dict[str, Any], ...] = Field(default=(), description="dotted settings to try first")
    experiment: str | None = Field(
        default=None, min_length=1, description="an MLflow experiment whose finished runs are given to the study"
    )


class SearchSettings(Settings):
    algorithm: Literal["grid", "random", "optuna"] = Field(default="grid", description="how the space is searched")
    sampler: Literal["tpe", "random", "cmaes", "gp", "nsga2"] = Field(default="tpe", description="Optuna's sampler")
    num_trials: int = Field(
        default=20, ge=1, le=100_000, description="trials in total, over all resumes, per compared value"
    )
    time_budget: float | None = Field(default=None, gt=0, description="seconds after which the sweep stops")
    seed: int = Field(default=42, ge=0, lt=2**32, description="seed of random and optuna")
    storage: str | None = Field(
        default=None,
        min_length=1,
        description="SQLAlchemy URL of the Optuna study, else SQLite in the sweep's folder; never MLflow's database; "
        "write a `?` or `%` in a folder's name as %3F or %25; give a password the "
        "database's own way (PGPASSWORD, ~/.pgpass), as a sweep cannot resume from a masked URL",
    )
    warm_start: WarmStart = WarmStart()
    objectives: tuple[Objective, ...] = Field(
        default=(), max_length=4, description="two or more for a Pareto front; by default the sweep's metric and mode"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> SearchSettings:
        given = self.model_fields_set
        if self.algorithm != "optuna":
            for name in ("sampler", "storage", "warm_start"):
                if name in given and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for algorithm optuna, and algorithm is {self.algorithm}")
        if self.algorithm == "grid" and "num_trials" in given:
            raise ValueError(f"num_trials ({self.num_trials}) is for random and optuna; a grid runs every cell")
        if len(self.objectives) == 1:
            raise ValueError("objectives needs two or more; for one, set the sweep's metric and mode")
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"objectives names a metric twice: {', '.join(names)}")
        if self.objectives and self.algorithm == "optuna" and self.sampler == "cmaes":
            raise ValueError("sampler cmaes takes one objective; choose nsga2, tpe, gp or random")
        return self


class SchedulerSettings(Settings):
    kind: SchedulerKind = Field(
        default="none", description="which trials stop before their last fold, judged on the finished folds"
    )
    grace_folds: int = Field(default=1, ge=1, le=99, description="folds a trial runs before it can be stopped")
    keep_last: int = Field(default=3, ge=1, le=1000, description="the best few by running mean F1 are never stopped")
    level: Annotated[float, WhereRead()] = Field(
        default=0.05, gt=0, le=0.5, description="chance of stopping a trial that would have beaten the leader"
    )
    reduction: Annotated[float, WhereRead()] = Field(
        default=3.0, gt=1, le=100, description="one in this many continues at each rung"
    )
    min_trials: Annotated[int, WhereRead()] = Field(
        default=5, ge=1, le=1000, description="finished trials before any is stopped"
    )


class Resources(Settings):
    """The resources a trial requests from Ray; `auto` is decided by the engine from the model and the machine."""

    cpu: float | Literal["auto"] = Field(default="auto", description="CPU cores per trial")
    gpu: float | Literal["auto"] = Field(default="auto", description="GPUs per trial, fractions allowed")
    max_concurrent: int | None = Field(
        default=None, ge=1, le=10_000, description="maximum number of trials running at the same time"
    )
    max_failures: int = Field(
        default=2, ge=0, le=1000, description="how many times a trial is retried after its worker died"
    )

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        return {} if value == "auto" else value

    @model_validator(mode="after")
    def _within_bounds(self) -> Resources:
        if self.cpu != "auto" and not 0 < float(self.cpu) <= 1024:
            raise ValueError(f"cpu must be auto or in (0, 1024], got {self.cpu}")
        if self.gpu != "auto" and not 0 <= float(self.gpu) <= 64:
            raise ValueError(f"gpu must be auto or in [0, 64], got {self.gpu}")
        if self.gpu != "auto" and float(self.gpu) > 1 and float(self.gpu) != int(float(self.gpu)):
            raise ValueError(f"gpu above 1 must be a whole number, got {self.gpu}")
        return self


MOST = 50
"""Seeds or drawings of a confirmation."""


class ConfirmSettings(Settings):
    """The best trial of each compared value is trained again: `seeds` times on each of `fold_drawings` drawings."""

    seeds: int = Field(default=3, ge=1, le=MOST, description="new training seeds on each new drawing of the folds")
    fold_drawings: int = Field(default=2, ge=1, le=MOST, description="new drawings of the folds and their negatives")

    @property
    def trainings(self) -> int:
        """Per compared value."""
        return self.seeds * self.fold_drawings

    @model_validator(mode="before")
    @classmethod
    def _no_leaders(cls, value: Any) -> Any:
        earlier = sorted({"top", "repeats"} & value.keys()) if isinstance(value, dict) else []
        if earlier:
            raise ValueError(
                f"{' and '.join(earlier)} ran the best few trials again, perhaps all of one compared value; now the "
                "best trial of each compared value is trained again: write {seeds: 3, fold_drawings: 2}"
            )
        return value

    @model_validator(mode="after")
    def _several(self) -> ConfirmSettings:
        if self.trainings < 2:
            raise ValueError(
                "seeds 1 and fold_drawings 1 are one training, which cannot show how far trainings differ; raise one "
                "of them"
            )
        return self


def stored_confirm(tree: Any) -> Any:
    """`finalize.confirm` as an earlier version stored it, `{top, repeats}`: each repeat had a drawing and a seed."""
    if not isinstance(tree, dict) or "repeats" not in tree:
        return tree
    return {"seeds": 1, "fold_drawings": max(2, int(tree["repeats"]))}


class EnsembleSettings(Settings):
    """Trials that are registered and served as one model, in place of the best one."""

    size: int = Field(
        default=5, ge=2, le=50, description="members, added one at a time, each the one that helps most; it may recur"
    )
    per_criterion: bool = Field(default=False, description="an ensemble for each criterion, by its own pairs")


class ReportSettings(Settings):
    enabled: bool = Field(default=True, description="write report.html and report.md at the sweep's end")
    zero_shot: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="the baseline that asks the encoder's own language model yes or no; always: its texts are encoded "
        "with the sweep's; auto: if they are encoded already, or by report --encode",
    )


class FinalizeSettings(Settings):
    enabled: bool = Field(default=True, description="refit the best trial on all pairs and register it")
    model_name: Slug | None = Field(default=None, description="by default gemma_nli_{output.experiment_name}")
    alias: str = Field(default="candidate", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$", description="of the new version")
    confirm: ConfirmSettings | None = Field(
        default=None,
        description="train the best trial of each compared value again, so that the answer counts seeds and folds too",
    )
    ensemble: EnsembleSettings | None = Field(
        default=None, description="refit and register an ensemble of trials as one model, in place of the best trial"
    )
    export_limit_gib: float = Field(
        default=4.0,
        ge=0,
        le=10_000,
        description="models with weights up to this many GiB are exported for mlflow.pytorch",
    )
    promote_if_better: Literal["production", "staging", "champion"] | None = Field(
        default=None, description="the alias that moves to the new version if it beats the current holder"
    )
    promote_level: float = Field(
        default=0.05, gt=0, le=0.5, description="p-value below which the paired test counts as better"
    )

    @field_validator("alias")
    @classmethod
    def _not_reserved(cls, alias: str) -> str:
        if alias.lower() == "latest" or (alias[0] in "vV" and alias[1:].isdigit()):
            raise ValueError(f"MLflow reserves the alias {alias!r}")
        return alias
