"""Searchers and schedulers under a real Ray: each cell once, and what is stopped is told as stopped."""

import json
import sys

import pytest
import ray
from ray import tune

from gemma_nli.search.rules import Decision
from gemma_nli.search.study import SweepStudy, study_url
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.ray.scheduler import FoldScheduler
from gemma_nli.sweep.ray.searchers import CellSearcher, StudySearcher, metrics_of
from tests.growth import growth

TREE = {
    "name": "t",
    "space": {"training.learning_rate": {"loguniform": [1e-5, 1e-2]}, "model.head": {"choice": ["linear", "mlp"]}},
    "search": {"algorithm": "optuna", "num_trials": 7},
}
FOLDS = 3
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import tests


class Folds(tune.Trainable):
    """Stands in for a cross-validation: a fold a step; rates above 0.003 fail, mlp heads are worse."""

    def step(self):
        settings = self.config["settings"]
        if settings.get("training.learning_rate", 0) > 3e-3:
            return {"folds_done": 0, "mean_f1": float("nan"), "aggregates": (), "failed": True, "done": True}
        mean = 0.5 if settings.get("model.head") == "mlp" else 0.8
        done = self.iteration + 1
        return {
            "folds_done": done,
            "mean_f1": mean,
            "aggregates": (("cv_aggregate/mean_f1", mean),),
            "failed": False,
            "done": done == FOLDS,
        }

    def reset_config(self, new_config):
        return True


class StopsBad:
    """A rule that stops any trial below 0.6 after its first fold."""

    def __init__(self):
        self.means = {}

    def fold_ended(self, key, folds_done, mean_f1, folds):
        self.means[key] = mean_f1

    def decide(self, key):
        return Decision(self.means[key] < 0.6, 0.0, self.means[key], "below 0.6")


def fit(searcher, folder, scheduler=None):
    tuner = tune.Tuner(
        tune.with_resources(Folds, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=searcher.limit,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="t",
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    results = tuner.fit()
    assert not results.errors
    return results


def test_ray_runs_each_cell_once_and_ends(local_ray, tmp_path):
    configs = [{"key": f"k{i}", "settings": {"model.head": "linear", "model.pooling_k": i}} for i in range(5)]
    results = fit(CellSearcher(configs), tmp_path)
    assert sorted((r.config["key"], r.config["settings"]["model.pooling_k"]) for r in results) == [
        (f"k{i}", i) for i in range(5)
    ]
    assert {r.metrics["folds_done"] for r in results} == {FOLDS}


def test_ray_and_optuna_agree_on_how_each_trial_ended_and_ray_stores_no_secret(local_ray, tmp_path):
    spec = SweepSpec.from_mapping(TREE)
    scheduler = FoldScheduler(StopsBad(), FOLDS, tmp_path, None)
    study = SweepStudy(spec, "t", study_url(spec, tmp_path))

    def stopped(key):
        return scheduler.stopped[key].reason if key in scheduler.stopped else None

    searcher = StudySearcher(study, FOLDS, lambda p: {"key": f"k{p.number}", "settings": p.settings}, stopped)
    study.secret = "s3cret-in-memory"
    results = fit(searcher, tmp_path, scheduler)
    assert all(b"s3cret-in-memory" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    trials = study.study.get_trials()
    assert len(results) == len(trials) == 7
    for trial in trials:
        settings = trial.user_attrs["settings"]
        expected = (
            "FAIL"
            if settings["training.learning_rate"] > 3e-3
            else ("PRUNED" if settings["model.head"] == "mlp" else "COMPLETE")
        )
        assert trial.state.name == expected
        means = {"FAIL": {}, "PRUNED": {1: 0.5}, "COMPLETE": {1: 0.8, 2: 0.8, 3: 0.8}}
        assert trial.intermediate_values == means[expected]
    assert {t.state.name for t in trials} == {"FAIL", "PRUNED", "COMPLETE"}


def test_a_stopped_searcher_starts_nothing_more(tmp_path):
    cells = CellSearcher([{"settings": {}}] * 3)
    assert cells.suggest("a") == {"settings": {}}
    cells.stop()
    assert cells.suggest("b") == "FINISHED"
    spec = SweepSpec.from_mapping(TREE)
    searcher = StudySearcher(SweepStudy(spec, "t", study_url(spec, tmp_path)), FOLDS)
    searcher.suggest("a")
    searcher.stop()
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", None)
    assert searcher.suggest("c") == "FINISHED"
    assert [t.state.name for t in searcher.study.study.trials] == ["FAIL"]


def test_a_trial_cut_off_by_the_end_of_the_sweep_is_run_again_not_pruned(tmp_path):
    spec = SweepSpec.from_mapping(TREE)
    searcher = StudySearcher(SweepStudy(spec, "t", study_url(spec, tmp_path)), FOLDS)
    first = searcher.suggest("a")
    searcher.on_trial_complete("a", {"folds_done": 2, "mean_f1": 0.7, "done": True})
    again = StudySearcher(SweepStudy(spec, "t", study_url(spec, tmp_path)), FOLDS)
    assert again.suggest("b") == first


@pytest.mark.parametrize("folds_done", [0, 1, FOLDS])
@pytest.mark.parametrize("stopped", [None, "the scheduler says so"])
@pytest.mark.parametrize(("failed", "error"), [(True, False), (False, True), (True, True)])
def test_a_trial_that_failed_is_told_as_failed_whatever_it_had_reached_or_a_scheduler_said(
    tmp_path, folds_done, stopped, failed, error
):
    spec = SweepSpec.from_mapping(TREE)
    study = SweepStudy(spec, "t", study_url(spec, tmp_path))
    searcher = StudySearcher(study, FOLDS, stopped=lambda key: stopped)
    searcher.suggest("a")
    numbers = {"folds_done": folds_done, "mean_f1": 0.7, "aggregates": (("cv_aggregate/mean_f1", 0.7),)}
    searcher.on_trial_complete("a", {**numbers, "failed": failed, "done": True}, error=error)
    (trial,) = study.study.get_trials()
    assert (trial.state.name, trial.values, trial.user_attrs["reason"]) == ("FAIL", None, "failed")
    assert study.counted == 1


def test_a_closed_searcher_leaves_nothing_running(tmp_path):
    spec = SweepSpec.from_mapping(TREE)
    searcher = StudySearcher(SweepStudy(spec, "t", study_url(spec, tmp_path)), FOLDS)
    first = [searcher.suggest(name) for name in ("a", "b")]
    searcher.close()
    assert [t.state.name for t in searcher.study.study.trials] == ["FAIL", "FAIL"]
    again = StudySearcher(SweepStudy(spec, "t", study_url(spec, tmp_path)), FOLDS)
    assert [again.suggest(name) for name in ("c", "d")] == first


def test_the_state_ray_asks_for_is_json_not_pickle(tmp_path):
    cells = CellSearcher([{"settings": {}}] * 3)
    cells.suggest("a")
    cells.save(str(tmp_path / "state"))
    assert json.loads((tmp_path / "state").read_text()) == {"given": 1}
    fresh = CellSearcher([{"settings": {}}] * 3)
    fresh.restore(str(tmp_path / "state"))
    assert fresh.given == 1


def test_metrics_are_read_from_the_pairs_of_a_result():
    wanted = {"cv_aggregate/mean_f1": 0.5, "model/trained_parameters": 9.0}
    assert metrics_of({"aggregates": tuple(wanted.items()), "folds_done": 3}) == wanted


def test_asking_for_cells_takes_time_by_their_number():
    def ask(count):
        cells = CellSearcher([{"key": str(i), "settings": {"model.pooling_k": i}} for i in range(count)])
        assert sum(cells.suggest(str(i)) != "FINISHED" for i in range(count + 1)) == count

    assert growth(ask, 2_000, 16_000) < 8 * 2.5
