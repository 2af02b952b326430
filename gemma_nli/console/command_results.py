"""What a command prints at its end: the leaderboard and next steps, a plan, the best trial, one cross-validation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gemma_nli.base.advice import command_line
from gemma_nli.base.masking import mask_address
from gemma_nli.base.metrics import MACRO_AUC, MEAN_AUC, MEAN_F1, METRICS, PREFIX, headline_names
from gemma_nli.base.what_was_measured import ENSEMBLE_REFIT, REFIT
from gemma_nli.console.formatting import duration, short, shown
from gemma_nli.console.report_lines import show_report
from gemma_nli.console.terminal import Sheet, Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemma_nli.local.reproduce import Reproduction
    from gemma_nli.local.train import LocalRun
    from gemma_nli.local.train_simple import SimpleResult
    from gemma_nli.spec.spec import SweepSpec
    from gemma_nli.sweep.forecast.forecast import Forecast
    from gemma_nli.sweep.records.outcome import TrialOutcome
    from gemma_nli.sweep.records.sweep_result import SweepResult
    from gemma_nli.tracking.read.queries import BestTrial
    from gemma_nli.training.results import CvResult

LEADERS = 10
REASONS = 5


def show_result(result: SweepResult, spec: SweepSpec) -> None:
    """Leaderboard, registered model, notes and three next commands."""
    console = Terminal()
    if spec.question:
        console.say(spec.question, "italic")
    ranked = result.ranked
    if ranked:
        console.print(leaderboard(ranked, spec, result).fit(console))
    counts = ", ".join([f"{count} {state}" for state, count in result.trials.items() if count] + waiting_of(result))
    texts = f"{result.texts['encoded']} texts encoded, {result.texts['reused']} reused"
    console.say(f"{counts or 'no trials'} ({result.ran} run now); {texts}; {duration(result.seconds['total'])} in all")
    for line in failure_lines(result, spec):
        console.say(line, "red", whole=True)
    if result.registered:
        name, version = result.registered["name"], result.registered["version"]
        alias = result.registered["alias"]
        has = f"alias {alias}" if alias else f"without the alias {spec.finalize.alias}, which has since moved"
        several = result.registered.get("ensemble")
        what = f"{several['about']}, its {ENSEMBLE_REFIT}" if several else REFIT
        console.say(f"registered {name} version {version}, {has}: {what}")
        if result.registered["torch"] != "pt2" and not several:
            console.say_all(f"note: mlflow.pytorch: {result.registered['torch']}", "yellow")
        promotion = result.registered.get("promotion")
        if promotion:
            verb = "is" if promotion["promoted"] else "is not"
            console.say(f"version {version} {verb} {promotion['to']}: {promotion['why']}")
    if result.report:
        show_report(result.report, notes=result.notes)
    for note in result.notes:
        console.say_all(f"note: {note}", "yellow")
    if ranked:
        console.say()
        console.say("Next:")
        for command in next_commands(result, spec):
            console.say(f"  {command}", whole=True)


def waiting_of(result: SweepResult) -> list[str]:
    """What is left undone, as in `17 of 20 waiting`; empty if nothing is."""
    left = [f"{result.waiting} of {result.cells} waiting"] if result.waiting else []
    again = {state: count for state, count in (result.confirming or {}).items() if count}
    return left + ([f"confirming: {', '.join(f'{n} {state}' for state, n in again.items())}"] if again else [])


def failure_lines(result: SweepResult, spec: SweepSpec) -> list[str]:
    """Why trials failed, one line per reason, and where the full traceback is."""
    lines = []
    for failure in result.failures:
        settings = ", ".join(f"{key.split('.')[-1]} {shown(value)}" for key, value in failure["settings"].items())
        which = f" ({settings})" if settings else ""
        count = f"{failure['trials']} trials failed, such as one" if failure["trials"] > 1 else "1 trial failed"
        lines.append(f"{count}{which}: {failure['error']}")
    more = [f"... and {len(lines) - REASONS} more reasons"] if len(lines) > REASONS else []
    whole = ["each failed trial's run in MLflow has its full traceback"] if lines and spec.base.mlflow.enabled else []
    return lines[:REASONS] + more + whole


def leaderboard(ranked: Sequence[TrialOutcome], spec: SweepSpec, result: SweepResult) -> Sheet:
    """The best ten, with the settings the sweep varied, and what they were measured on."""
    best = f"{min(LEADERS, len(ranked))} best of {result.trials['finished']}"
    title = f"{spec.name}: {best}, {spec.base.data.measured_at}"
    main = short(spec.metric)
    extra = [short(name) for name in (MEAN_F1, MEAN_AUC) if name != spec.metric]
    extra += [short(MACRO_AUC)] if spec.metric != MACRO_AUC else []
    varied = [key.split(".")[-1] for key in spec.space.keys]
    table = Sheet("#", *varied, main, *extra, right={"#", main, *extra}, title=title)
    for place, cell in enumerate(ranked[:LEADERS], start=1):
        settings = [shown(cell.settings.get(key)) for key in spec.space.keys]
        values = [cell.metrics.get(f"{PREFIX}{name}", math.nan) for name in extra]
        table.add(str(place), *settings, f"{cell.objective:.3f}", *(f"{value:.3f}" for value in values))
    return table


def next_commands(result: SweepResult, spec: SweepSpec) -> list[str]:
    """What to type next: each line works as printed, in the folder where it is printed."""
    kept = mask_address(spec.search.storage or "") == (spec.search.storage or "")  # sweeps do not store passwords
    again = [command_line("gemma-nli", "resume", result.name)] if kept else []
    if not spec.base.mlflow.enabled:
        return [*again, command_line("gemma-nli", "report", result.name)]
    from gemma_nli.tracking.store.mlflow_store import resolve_store

    store = resolve_store(spec.base.mlflow)
    best = store.line("best", "--experiment", result.experiment)
    return [best, *(line + store.remark for line in again), store.line("ui")]


def show_plan(plan: dict[str, Any]) -> None:
    """The plan of `sweep --plan`, one fact per line."""
    console = Terminal()
    todo = f"{plan['to_run']} to run, {plan['done']} done"
    if plan["chosen_by"] == "optuna":
        todo = f"chosen by Optuna, {todo}"
    machine, trial, memory = plan["machine"], plan["trial"], plan["memory_gib"]
    table = Sheet()
    for title, key in (("compared", "compared"), ("tuned" if plan["compared"] else "varied", "varied")):
        for setting, domain in plan[key].items():
            table.add(title, f"{setting}: {_range_text(domain)}")
            title = ""
    table.add("cells", f"{plan['cells']} ({todo}, {plan['failed_before']} failed before)")
    if plan["earlier"]:
        table.add("earlier", plan["earlier"])
    if again := plan["confirm"]:
        most = "" if again["exact"] else "up to "
        table.add(
            "confirmed",
            f"{most}{again['trainings']} trainings ({again['done']} done): the best of {most}{again['values']} values, "
            f"{again['seeds']} seeds on each of {again['fold_drawings']} fold drawings",
        )
    table.add("texts", f"{plan['texts']['to_encode']} to encode, {plan['texts']['reused']} reused")
    pairs = plan["evaluation_pairs"].values()
    table.add("evaluation", f"{sum(pairs)} pairs in {len(pairs)} folds, the same for every trial")
    has_gpus = machine["gpus"] > 0
    gpus = f"{machine['gpus']:g} GPUs of {machine['gpu_gib']:g} GiB" if has_gpus else "no GPU"
    table.add("machine", f"{machine['cpus']:g} CPUs, {gpus}")
    share = f"{trial['cpu']:g} CPUs" + (f", {trial['gpu']:g} GPUs" if has_gpus or trial["gpu"] else "")
    table.add("a trial", f"{share}; {trial['concurrent']} side by side")
    if memory and has_gpus:
        parts = ", ".join(f"{name} {value:g}" for name, value in memory.items() if name != "total")
        table.add("GPU memory", f"{memory['total']:g} GiB estimated ({parts})")
    if plan["question"]:
        console.say(plan["question"], "italic")
    console.say(f"{plan['name']}  {plan['sweep_id']}", "bold")
    console.print(table)
    console.say(f"storage: {plan['storage']}", whole=True)
    for note in plan["notes"]:
        console.say_all(f"note: {note}", "yellow")


def _range_text(domain: dict[str, Any]) -> str:
    """`mean, max` of a list of values, `loguniform 1e-5 to 1e-2` of a range."""
    kind, values = next((kind, values) for kind, values in domain.items() if kind not in ("when", "step"))
    if not isinstance(values, list):
        return f"{kind} {values}"
    listed = kind in ("grid", "choice")
    return ", ".join(map(shown, values)) if listed else f"{kind} {' to '.join(map(shown, values))}"


def show_forecast(forecast: Forecast, price: float | None) -> None:
    """Time, GPU-hours and cost, measured on this machine."""
    console = Terminal()
    table = Sheet()
    parts = ("start", "encode", "tune", *(["confirm"] if forecast.confirm else []), "refit")
    split = ", ".join(f"{name} {duration(getattr(forecast, name))}" for name in parts)
    table.add("time", f"about {duration(forecast.total)} ({split})")
    table.add("a trial", f"{forecast.trial:.1f} s on average, {forecast.trials} to run")
    table.add("work", f"{forecast.gpu_hours:.2f} GPU-hours, {forecast.cpu_hours:.2f} CPU-hours")
    if price is not None:
        each = f"{forecast.gpus:g} GPUs" if forecast.gpus else "one machine"
        table.add("cost", f"{forecast.cost(price):.2f} at {price:g} per hour for {each}")
    console.print(table)
    for note in forecast.notes:
        console.say_all(f"note: {note}", "yellow")


def show_best(best: BestTrial) -> None:
    console = Terminal()
    console.say(f"{best.run_name}  {short(best.metric)} {best.value:.4f}  (run {best.run_id})", "bold")
    table = Sheet()
    for name in dict.fromkeys((best.metric, *headline_names())):
        if name in best.metrics:
            table.add(short(name), f"{best.metrics[name]:.4f}")
    console.print(table)
    if best.honest is not None:
        honest_text = "{value:.4f} ({low:.4f} to {high:.4f})".format(**best.honest)
        console.say(f"honest {short(best.metric)} {honest_text}, as the best of {best.honest['candidates']}")
    console.say(f"measured {best.config.data.measured_at}")
    for note in best.notes:
        console.say_all(f"note: {note}", "yellow")
    console.say("run it again:")
    console.say(f"  {best.command}", whole=True)


def show_run(run: LocalRun) -> None:
    """A single run: its folds, where it is recorded, notes."""
    console = Terminal()
    show_cv(run.result, run.record.config.data.measured_at)
    if run.criterion_only and run.result.aggregates:
        f1, auc = (run.criterion_only[name] for name in ("f1", "auc"))
        console.say(f"criterion only, which never reads the post: F1 {f1:.3f}, AUC {auc:.3f} on the same pairs")
    if run.record.error:
        console.say_all(f"failed: {run.record.error}", "red")
    if run.run_id is not None:
        console.say(f"MLflow run {run.run_id} in experiment {run.experiment}", whole=True)
    for note in run.notes:
        console.say_all(f"note: {note}", "yellow")


def show_simple(result: SimpleResult, run_id: str | None, measured_at: str) -> None:
    """`measured_at`: what stands beside the scores."""
    console = Terminal()
    names = ("train_loss", "val_loss", "val_f1", "val_auc")
    table = Sheet("epoch", *names, right={"epoch", *names})
    for epoch in range(len(result.history["train_loss"])):
        mark = "*" if epoch + 1 == result.best_epoch else ""
        table.add(f"{epoch + 1}{mark}", *(f"{result.history[name][epoch]:.4f}" for name in names))
    console.print(table)
    for name, value in result.metrics.items():
        console.say(f"{name:15s} {value:.4f}")
    sizes = ", ".join(f"{count} {name}" for name, count in result.pairs.items())
    console.say(f"{sizes} pairs, split by post; measured {measured_at}")
    console.say(f"MLflow run {run_id}" if run_id else "not recorded; use --mlflow to record it")


def show_reproduction(reproduction: Reproduction) -> None:
    """Aggregates, fold summaries and everything that differs, side by side."""
    console = Terminal()
    right = {"recorded", "now", "difference"}
    table = Sheet(
        "metric",
        "recorded",
        "now",
        "difference",
        right=right,
        title=f"{reproduction.run_name} ({reproduction.run_id[:8]}), "
        f"{reproduction.again.record.config.data.measured_at}",
    )
    for row in reproduction.rows:
        if row.difference != 0 or row.metric.startswith("cv_aggregate/"):
            difference_text = "0" if row.difference == 0 else f"{row.difference:+.2e}"
            table.add(row.metric, f"{row.recorded:.6f}", f"{row.now:.6f}", difference_text)
    console.print(table)
    same = sum(row.difference == 0 for row in reproduction.rows)
    console.say(f"{same} of {len(reproduction.rows)} metrics are equal to the last bit")
    if reproduction.moved:
        farthest = reproduction.moved[0]
        verdict = (
            f"all within {reproduction.tolerance:g}"
            if reproduction.equal
            else f"not all within {reproduction.tolerance:g}"
        )
        count = len(reproduction.moved)
        differ = f"{count} differ" if count > 1 else "1 differs"
        console.say(f"{differ}, {farthest.metric} most, by {farthest.difference:+.1e}: {verdict}")
    for note in reproduction.notes:
        console.say_all(f"note: {note}", "yellow")


def show_cv(result: CvResult, measured_at: str) -> None:
    """One row per fold, then the aggregates; `measured_at` is what stands beside them."""
    console = Terminal()
    measured = [name for name, each in METRICS.items() if each.headline]
    columns = ("fold", "epoch", *(METRICS[name].label for name in measured), "pairs")
    table = Sheet(*columns, right=set(columns))
    for fold in result.folds:
        if fold.metrics:
            values = [f"{fold.metrics.get(name, math.nan):.3f}" for name in measured]
            table.add(str(fold.fold), str(fold.selected_epoch), *values, str(len(fold.rows)))
        else:
            table.add(str(fold.fold), "-", fold.status, *("" for _ in columns[3:]))
    console.print(table)
    named = [name for name in headline_names() if name in result.aggregates]
    width = max((len(short(name)) for name in named), default=0)
    for name in named:
        console.say(f"{short(name):{width}s} {result.aggregates[name]:.4f}")
    console.say(f"measured {measured_at}")
