"""Whatever a sweep shows, ranks, registers or ends with comes from its journals, and is the same in every place."""

from __future__ import annotations

import os
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import JournalError
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.forecast.plan import plan_sweep
from gemma_nli.sweep.ray.trainable import CvTrial
from tests.sweep.conftest import spec_of
from tests.sweep.journal_agreement import check_agreement, interrupted

pytestmark = pytest.mark.usefixtures("local_ray")

RATES = {"training.learning_rate": {"loguniform": ["1e-4", "1e-1"]}}
POOLING = {"model.pooling_strategy": {"choice": ["mean", "cls"]}}
TWO = [{"metric": "cv_aggregate/mean_f1", "mode": "max"}, {"metric": "model/trained_parameters", "mode": "min"}]
OPTUNA = {"algorithm": "optuna", "sampler": "random", "seed": 1, "num_trials": 3}


ALGORITHMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grid": (
        {"space": {"training.learning_rate": {"grid": ["1e-3", "1e-2", "3e-3"]}}},
        {"space": {"training.learning_rate": {"grid": ["1e-3", "1e-2", "3e-3", "3e-2"]}}},
    ),
    "grid, confirmed": (
        {
            "space": {"training.learning_rate": {"grid": ["1e-3", "1e-2", "3e-3"]}},
            "finalize": {"export_limit_gib": 0, "confirm": {"seeds": 2, "fold_drawings": 1}},
        },
        {"space": {"training.learning_rate": {"grid": ["1e-3", "1e-2", "3e-3", "3e-2"]}}},
    ),
    "random": (
        {"space": RATES, "search": {"algorithm": "random", "num_trials": 3}},
        {"search": {"algorithm": "random", "num_trials": 4}},
    ),
    "optuna": ({"space": {**RATES, **POOLING}, "search": OPTUNA}, {"search": {**OPTUNA, "num_trials": 4}}),
    "optuna, several objectives": (
        {"space": {**RATES, **POOLING}, "search": {**OPTUNA, "objectives": TWO}},
        {"search": {**OPTUNA, "objectives": TWO, "num_trials": 4}},
    ),
    "optuna, compared": (
        {"compare": POOLING, "tune": RATES, "search": {**OPTUNA, "num_trials": 2}},
        {"search": {**OPTUNA, "num_trials": 3}},
    ),
}
LATER = [pytest.param(name, marks=pytest.mark.slow) for name in ALGORITHMS if name != "optuna"]


@pytest.mark.parametrize("algorithm", ["optuna", *LATER])
def test_every_place_says_the_same_of_a_sweep_interrupted_resumed_run_again_and_extended(sweep_tree, algorithm, capsys):
    changes, extension = ALGORITHMS[algorithm]
    tree = {**sweep_tree, **changes, "report": {"enabled": True}}
    if "compare" in tree:
        del tree["space"]
    spec = spec_of(tree)
    first = interrupted(spec)
    assert first.exit_status == 130
    assert 0 < first.waiting < first.cells == spec.total_trials
    check_agreement(spec, first, capsys)

    resumed = run_sweep(spec)
    assert (resumed.exit_status, resumed.waiting, resumed.trials["finished"]) == (0, 0, spec.total_trials)
    assert resumed.ran == spec.total_trials - first.trials["finished"]
    check_agreement(spec, resumed, capsys)

    again = run_sweep(spec)
    assert (again.exit_status, again.ran, again.trials) == (0, 0, resumed.trials)
    assert (again.best, again.best_run_id, again.pareto) == (resumed.best, resumed.best_run_id, resumed.pareto)
    assert again.registered == {**resumed.registered, "created": False}
    check_agreement(spec, again, capsys)

    longer = spec_of({**tree, **extension})
    extended = run_sweep(longer)
    assert (extended.exit_status, extended.trials["finished"]) == (0, longer.total_trials)
    assert extended.ran == longer.total_trials - spec.total_trials
    check_agreement(longer, extended, capsys)


def dying(when: str, **settings: Any) -> type[CvTrial]:
    """A trial whose process leaves without a word where its settings are these: at the top of its step or setup."""

    class Dying(CvTrial):
        def setup(self, config: dict[str, Any], context: Any) -> None:
            if when == "setup" and settings.items() <= config["settings"].items():
                os._exit(1)
            super().setup(config, context)

        def step(self) -> dict[str, Any]:
            if when == "step" and settings.items() <= self.config["settings"].items():
                os._exit(1)
            return super().step()

    return Dying


@pytest.mark.parametrize("when", ["step", pytest.param("setup", marks=pytest.mark.slow)])
def test_a_cell_whose_worker_dies_before_its_journal_begins_is_failed_with_its_reason(
    sweep_tree, monkeypatch, capsys, when
):
    sweep_tree["resources"]["max_failures"] = 1
    spec = spec_of(sweep_tree)
    doomed = {"model.pooling_strategy": "mean", "training.learning_rate": 1e-3}
    with monkeypatch.context() as patch:
        patch.setattr("gemma_nli.sweep.ray.tuner.CvTrial", dying(when, **doomed))
        result = run_sweep(spec)
    assert result.trials == {"finished": 3, "pruned": 0, "failed": 1}
    assert result.exit_status == 1
    assert [failure["trials"] for failure in result.failures] == [1]
    assert "died 2 times before the trial began" in result.failures[0]["error"]
    assert "actor" in result.failures[0]["error"] or "orker" in result.failures[0]["error"], "with what Ray says of it"
    assert result.failures[0]["settings"] == doomed
    check_agreement(spec, result, capsys)
    client = MlflowClient(spec.base.mlflow.tracking_uri)
    experiment = client.get_experiment_by_name("little")
    failed = client.search_runs(
        [experiment.experiment_id], "attributes.status = 'FAILED' and tags.`gemma_nli.kind` = 'trial'"
    )
    assert len(failed) == 1
    assert "died 2 times" in failed[0].data.tags["gemma_nli.error"]

    mended = run_sweep(spec)
    assert (mended.exit_status, mended.ran, mended.trials["finished"]) == (0, 1, 4)
    check_agreement(spec, mended, capsys)


@pytest.mark.parametrize("search", [{}, pytest.param({**OPTUNA, "num_trials": 2}, marks=pytest.mark.slow)])
def test_where_all_workers_die_the_sweep_says_so_once_with_the_count(sweep_tree, monkeypatch, capsys, search):
    sweep_tree["resources"]["max_failures"] = 0
    space = {**RATES} if search else {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}}
    spec = spec_of({**sweep_tree, "space": space}, search=search)
    monkeypatch.setattr("gemma_nli.sweep.ray.tuner.CvTrial", dying("step"))
    result = run_sweep(spec)
    assert (result.trials, result.exit_status) == ({"finished": 0, "pruned": 0, "failed": 2}, 1)
    assert [failure["trials"] for failure in result.failures] == [2]
    check_agreement(spec, result, capsys)


def test_a_trial_that_fails_before_it_can_write_so_is_failed_with_its_reason(sweep_tree, monkeypatch, capsys):
    class Refusing(CvTrial):
        def _step(self) -> dict[str, Any]:
            if self.config["settings"]["training.learning_rate"] == 1e-3:
                raise JournalError("http://ann:secret@store/x cannot be claimed")
            return super()._step()

    spec = spec_of({**sweep_tree, "space": {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}}})
    monkeypatch.setattr("gemma_nli.sweep.ray.tuner.CvTrial", Refusing)
    result = run_sweep(spec)
    assert (result.trials, result.exit_status) == ({"finished": 1, "pruned": 0, "failed": 1}, 1)
    assert "cannot be claimed" in result.failures[0]["error"]
    assert "secret" not in result.failures[0]["error"]
    check_agreement(spec, result, capsys)


@pytest.mark.parametrize(
    ("before", "after", "fit"),
    [
        ({**RATES, **POOLING}, {**RATES, "model.pooling_strategy": {"choice": ["mean", "cls", "max"]}}, 3),
        pytest.param(
            {**RATES, **POOLING},
            {**POOLING, "training.learning_rate": {"uniform": ["1e-4", "1e-1"]}},
            3,
            marks=pytest.mark.slow,
        ),
        pytest.param(RATES, {**RATES, "model.dropout": {"uniform": [0, 0.5]}}, 3, marks=pytest.mark.slow),
        pytest.param({**RATES, "model.dropout": {"choice": [0, 0.1]}}, RATES, None, marks=pytest.mark.slow),
    ],
    ids=["a choice gains a value", "log becomes uniform", "a setting is added", "a setting is taken away"],
)
def test_a_study_whose_space_changes_keeps_what_fits_and_the_plan_says_so(sweep_tree, capsys, before, after, fit):
    sweep_tree["base"]["model"]["dropout"] = 0.0
    search = {**OPTUNA, "num_trials": 3}
    first = run_sweep(spec_of(sweep_tree, space=before, search=search))
    assert first.exit_status == 0
    changed = spec_of(sweep_tree, space=after, search={**search, "num_trials": 5})
    if fit is None:
        fit = sum(trial.settings["model.dropout"] == 0 for trial in first.ranked)
    planned = plan_sweep(changed)
    assert (planned["done"], planned["to_run"]) == (fit, 5 - fit)
    assert planned["earlier"] == f"{fit} of 3 finished trials fit this space"
    result = run_sweep(changed)
    assert (result.exit_status, result.ran, result.trials["finished"]) == (0, 5 - fit, 5)
    assert [note for note in result.notes if f"{fit} of 3 finished trials fit" in note]
    check_agreement(changed, result, capsys)
    again = run_sweep(changed)
    assert (again.exit_status, again.ran, again.best) == (0, 0, result.best)
    assert not [note for note in again.notes if "fit" in note]


@pytest.mark.slow
def test_compared_values_keep_what_fits_when_what_is_tuned_for_them_changes(sweep_tree, capsys):
    del sweep_tree["space"]
    search = {**OPTUNA, "num_trials": 2}
    assert run_sweep(spec_of(sweep_tree, compare=POOLING, tune=RATES, search=search)).exit_status == 0
    wider = {"model.pooling_strategy": {"choice": ["mean", "cls", "max"]}}
    plain = {"training.learning_rate": {"uniform": ["1e-4", "1e-1"]}}
    changed = spec_of(sweep_tree, compare=wider, tune=plain, search=search)
    assert plan_sweep(changed)["done"] == 4
    result = run_sweep(changed)
    assert (result.exit_status, result.ran, result.trials["finished"]) == (0, 2, 6)
    check_agreement(changed, result, capsys)
