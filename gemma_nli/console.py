"""What people see in a terminal of 80 columns: progress while a sweep works, then the leaderboard and what is next."""

from __future__ import annotations

import math
import shlex
import threading
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemma_nli.features.upkeep import StoreEntry
    from gemma_nli.sweep.board import Board, CellStatus
    from gemma_nli.sweep.result import SweepResult
    from gemma_nli.sweep.spec import SweepSpec
    from gemma_nli.tracking.queries import BestTrial
    from gemma_nli.training.results import CvResult

LEADERS = 10
_PHASES = {
    "starting": "opening the sweep",
    "encoding": "encoding texts, once each",
    "tuning": "running trials",
    "finalizing": "fitting the best on all pairs and registering it",
    "recording": "bringing MLflow up to date",
}


class Progress:
    """A live line on stderr: phase, trials done, best so far, time left. On no terminal: a line a phase."""

    def __init__(self, enabled: bool = True) -> None:
        self.console = Console(stderr=True)
        self.enabled = enabled
        self.live = enabled and self.console.is_terminal
        self.board: Board | None = None
        self._phase = ""
        self._display: Live | None = None
        self._lock = threading.Lock()

    def watch(self, board: Board) -> None:
        self.board = board
        board.watchers.append(self._changed)

    def __enter__(self) -> Progress:
        if self.live:
            self._display = Live(
                get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True
            )
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    def _changed(self) -> None:
        if not self.enabled or self.live or self.board is None:
            return
        with self._lock:
            if self.board.phase != self._phase:
                self._phase = self.board.phase
                self.console.print(f"- {_PHASES.get(self._phase, self._phase)}")

    def _render(self) -> Group:
        board = self.board
        if board is None:
            return Group(Text("reading the corpus"))
        done, failed = board.count("finished", "pruned", "failed"), board.count("failed")
        facts = [f"{done} of {board.total} trials"]
        if board.count("pruned"):
            facts.append(f"{board.count('pruned')} stopped early")
        if failed:
            facts.append(f"{failed} failed")
        best = board.best()
        if best is not None:
            facts.append(f"best {short(board.metric)} {best.objective:.3f}")
        left = board.seconds_left()
        if left is not None and board.phase == "tuning":
            facts.append(f"about {duration(left)} left")
        bar = ProgressBar(total=max(board.total, 1), completed=done, width=40)
        return Group(Text(_PHASES.get(board.phase, board.phase), style="bold"), bar, Text(" | ".join(facts)))


def show_result(result: SweepResult, spec: SweepSpec, board: Board | None) -> None:
    """Leaderboard, registered model, notes and the next three commands."""
    console = Console()
    if spec.question:
        console.print(Text(spec.question, style="italic"))
    ranked = board.ranked() if board is not None else []
    if ranked:
        console.print(leaderboard(ranked, spec, result))
    counts = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    texts = f"{result.texts['encoded']} texts encoded, {result.texts['reused']} reused"
    console.print(
        f"{counts or 'no trials'} ({result.ran} run now); {texts}; {duration(result.seconds['total'])} in all"
    )
    if result.registered:
        name, version = result.registered["name"], result.registered["version"]
        console.print(f"registered [bold]{name}[/bold] version {version}, alias {result.registered['alias']}")
    for note in result.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    if ranked:
        console.print("\nNext:")
        for command in next_commands(result, spec):
            console.print(Text(f"  {command}"), soft_wrap=True)


def leaderboard(ranked: Sequence[CellStatus], spec: SweepSpec, result: SweepResult) -> Table:
    """The best ten, with the settings the sweep varied; F1 says the evaluation ratio it was measured at."""
    ratio = spec.base.data.eval_negative_ratio
    title = f"{spec.name}: {min(LEADERS, len(ranked))} best of {result.trials['finished']} (evaluated at ratio {ratio})"
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    table.padding, table.header_style = (0, 2, 0, 0), "underline"
    table.add_column("#", justify="right")
    for key in spec.space.keys:
        table.add_column(key.split(".")[-1], overflow="fold")
    main = short(spec.metric)
    table.add_column(main, justify="right")
    extra = [name for name in ("mean_f1", "std_f1", "mean_auc") if name != main][:2]
    for name in extra:
        table.add_column(name, justify="right")
    for place, cell in enumerate(ranked[:LEADERS], start=1):
        settings = [shown(cell.settings.get(key)) for key in spec.space.keys]
        values = [cell.metrics.get(f"cv_aggregate/{name}", math.nan) for name in extra]
        table.add_row(str(place), *settings, f"{cell.objective:.3f}", *(f"{value:.3f}" for value in values))
    return table


def next_commands(result: SweepResult, spec: SweepSpec) -> list[str]:
    """What to type next, as it works from any folder."""
    experiment = shlex.quote(result.experiment)
    uri = spec.base.mlflow.tracking_uri
    ask = f"gemma-nli best --experiment {experiment}" + (
        f" --tracking-uri {shlex.quote(uri)}" if uri and "@" not in uri else ""
    )
    commands = [ask, f"gemma-nli resume {shlex.quote(result.name)}"]
    if spec.base.mlflow.enabled:
        from gemma_nli.tracking.store import resolve_store

        store = resolve_store(spec.base.mlflow)
        if not store.is_server:
            commands.append(f"mlflow ui --host 127.0.0.1 --backend-store-uri {shlex.quote(store.shown)}")
    return commands


def show_plan(plan: dict[str, Any]) -> None:
    """The plan of `sweep --plan`, a fact a line."""
    console = Console()
    todo = f"{plan['to_run']} to run, {plan['done']} done" if plan["to_run"] is not None else "chosen by Optuna"
    machine, trial, memory = plan["machine"], plan["trial"], plan["memory_gib"]
    table = Table(show_header=False, pad_edge=False, box=None)
    table.add_row("cells", f"{plan['cells']} ({todo}, {plan['failed_before']} failed before)")
    table.add_row("texts", f"{plan['texts']['to_encode']} to encode, {plan['texts']['reused']} reused")
    pairs = plan["evaluation_pairs"].values()
    table.add_row("evaluation", f"{sum(pairs)} pairs in {len(pairs)} folds, the same for every trial")
    table.add_row("machine", f"{machine['cpus']:g} CPUs, {machine['gpus']:g} GPUs of {machine['gpu_gib']:g} GiB")
    table.add_row("a trial", f"{trial['cpu']:g} CPUs, {trial['gpu']:g} GPUs; {trial['concurrent']} side by side")
    if memory:
        parts = ", ".join(f"{name} {value:g}" for name, value in memory.items() if name != "total")
        table.add_row("GPU memory", f"{memory['total']:g} GiB estimated ({parts})")
    table.add_row("storage", plan["storage"])
    console.print(f"[bold]{plan['name']}[/bold]  {plan['sweep_id']}", highlight=False)
    console.print(table)


def show_best(best: BestTrial) -> None:
    console = Console()
    console.print(
        f"[bold]{best.run_name}[/bold]  {short(best.metric)} {best.value:.4f}  (run {best.run_id})", highlight=False
    )
    table = Table(show_header=False, pad_edge=False, box=None)
    for name in ("mean_f1", "std_f1", "median_f1", "mean_auc", "macro_f1", "optimism_f1"):
        value = best.metrics.get(f"cv_aggregate/{name}")
        if value is not None:
            table.add_row(name, f"{value:.4f}")
    console.print(table)
    for note in best.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print("run it again:")
    console.print(Text(f"  {best.command}"), soft_wrap=True)


def show_cv(result: CvResult) -> None:
    """A fold a row, then the aggregates."""
    console = Console()
    table = Table(pad_edge=False)
    for name in ("fold", "epoch", "F1", "AUC", "precision", "recall", "pairs"):
        table.add_column(name, justify="right")
    for fold in result.folds:
        if fold.metrics:
            values = [f"{fold.metrics[name]:.3f}" for name in ("f1", "auc", "precision", "recall")]
            table.add_row(str(fold.fold), str(fold.selected_epoch), *values, str(len(fold.rows)))
        else:
            table.add_row(str(fold.fold), "-", fold.status, "", "", "", "")
    console.print(table)
    for name in ("mean_f1", "std_f1", "median_f1", "mean_auc", "macro_f1", "optimism_f1"):
        if f"cv_aggregate/{name}" in result.aggregates:
            console.print(f"{name:12s} {result.aggregates[f'cv_aggregate/{name}']:.4f}", highlight=False)


def show_features(entries: Sequence[StoreEntry]) -> None:
    """A key a row, the least recently used first."""
    console = Console()
    table = Table(box=None)
    table.padding, table.header_style = (0, 2, 0, 0), "underline"
    for name in ("key", "encoder", "texts", "tokens", "MiB", "last used"):
        table.add_column(name, overflow="fold", justify="right" if name in ("texts", "tokens", "MiB") else "left")
    for entry in entries:
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        encoder = f"{Path(entry.encoder).name} {entry.about.get('template', '')}"
        mib = f"{entry.size_bytes / 2**20:.1f}"
        table.add_row(entry.key[:12], encoder, str(entry.texts), str(entry.with_tokens), mib, used)
        table.add_row("", f"views: {', '.join(entry.views)}", "", "", "", "")
    console.print(table if entries else "the store is empty")


def short(metric: str) -> str:
    return metric.rsplit("/", 1)[-1]


def shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
