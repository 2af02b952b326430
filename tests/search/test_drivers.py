"""Two drivers on one study: each trial is one driver's, no configuration runs twice, and all of them count once."""

from __future__ import annotations

import threading
from datetime import timedelta

import optuna
from optuna.trial import TrialState

from gemma_nli.spec.space import config_identity
from tests.search.test_study import opened, spec, worth


def shared(folder, owner, **search):
    asked = spec(storage=f"sqlite:///{folder / 'shared.db'}", **search)
    return opened(folder, asked, owner=owner)


def test_two_drivers_at_once_run_what_was_asked_for_and_nothing_twice(tmp_path):
    ran: dict[str, list] = {"a": [], "b": []}  # of one seed: both samplers draw the same
    studies = {name: shared(tmp_path, name, num_trials=16, sampler="random") for name in ran}
    begin = threading.Barrier(2)

    def drive(name: str) -> None:
        begin.wait()
        while (proposal := studies[name].propose()) is not None:
            ran[name].append(config_identity(proposal.config))
            studies[name].finish(proposal.number, worth(proposal.settings))

    threads = [threading.Thread(target=drive, args=(name,)) for name in ran]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    every = ran["a"] + ran["b"]
    assert len(every) == len(set(every)) == 16
    assert ran["a"]
    assert ran["b"]
    trials = studies["a"].study.get_trials()
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) >= 16
    assert TrialState.RUNNING not in {trial.state for trial in trials}


def test_a_driver_takes_up_and_closes_only_its_own(tmp_path):
    first, second = shared(tmp_path, "a"), shared(tmp_path, "b")
    mine, theirs = first.propose(), second.propose()
    first.close()
    states = {trial.number: trial.state for trial in first.study.get_trials()}
    assert states[mine.number] == TrialState.FAIL
    assert states[theirs.number] == TrialState.RUNNING, "the other driver still runs it"

    left = second.propose()
    resumed = shared(tmp_path, "b")  # the second driver was killed and runs again
    offered = [resumed.propose() for _ in range(2)]
    assert {each.number for each in offered} == {theirs.number, left.number}


def test_what_another_driver_has_found_is_told_and_not_run_again(tmp_path):
    space = {"model.head": {"choice": ["linear", "mlp"]}}
    first, second = (
        opened(tmp_path, spec(space=space, num_trials=5, storage=f"sqlite:///{tmp_path / 'x.db'}"), owner=name)
        for name in "ab"
    )
    known = second.propose()  # opened before the first has found anything
    proposals = [first.propose()]
    first.finish(proposals[0].number, {"cv_aggregate/mean_f1": 0.5})
    second.finish(known.number, {"cv_aggregate/mean_f1": 0.6})
    assert known.settings != proposals[0].settings, "the one that runs elsewhere is passed over"
    assert first.propose() is None
    assert second.propose() is None
    kinds = [trial.user_attrs.get("kind", "asked") for trial in first.study.get_trials()]
    assert kinds.count("asked") == 2


def test_of_two_that_open_one_configuration_the_one_that_was_claimed_first_runs_it(tmp_path):
    """Optuna notes when a trial began before the others can see it: the later claim may have the earlier beginning."""
    a, b = (shared(tmp_path, name, num_trials=16) for name in "ab")
    settings = b.propose().settings
    first = b.study.get_trials()[0]
    late = optuna.trial.create_trial(state=TrialState.RUNNING, params=first.params, distributions=first.distributions)
    late.datetime_start = first.datetime_start - timedelta(seconds=1)
    a.study.add_trial(late)
    number = a.study.get_trials()[-1].number
    trial = optuna.Trial(a.study, a.study.get_trials()[-1]._trial_id)
    trial.set_user_attr("settings", settings)
    a.drivers.claim(trial)
    identity = a.identity(settings)
    assert b.drivers.same_elsewhere(first.number, identity) is None
    assert a.drivers.same_elsewhere(number, identity).number == first.number
