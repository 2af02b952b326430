"""The leaders trained again on fresh folds with fresh training seeds, each drawing the same for all of them."""

from __future__ import annotations

import pytest

from gemma_nli.base.errors import SpecError
from gemma_nli.console.command_results import show_plan
from gemma_nli.spec.spec import load_stored_sweep
from gemma_nli.sweep.build_searcher import _given
from gemma_nli.sweep.confirm_leaders import confirmed, confirming_rounds, leaders_of
from gemma_nli.sweep.forecast.confirm_cost import confirm_cost, most_values
from gemma_nli.sweep.forecast.measure import TrialCost, cost_class
from gemma_nli.sweep.forecast.plan import plan_sweep
from gemma_nli.sweep.prepare import is_confirming, prepare
from tests.sweep.conftest import spec_of

CONFIRM = {"confirm": {"seeds": 2, "fold_drawings": 3}}


@pytest.fixture
def ready(sweep_tree):
    return prepare(spec_of(sweep_tree, finalize=CONFIRM))


def two_of(ready):
    return list(ready.cells.values())[:2]


def test_each_drawing_holds_the_leaders_and_no_other_on_folds_of_its_own(ready):
    rounds, leaders = confirming_rounds(ready, two_of(ready)), two_of(ready)
    assert len(rounds) == 3
    assert len({each.pairs.fingerprint for each in [ready, *rounds]}) == 4
    for each in rounds:
        assert len(each.cells) == 4
        for cell, leader in zip(each.cells.values(), [leader for leader in leaders for _ in range(2)], strict=True):
            assert {key: cell.settings[key] for key in leader.settings} == leader.settings
            assert is_confirming(cell.settings)
            assert cell.config.data.fold_seed == each.pairs.fold_seed
        assert each.spec.scheduler.kind == "none"
        assert each.spec.search.time_budget is None


def test_no_confirming_trial_has_its_leaders_training_seed_or_another_drawings(ready):
    seeds = [
        {cell.config.training.seed for cell in each.cells.values()} for each in confirming_rounds(ready, two_of(ready))
    ]
    assert all(len(found) == 2 for found in seeds), "as many fresh seeds as asked for, the same for all leaders"
    assert len(set.union(*seeds)) == 6
    assert ready.spec.base.training.seed not in set.union(*seeds)


def test_a_wider_confirmation_keeps_the_trainings_that_are_done(ready, sweep_tree):
    wider = prepare(spec_of(sweep_tree, finalize={"confirm": {"seeds": 3, "fold_drawings": 4}}))
    before, after = (
        {key for each in confirming_rounds(some, two_of(some)) for key in each.cells} for some in (ready, wider)
    )
    assert before < after


def test_seeds_of_a_frozen_configuration_are_given_to_ray_as_one_trial(ready, sweep_tree):
    (first, *_) = confirming_rounds(ready, two_of(ready))
    given = _given(first)
    assert [len(each["beside"]) for each in given] == [1, 1]
    assert {cell["key"] for each in given for cell in (each, *each["beside"])} == set(first.cells)
    assert all("beside" not in each for each in _given(ready)), "the sweep's own trials train each for itself"
    sweep_tree["base"]["model"]["freeze_encoder"] = False
    trained = prepare(spec_of(sweep_tree, finalize=CONFIRM))
    assert all("beside" not in each for each in _given(confirming_rounds(trained, two_of(trained))[0]))


def test_their_keys_are_their_own_and_they_wait_until_they_run(ready):
    rounds = confirming_rounds(ready, two_of(ready))
    keys = [key for each in rounds for key in each.cells]
    assert len({*keys, *ready.cells}) == 12 + 4
    outcome = confirmed(rounds)
    assert (outcome.waiting, sum(outcome.counts.values())) == (12, 0)


def test_none_is_asked_for_without_the_setting_or_a_finished_trial(ready, sweep_tree):
    assert leaders_of(ready) == []
    assert confirming_rounds(ready, []) == []
    plain = prepare(spec_of(sweep_tree))
    assert confirming_rounds(plain, two_of(plain)) == []


@pytest.mark.parametrize(
    ("confirm", "says"),
    [
        ({"top": 3, "repeats": 4}, "repeats and top ran the best few trials again"),
        ({"repeats": 4}, "write {seeds: 3, fold_drawings: 2}"),
        ({"seeds": 1, "fold_drawings": 1}, "are one training"),
    ],
)
def test_what_confirms_nothing_is_refused_before_anything_runs(sweep_tree, confirm, says):
    with pytest.raises(SpecError, match=says.replace("{", r"\{")):
        spec_of(sweep_tree, finalize={"confirm": confirm})


def test_a_stored_sweep_that_ran_its_leaders_again_is_still_read(ready, tmp_path):
    """Each repeat had a drawing and a training seed, the same ones as now with one seed per drawing."""
    stored = tmp_path / "spec.yaml"
    text = ready.spec.to_yaml(masked=False)
    assert "seeds: 2" in text
    stored.write_text(text.replace("seeds: 2", "top: 3").replace("fold_drawings: 3", "repeats: 4"))
    spec = load_stored_sweep(stored)
    assert spec.finalize.confirm is not None
    assert (spec.finalize.confirm.seeds, spec.finalize.confirm.fold_drawings) == (1, 4)
    rounds = confirming_rounds(prepare(spec), two_of(ready))
    drawn = [
        {(cell.config.data.fold_seed, cell.config.training.seed) for cell in each.cells.values()} for each in rounds
    ]
    assert drawn == [{(42 + 1000 * repeat, 42 + repeat)} for repeat in range(1, 5)]


@pytest.mark.parametrize(
    ("space", "values", "exact"),
    [
        ({"compare": {"model.pooling_strategy": {"grid": ["mean", "cls"]}, "model.head": {"grid": ["linear", "mlp"]}},
          "tune": {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}}}, 4, True),
        ({"space": {"model.pooling_strategy": {"grid": ["mean", "cls", "max"]}}}, 3, True),
        ({"space": {"model.pooling_strategy": {"grid": ["mean", "cls", "max"]}, "model.dropout": {"grid": [0, 0.1]}}},
         3, False),
        ({"space": {"training.learning_rate": {"loguniform": ["1e-4", "1e-2"]}},
          "search": {"algorithm": "random", "num_trials": 9}}, 4, False),
    ],
)  # fmt: skip
def test_a_plan_counts_the_trainings_that_will_confirm(sweep_tree, capsys, space, values, exact):
    del sweep_tree["space"]
    planned = plan_sweep(spec_of({**sweep_tree, **space}, finalize=CONFIRM))
    assert planned["confirm"] == {
        "values": values, "exact": exact, "seeds": 2, "fold_drawings": 3, "trainings": 6 * values, "done": 0
    }  # fmt: skip
    show_plan(planned)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{'' if exact else 'up to '}{6 * values} trainings (0 done)" in shown
    assert "2 seeds on each of 3 fold drawings" in shown


def test_a_plan_without_confirmation_says_nothing_of_it(sweep_tree, capsys):
    planned = plan_sweep(spec_of(sweep_tree))
    assert planned["confirm"] is None
    show_plan(planned)
    assert "fold drawings" not in capsys.readouterr().out


def test_the_cost_of_confirming_is_that_of_each_values_trainings_and_of_the_new_pairs_texts(ready):
    configs = [cell.config for cell in ready.cells.values()]
    costs = {cost_class(config): TrialCost(fixed=1.0, per_epoch=0.5) for config in configs}
    found = confirm_cost(ready, configs, costs, encoding=10.0)
    one = 1.0 + 0.5 * configs[0].training.num_epochs
    assert [len(each) for each in found.trials] == [most_values(ready.spec)[0]] * 3
    assert found.work == pytest.approx(3 * 2 * one * most_values(ready.spec)[0])
    assert 0 < found.encode < 30.0, "each drawing has negatives of its own, and the sweep's positives"
