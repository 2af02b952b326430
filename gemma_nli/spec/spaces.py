"""From a sweep file's `space`, or its `compare` and `tune`, to one SearchSpace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gemma_nli.base.errors import GemmaNliError, Problems, SpecError, did_you_mean
from gemma_nli.config import RunConfig, expanded, read_yaml, validation_lines
from gemma_nli.spec.conditions import parse_varied
from gemma_nli.spec.domain import Choices, shown
from gemma_nli.spec.space import SearchSpace
from gemma_nli.spec.spec import SweepSpec

_MAX_NODES, _MAX_DEPTH = 1_000_000, 40


def find_space(name: str, source: str) -> Path:
    """The space file `name`: beside the sweep file, in ../search_spaces/ or .. of it, or in the working directory.

    Raises:
        SpecError: there is none; with the nearest name.
    """
    here = Path(source).parent
    folders = [here, here.parent / "search_spaces", here.parent, Path()]
    try:
        wanted = expanded(name)
        candidates = [folder / wanted for folder in folders]
        for path in candidates:
            if path.is_file() and not (Path(source).is_file() and path.samefile(source)):
                return path
        known = {p.name for c in candidates if c.parent.is_dir() for p in c.parent.glob("*.y*ml")}
    except (OSError, ValueError, RuntimeError) as error:
        raise SpecError(f"not a file's name: {error}.") from None
    near = did_you_mean(wanted.name, known - {Path(source).name})
    raise SpecError(f"no such file '{name}'{near or '; it is looked for beside the sweep file and in search_spaces/.'}")


def not_plain(value: Any) -> str | None:
    """Why a YAML tree cannot be a sweep: not plain, endless, or too deep; None for a plain one."""
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
            return f"{where.rstrip('.')}: a {type(item).__name__} is not a valid value; put text in quotes."
    return None


def parse_space(value: Any, source: str, problems: Problems) -> SearchSpace | None:
    if isinstance(value, SearchSpace):
        return value
    if value is None:
        problems.add("space", "missing; name a file of search_spaces/, or the settings to vary.")
        return None
    prefix, name = "space.", source
    if isinstance(value, str):
        path, value = _read_space(value, source, "space", problems)
        if path is None:
            return None
        prefix, name = f"{path}: ", str(path)
    before = len(problems.lines)
    varied = parse_varied(value, problems, prefix)
    return SearchSpace(varied, name) if len(problems.lines) == before else None


def _read_space(name: str, source: str, where: str, problems: Problems) -> tuple[Path | None, Any]:
    """The file of that name and its content; (None, None) if a problem was added."""
    try:
        path = find_space(name, source)
        value = read_yaml(path)
        odd = not_plain(value)
        if odd:
            raise SpecError(f"{path}: {odd}")
    except GemmaNliError as error:
        problems.add(where, str(error))
        return None, None
    return path, value


def parse_comparison(
    compare: Any, tune: Any, has_space: bool, source: str, problems: Problems
) -> tuple[SearchSpace | None, tuple[str, ...]]:
    """The space of `compare` and `tune` together, and the compared settings; None if problems were added.

    Args:
        tune: settings to vary as in a space, or the name of a space file; None if nothing is tuned.
    """
    before = len(problems.lines)
    if has_space:
        problems.add("space", "compare and tune say what varies; move its settings to tune.")
    if not isinstance(compare, Mapping) or not compare:
        got = "" if compare is None else f", got {shown(compare)}"
        problems.add("compare", f"must name settings and the values to compare (setting: {{grid: [...]}}){got}.")
        compare = {}
    if isinstance(tune, str):
        path, tune = _read_space(tune, source, "tune", problems)
        source = str(path) if path is not None else source
    if tune is not None and not isinstance(tune, Mapping):
        problems.add("tune", f"expected settings to vary, or a file of search_spaces/, got {shown(tune)}.")
        tune = {}
    tune = tune or {}
    for key in compare:
        if key in tune:
            problems.add(f"tune.{key}", "is compared; a setting is either compared or tuned.")
        elif isinstance(compare[key], Mapping) and "when" in compare[key]:
            problems.add(f"compare.{key}.when", "compared settings are compared everywhere; only tune has conditions.")
    varied_problems = Problems(source)
    varied = parse_varied({**compare, **tune}, varied_problems)
    for line in varied_problems.lines:
        problems.lines.append(f"{'compare' if _names_one_of(line, compare) else 'tune'}.{line}")
    for each in varied:
        if each.key in compare and not isinstance(each.domain, Choices):
            problems.add(f"compare.{each.key}", f"{each.domain} lists no values to compare; write grid: [...].")
    if len(problems.lines) > before:
        return None, ()
    compared = tuple(each.key for each in varied if each.key in compare)
    return SearchSpace(varied, source), tuple(sorted(compared, key=list(compare).index))


def _names_one_of(line: str, keys: Mapping[str, Any]) -> bool:
    return any(line.startswith((f"{key}.", f"{key}:")) for key in keys)


def check_comparison(spec: SweepSpec, problems: Problems) -> None:
    """What would make a comparison unfair or unreadable."""
    if spec.scheduler.kind != "none":
        what = (
            f"{spec.scheduler.kind} stops trials of a compared value that is behind, whose best would then be unknown; "
        )
        problems.add("scheduler.kind", what + "set it to none, or use space instead of compare and tune.")
    if spec.search.objectives:
        problems.add("search.objectives", "compare needs one metric; drop objectives and set metric.")
    for index, config in enumerate(spec.search.warm_start.configs):
        for key in spec.compare:
            if key in config:
                where = f"search.warm_start.configs[{index}].{key}"
                problems.add(
                    where, "is compared; a warm start is tried for each compared value, so name tuned settings only."
                )
    try:
        spec.variants()
    except ValidationError as error:
        problems.add("compare", f"a compared value does not fit the base: {_first(error)}")


def _first(error: ValidationError) -> str:
    where, message = validation_lines(error, RunConfig)[0]
    return f"{where}: {message}" if where else message
