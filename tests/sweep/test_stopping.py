"""After the first Ctrl-C nothing begins, however many trials wait in the queue; the rest runs later."""

from __future__ import annotations

import pytest

from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from tests.sweep.conftest import spec_of

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.mark.slow
def test_trials_that_wait_in_the_queue_do_not_begin(sweep_tree):
    sweep_tree["space"]["training.seed"] = {"grid": [1, 2, 3]}
    spec = spec_of(sweep_tree, resources={"max_concurrent": 12})  # all twelve are in Ray's queue at once
    folder = SweepFolder(prepare(spec).folder)

    def stop_at_the_first_end(progress: ProgressState) -> None:
        progress.observers.append(lambda: folder.ask_to_stop() if progress.count("finished") == 1 else None)

    first = run_sweep(spec, watch=stop_at_the_first_end)
    assert 1 <= first.trials["finished"] <= 3
    assert first.trials["failed"] == 0
    again = run_sweep(spec)
    assert again.trials["finished"] == 12
    assert again.ran == 12 - first.trials["finished"]
