"""How a sweep file and its overrides become a SweepSpec, all problems reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gemma_nli.base.errors import Problems, SpecError, did_you_mean
from gemma_nli.base.masking import mask_credentials
from gemma_nli.base.metrics import MEAN_F1, metric_of
from gemma_nli.config import RunConfig, check_key, set_dotted, setting_names, validation_lines
from gemma_nli.spec.domain import checked_value, shown
from gemma_nli.spec.space import SearchSpace
from gemma_nli.spec.spaces import check_comparison, not_plain, parse_comparison, parse_space
from gemma_nli.spec.spec import SweepSpec


def parse_sweep(tree: Any, source: str, overrides: Mapping[str, Any]) -> SweepSpec:
    """The spec of a sweep file's mapping with overrides (dotted name to value) laid over it.

    Raises:
        SpecError: `source: n problems`, each under its dotted name; those from an override are marked.
    """
    problems = Problems(source)
    if not isinstance(tree, Mapping):
        raise SpecError(f"{source}: expected a sweep (name, question, base, space, ...), got {shown(tree)}.")
    for place, part in ((source, tree), ("command line", overrides)):
        odd = not_plain(part)
        if odd:
            raise SpecError(f"{place}: {odd}")
    merged = _copy(tree)
    base_tree = _base_tree(merged.pop("base", {}), problems)
    base_keys = _lay_over(merged, base_tree, overrides, problems)
    base = _base(base_tree, overrides, problems)
    compare, tune = merged.pop("compare", None), merged.pop("tune", None)
    space, compared = None, tuple[str, ...]()
    if compare is None and tune is None:
        space = parse_space(merged.pop("space", None), source, problems)
    else:
        space, compared = parse_comparison(compare, tune, "space" in merged, source, problems)
        merged.pop("space", None)
    parts = _parts(merged, source, overrides, problems)
    _refuse_varied_overrides(base_keys, overrides, space, problems)
    spec = None
    if base is not None and space is not None and parts is not None:
        spec = SweepSpec.model_validate({**parts, "base": base, "space": space, "compare": compared})
        _check_whole(spec, problems)
    problems.lines = [mask_credentials(line) for line in problems.lines]
    problems.raise_if_any(SpecError)
    assert spec is not None
    return spec


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, (list, tuple)) else value


def _base_tree(value: Any, problems: Problems) -> dict[str, Any]:
    """The base as a nested tree; dotted names (`training.batch_size: 16`) are accepted beside nested ones."""
    if isinstance(value, RunConfig):
        return value.given()
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        problems.add("base", f"expected settings (name: value), got {shown(value)}.")
        return {}
    tree = {key: item for key, item in value.items() if "." not in key}
    for key, item in value.items():
        if "." in key and check_key(key, problems, f"base.{key}"):
            set_dotted(tree, key, item)
    return tree


def _lay_over(
    merged: dict[str, Any], base_tree: dict[str, Any], overrides: Mapping[str, Any], problems: Problems
) -> list[str]:
    """Put overrides where they belong; gives the names of those that belong to the base."""
    names, sweep_keys = setting_names(), _sweep_keys()
    base_keys = []
    for key, value in overrides.items():
        setting = key.removeprefix("base.")
        if setting in names:
            base_keys.append(setting)
            set_dotted(base_tree, setting, value)
        elif key.startswith("tags.") and isinstance(merged.setdefault("tags", {}), dict):
            merged["tags"][key.removeprefix("tags.")] = value
        elif key not in sweep_keys:
            near = did_you_mean(key, [*names, *sweep_keys])
            near = near if "did you mean" in near else "; not a setting of the base, nor a key of the sweep file."
            problems.add(key, _from_user(f"unknown{near}"))
        else:
            set_dotted(merged, key, value)
    return base_keys


def _sweep_keys() -> list[str]:
    return [key for key in setting_names(SweepSpec) if not key.startswith(("base", "compare"))] + _SECTIONS


_SECTIONS = ["search", "search.warm_start", "scheduler", "resources", "finalize", "report"]


def _base(tree: dict[str, Any], overrides: Mapping[str, Any], problems: Problems) -> RunConfig | None:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        for where, message in validation_lines(error, RunConfig):
            overridden = where in overrides or f"base.{where}" in overrides
            name = where if overridden else f"base.{where}".rstrip(".")
            problems.add(name, _from_user(message) if overridden else message)
        return None


def _from_user(message: str) -> str:
    return f"{message.rstrip('.')} (command line)."


def _parts(
    tree: dict[str, Any], source: str, overrides: Mapping[str, Any], problems: Problems
) -> dict[str, Any] | None:
    """Every key but base and space, checked."""
    tree = {"name": Path(source).stem, **tree}
    stand_in = {"base": RunConfig(), "space": SearchSpace(())}
    try:
        return dict(SweepSpec.model_validate({**tree, **stand_in}))
    except ValidationError as error:
        for where, message in validation_lines(error, SweepSpec):
            overridden = where in overrides
            problems.add(where, _from_user(message) if overridden else message)
        return None


def _refuse_varied_overrides(
    base_keys: list[str], overrides: Mapping[str, Any], space: SearchSpace | None, problems: Problems
) -> None:
    for key in base_keys:
        for varied in space.varied if space is not None else ():
            if varied.key == key or varied.key.startswith(f"{key}.") or key.startswith(f"{varied.key}."):
                given = shown(overrides.get(key, overrides.get(f"base.{key}")))
                what = f"the command line sets {key}={given}, but the space varies {varied.key} over {varied.domain}; "
                problems.add(key, what + "drop the override, or take the setting out of the space.")


def _check_whole(spec: SweepSpec, problems: Problems) -> None:
    """Checks across parts: the space against the algorithm, the base and the warm start; the scheduler."""
    part = "tune" if spec.compare else "space"
    for key, what in spec.space.algorithm_problems(spec.search.algorithm):
        if key not in spec.compare:
            problems.add(f"{part}.{key}", what)
    if spec.compare:
        check_comparison(spec, problems)
    if spec.finalize.ensemble is not None and (spec.search.objectives or metric_of(spec.metric) is None):
        several = [objective.metric for objective in spec.search.objectives]
        what = f"search.objectives names {', '.join(several)}" if several else f"metric is {spec.metric}"
        problems.add(
            "finalize.ensemble",
            f"{what}, and members are chosen by one metric of predictions; set the metric cv_aggregate/mean_f1 or "
            "another of predictions, or leave finalize.ensemble out.",
        )
    if not spec.space.varied and spec.search.algorithm != "grid":
        problems.add("space", f"varies nothing, so search.algorithm {spec.search.algorithm} has nothing to draw.")
    if spec.scheduler.kind != "none":
        wanted = [(objective.metric, objective.mode) for objective in spec.objectives]
        if wanted != [(MEAN_F1, "max")]:
            shown_metrics = ", ".join(f"{metric} {mode}" for metric, mode in wanted)
            what = f"{spec.scheduler.kind} stops trials by their mean F1, but the sweep is decided by {shown_metrics}; "
            problems.add("scheduler.kind", what + "set it to none.")
        if spec.scheduler.grace_folds >= spec.base.data.num_folds:
            what = f"{spec.scheduler.grace_folds} with base.data.num_folds {spec.base.data.num_folds} stops nothing; "
            problems.add("scheduler.grace_folds", what + f"set it to {spec.base.data.num_folds - 1} or less.")
    own_file = spec.search.storage is None or spec.search.storage.lower().startswith("sqlite")
    if spec.search.algorithm == "optuna" and spec.kept_in_bucket and own_file:
        what = "an Optuna study is a database, which cannot be kept in a bucket; "
        problems.add("search.storage", what + "name a server's, postgresql://..., or keep the sweep in a folder.")
    _check_warm_start(spec, problems)
    if problems.lines:
        return
    try:
        if spec.search.algorithm == "grid":
            spec.cells()
        else:
            spec.space.probe(spec.base)
    except SpecError as error:
        problems.add("", str(error).removeprefix(f"{problems.source}: "))


def _check_warm_start(spec: SweepSpec, problems: Problems) -> None:
    for index, config in enumerate(spec.search.warm_start.configs):
        before = len(problems.lines)
        taken: dict[str, Any] = {}
        for key, value in config.items():
            where = f"search.warm_start.configs[{index}].{key}"
            domain = spec.space.domain(key)
            if not check_key(key, problems, where):
                continue
            if domain is None:
                problems.add(where, "the space does not vary this setting; set it in base.")
                continue
            known = len(problems.lines)
            taken[key] = checked_value(key, value, problems, where)
            if len(problems.lines) == known and not domain.contains(taken[key]):
                problems.add(where, f"{shown(value)} is outside {domain}.")
        if len(problems.lines) == before and len(spec.space.params_of(taken, partial=True) or {}) < len(taken):
            where = f"search.warm_start.configs[{index}]"
            problems.add(where, "names a setting whose `when` condition does not hold in this configuration.")
