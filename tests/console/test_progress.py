"""In a job's log, progress is lines: whole, few, and with where to look."""

from __future__ import annotations

import io
import time

from rich.console import Console

from gemma_nli.console.sweep_progress import Progress
from gemma_nli.sweep.records.progress_state import ProgressState


def lines_of(work, first_seconds=60.0) -> list[str]:
    out = io.StringIO()
    state = ProgressState("cv_aggregate/mean_f1", "max", 3, "at 1 matched negative per positive")
    with Progress(console=Console(file=out, width=80), first_seconds=first_seconds) as progress:
        progress.watch(state)
        work(state)
    return out.getvalue().splitlines()


def finish(state: ProgressState, key: str, f1: float) -> None:
    state.add(key, {"model.pooling_strategy": "mean", "training.learning_rate": 0.001})
    state.update(key, "finished", {"cv_aggregate/mean_f1": f1})


def test_a_line_a_phase_and_a_link_once_each_and_no_redraw():
    def work(state):
        state.link("MLflow run", "http://127.0.0.1:5000/#/experiments/1/runs/abc")
        state.link("Ray dashboard", None)
        state.enter("encoding")
        state.enter("tuning")
        for number in range(50):
            finish(state, str(number % 3), 0.5)
        state.enter("recording")

    reported = lines_of(work)
    assert [line.split(" ", 1)[1].split(":")[0] for line in reported] == [
        "MLflow run",
        "opening the sweep",
        "encoding each text once",
        "running trials",
        "bringing MLflow up to date",
    ]
    assert reported[0].endswith("/runs/abc")
    assert not any("\x1b" in line or "\r" in line for line in reported)


def test_a_quiet_phase_is_told_of_at_growing_intervals_with_the_best_so_far():
    def work(state):
        state.enter("tuning")
        finish(state, "a", 0.61)
        finish(state, "b", 0.72)
        time.sleep(1.0)

    reported = [line for line in lines_of(work, first_seconds=0.1) if "best" in line]
    assert 2 <= len(reported) <= 6  # at 0.1, 0.25, 0.48, 0.8 s: fewer than every 0.1 s
    assert "2 of 3 trials" in reported[0]
    assert (
        "best mean_f1 0.720 at 1 matched negative per positive (pooling_strategy mean, learning_rate 0.001)"
        in reported[0]
    )
    assert "left" in reported[0]


def test_nothing_is_printed_where_json_is_asked_for():
    out = io.StringIO()
    state = ProgressState("cv_aggregate/mean_f1", "max", 3, "at 1 matched negative per positive")
    with Progress(enabled=False, console=Console(file=out)) as progress:
        progress.watch(state)
        state.enter("tuning")
    assert out.getvalue() == ""


def test_the_encoding_of_this_process_is_told_in_texts():
    def work(state):
        state.enter("encoding")
        state.encoded(1200, 5168)
        time.sleep(0.6)

    assert any(line.endswith("encoding each text once: 1,200 of 5,168 texts") for line in lines_of(work, 0.1))
