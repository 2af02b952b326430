"""Tables of the MLflow store in 80 columns, and the same as JSON values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from gemma_nli.base.metrics import METRICS, headline_names
from gemma_nli.base.outgoing import one_line
from gemma_nli.base.what_was_measured import REFIT
from gemma_nli.console.terminal import Sheet, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gemma_nli.tracking.read.frames import Comparison
    from gemma_nli.tracking.registry.registered_models import RegisteredVersion
    from gemma_nli.tracking.store.clean_and_export import CleanPlan

NOT_THERE = "N/A"
NAMED = 5


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as JSON values: an absent value is null."""
    return [{str(k): _plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


def show_experiments(table: pd.DataFrame) -> None:
    shown = Sheet("experiment", "runs", "mean F1", "measured", "last start", right={"runs", "mean F1"})
    for row in table.itertuples():
        cells = [str(row.experiment), str(row.runs), _number(row.best_f1), str(row.measured_at)]
        shown.add(*cells, _time(row.last_start))
    if len(table):
        Terminal().print(shown)
    else:
        Terminal().say("no experiments yet")


def show_runs(table: pd.DataFrame) -> None:
    """One row per run; N/A is explained below: a run gets its aggregates when its last fold has ended."""
    console = Terminal()
    if not len(table):
        console.say("no run matches")
        return
    shown = Sheet("run", "name", "experiment", "state", "by", "F1", "AUC", "start", right={"F1", "AUC"})
    for number in (0, 4):
        shown.columns[number].no_wrap = True  # an id is copied, so it is not wrapped
    sweep_runs = _sweep_runs(table)
    for row in table.itertuples():
        sweep_run = sweep_runs.get(str(row.run_id))
        by = f"={sweep_run[:8]}" if sweep_run else str(row.by)
        cells = [str(row.run_id)[:8], str(row.name), str(row.experiment), str(row.state), by]
        shown.add(*cells, _number(row.f1), _number(row.auc), _time(row.start))
    console.print(shown)
    for line in _measured(table, "F1 and AUC", (str(run_id)[:8] for run_id in table["run_id"])):
        console.say(line)
    lacking = table[table["f1"].isna()]
    if len(lacking):
        states = ", ".join(sorted(set(lacking["state"])))
        console.say(
            f"{NOT_THERE}: {len(lacking)} runs without aggregates ({states}); they appear when the last fold has ended."
        )
    if sweep_runs:
        console.say("=RUN: `train` of the same configuration as that sweep's trial; the same result")
    cut = cut_line(table)
    if cut:
        console.say(cut)
    console.say("full ids: --csv or --json; the first eight characters are enough in other commands", "dim")


def _measured(table: pd.DataFrame, what: str, names: Iterable[str]) -> Iterator[str]:
    """At what the scores of a table were measured: one line, or one per kind with its rows' names."""
    kinds: dict[str, list[str]] = {}
    for at, name in zip(table["measured_at"], names, strict=True):
        if at:
            kinds.setdefault(str(at), []).append(name)
    for at, named in kinds.items():
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        yield f"{what} {at}" + (f": {', '.join(named[:NAMED])}{more}" if len(kinds) > 1 else "")


def cut_line(table: pd.DataFrame) -> str | None:
    """What a shortened list leaves out; None if it is complete."""
    matching = table.attrs.get("matching", len(table))
    if matching == len(table):
        return None
    return f"{len(table)} of {f'{matching:,}' if matching is not None else 'many more'} shown; --all shows them all"


def _sweep_runs(table: pd.DataFrame) -> dict[str, str]:
    """Runs of `train` to the sweep's trial, among those listed, that has their key."""
    if "tags.gemma_nli.trial_key" not in table:
        return {}
    keyed = table[table["tags.gemma_nli.trial_key"].notna()]
    swept = keyed[keyed["by"] == "sweep"]
    of_key = dict(zip(swept["tags.gemma_nli.trial_key"], swept["run_id"], strict=True))
    alone = keyed[keyed["by"] == "train"]
    pairs = zip(alone["run_id"], alone["tags.gemma_nli.trial_key"], strict=True)
    return {str(run): str(of_key[key]) for run, key in pairs if key in of_key}


def show_models(table: pd.DataFrame, versions: list[RegisteredVersion]) -> None:
    console = Terminal()
    if not len(table):
        console.say("no models are registered yet; a sweep registers its best trial")
        return
    shown = Sheet("model", "version", "aliases", "stage", "metric", "value", "sweep", right={"version", "value"})
    for row in table.itertuples():
        metric = str(row.metric).rsplit("/", 1)[-1]
        cells = [str(row.name), str(row.version), str(row.aliases), str(row.stage), metric]
        shown.add(*cells, _number(row.value), str(row.sweep)[:16])
    console.print(shown)
    for line in _measured(table, "values", (f"version {version}" for version in table["version"])):
        console.say(line)
    console.say(f"Each version is {REFIT}")
    for version in versions:
        if version.members:
            honest = f"; {version.honest:.3f} on folds that did not choose them" if version.honest is not None else ""
            console.say(f"version {version.version} is an ensemble of the trials {version.members}{honest}", whole=True)
        for role, decision in version.decisions.items():
            console.say(f"version {version.version}, {role}: {decision}", whole=True)
        if version.torch and version.torch != "pt2":
            console.say(f"version {version.version}, mlflow.pytorch: {version.torch}", whole=True)


def show_comparison(found: Comparison, everything: bool = False) -> None:
    """The main figures first, then the folds'; other metrics on request."""
    console = Terminal()
    tests = [f"test_{name}" for name in METRICS]
    first = [name for name in (*headline_names(), *tests, "best_val_f1") if name in found.metrics.index]
    rest = found.metrics.drop(first)
    tables = {"runs": found.runs, "params that differ": found.params, "metrics": found.metrics.loc[first]}
    if "selected_f1" in found.folds.index.get_level_values(0):
        tables["fold F1"] = pd.DataFrame(found.folds.xs("selected_f1", level=0))
    if everything or not first:
        tables["other metrics"] = rest
    for title, table in tables.items():
        if not len(table):
            continue
        shown = Sheet(title, *(run[:8] for run in found.runs.columns))
        for name, row in table.iterrows():
            shown.add(str(name), *(_value(value) for value in row))
        console.print(shown)
    if len(rest) and "other metrics" not in tables:
        console.say(f"{len(rest)} more metrics: --all")
    for note in found.notes:
        console.say_all(f"note: {note}", "yellow")


def comparison_json(found: Comparison) -> dict[str, Any]:
    tables = {"runs": found.runs, "params": found.params, "metrics": found.metrics}
    facts: dict[str, Any] = {
        name: {str(column): {str(k): _plain(v) for k, v in table[column].items()} for column in table}
        for name, table in tables.items()
    }
    facts["folds"] = records(found.folds.reset_index())
    return {**facts, "notes": list(found.notes)}


def clean_lines(plan: CleanPlan) -> Iterator[str]:
    """What a clean would remove, one fact per line."""
    names = one_line(", ".join(plan.experiments.values())) or "no experiment"
    yield f"{plan.store.shown}: {len(plan.runs)} runs of {names}, {plan.megabytes:.1f} MB of files"
    for run_id, model in plan.kept.items():
        yield f"kept: run {run_id}, which registered model {one_line(model)} depends on"


def _number(value: Any) -> str:
    return NOT_THERE if value is None or pd.isna(value) else f"{value:.3f}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return NOT_THERE if math.isnan(value) else f"{value:.4f}"
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, pd.Timestamp) else str(value)


def _time(value: Any) -> str:
    return "" if value is None or pd.isna(value) else f"{value:%m-%d %H:%M}"
