"""How a sweep file and its overrides become a SweepSpec, every problem told at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gemma_nli.config import RunConfig, check_key, read_yaml, set_dotted, setting_names, validation_lines
from gemma_nli.errors import GemmaNliError, Problems, SpecError, did_you_mean
from gemma_nli.masking import mask_credentials
from gemma_nli.spec.conditions import parse_varied
from gemma_nli.spec.domain import checked_value, shown
from gemma_nli.spec.settings import F1
from gemma_nli.spec.space import SearchSpace
from gemma_nli.spec.spec import SweepSpec

_MAX_NODES, _MAX_DEPTH = 1_000_000, 40


def parse_sweep(tree: Any, source: str, overrides: Mapping[str, Any]) -> SweepSpec:
    """The spec of a sweep file's mapping with overrides (dotted name to value) laid over it.

    Raises:
        SpecError: `source: n problems`, each under its dotted name; those an override brought say so.
    """
    problems = Problems(source)
    if not isinstance(tree, Mapping):
        raise SpecError(f"{source}: expected a sweep (name, question, base, space, ...), got {shown(tree)}.")
    for place, part in ((source, tree), ("command line", overrides)):
        odd = _odd(part)
        if odd:
            raise SpecError(f"{place}: {odd}")
    merged = _copy(tree)
    base_tree = _base_tree(merged.pop("base", {}), problems)
    base_keys = _lay_over(merged, base_tree, overrides, problems)
    base = _base(base_tree, overrides, problems)
    space = _space(merged.pop("space", None), source, problems)
    parts = _parts(merged, source, overrides, problems)
    _refuse_varied_overrides(base_keys, overrides, space, problems)
    spec = None
    if base is not None and space is not None and parts is not None:
        spec = SweepSpec.model_validate({**parts, "base": base, "space": space})
        _check_whole(spec, problems)
    problems.lines = [mask_credentials(line) for line in problems.lines]
    problems.raise_if_any(SpecError)
    assert spec is not None
    return spec


def find_space(name: str, source: str) -> Path:
    """The space file `name`: beside the sweep file, in ../search_spaces/ or .. of it, or in the working directory.

    Raises:
        SpecError: there is none; with the nearest name.
    """
    here = Path(source).parent
    folders = [here, here.parent / "search_spaces", here.parent, Path()]
    try:
        wanted = Path(name).expanduser()
        candidates = [folder / wanted for folder in folders]
        for path in candidates:
            if path.is_file() and not (Path(source).is_file() and path.samefile(source)):
                return path
        known = {p.name for c in candidates if c.parent.is_dir() for p in c.parent.glob("*.y*ml")}
    except (OSError, ValueError, RuntimeError) as error:
        raise SpecError(f"not a file's name: {error}.") from None
    near = did_you_mean(wanted.name, known - {Path(source).name})
    raise SpecError(f"no such file '{name}'{near or '; it is looked for beside the sweep file and in search_spaces/.'}")


def _odd(value: Any) -> str | None:
    """Why a YAML tree is no sweep at all: not plain, endless, or too deep; None for a plain one."""
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    seen = 0
    while stack:
        where, item, depth = stack.pop()
        seen += 1
        if seen > _MAX_NODES or depth > _MAX_DEPTH:
            return "nested too deep, or too large (an alias inside itself?)."
        if isinstance(item, Mapping):
            for key, inner in item.items():
                if not isinstance(key, str):
                    return f"{where}{shown(key)}: a name must be text; put it in quotes."
                stack.append((f"{where}{key}.", inner, depth + 1))
        elif isinstance(item, (list, tuple)):
            stack.extend((f"{where.rstrip('.')}[{i}].", inner, depth + 1) for i, inner in enumerate(item))
        elif isinstance(item, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in item):
            return f"{where.rstrip('.')}: holds a character that no file or name can hold."
        elif isinstance(item, int) and abs(item) >= 2**63:
            return f"{where.rstrip('.')}: the number is too large."
        elif isinstance(item, float) and not math.isfinite(item):
            return f"{where.rstrip('.')}: must be a finite number, got {item}."
        elif not isinstance(item, (str, int, float, bool, type(None), RunConfig, SearchSpace)):
            return f"{where.rstrip('.')}: a {type(item).__name__} is no setting; put text in quotes."
    return None


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, (list, tuple)) else value


def _base_tree(value: Any, problems: Problems) -> dict[str, Any]:
    """The base as a nested tree; dotted names (`training.batch_size: 16`) are accepted beside nested ones."""
    if isinstance(value, RunConfig):
        return value.model_dump(mode="json")
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
    """Put overrides where they belong; gives the names of those that are the base's."""
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
            near = near if "did you mean" in near else "; neither a setting of the base nor a key of the sweep file."
            problems.add(key, _from_user(f"unknown{near}"))
        else:
            set_dotted(merged, key, value)
    return base_keys


def _sweep_keys() -> list[str]:
    return [key for key in setting_names(SweepSpec) if not key.startswith("base")] + _SECTIONS


_SECTIONS = ["search", "search.warm_start", "scheduler", "resources", "finalize"]


def _base(tree: dict[str, Any], overrides: Mapping[str, Any], problems: Problems) -> RunConfig | None:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        for where, message in validation_lines(error, RunConfig):
            told = where in overrides or f"base.{where}" in overrides
            name = where if told else f"base.{where}".rstrip(".")
            problems.add(name, _from_user(message) if told else message)
        return None


def _from_user(message: str) -> str:
    return f"{message.rstrip('.')} (command line)."


def _space(value: Any, source: str, problems: Problems) -> SearchSpace | None:
    if isinstance(value, SearchSpace):
        return value
    if value is None:
        problems.add("space", "missing; name a file of search_spaces/, or the settings to vary.")
        return None
    prefix, name = "space.", source
    if isinstance(value, str):
        try:
            path = find_space(value, source)
            prefix, name, value = f"{path}: ", str(path), read_yaml(path)
            odd = _odd(value)
            if odd:
                raise SpecError(f"{path}: {odd}")
        except GemmaNliError as error:
            problems.add("space", str(error))
            return None
    before = len(problems.lines)
    varied = parse_varied(value, problems, prefix)
    return SearchSpace(varied, name) if len(problems.lines) == before else None


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
            told = where in overrides
            problems.add(where, _from_user(message) if told else message)
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
    """What no part can see alone: the space against the algorithm, the base and the warm start; the scheduler."""
    for key, what in spec.space.algorithm_problems(spec.search.algorithm):
        problems.add(f"space.{key}", what)
    if not spec.space.varied and spec.search.algorithm != "grid":
        problems.add("space", f"varies nothing, so search.algorithm {spec.search.algorithm} has nothing to draw.")
    if spec.scheduler.kind != "none":
        wanted = [(objective.metric, objective.mode) for objective in spec.objectives]
        if wanted != [(F1, "max")]:
            shown_metrics = ", ".join(f"{metric} {mode}" for metric, mode in wanted)
            what = f"{spec.scheduler.kind} stops trials by their mean F1, but the sweep is decided by {shown_metrics}; "
            problems.add("scheduler.kind", what + "set it to none.")
        if spec.scheduler.grace_folds >= spec.base.data.num_folds:
            what = f"{spec.scheduler.grace_folds} with base.data.num_folds {spec.base.data.num_folds} stops nothing; "
            problems.add("scheduler.grace_folds", what + f"at most {spec.base.data.num_folds - 1} makes sense.")
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
                problems.add(where, f"{shown(value)} is outside of {domain}.")
        if len(problems.lines) == before and len(spec.space.params_of(taken, partial=True) or {}) < len(taken):
            where = f"search.warm_start.configs[{index}]"
            problems.add(where, "names a setting whose `when` does not hold in this configuration.")
