"""The scheduler that a sweep file asks for judges trials by their journals, fold by fold, resumed ones included."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from gemma_nli.base.errors import SpecError
from gemma_nli.config import DataConfig, RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.search.rules import RULES, Decision, build_rule
from gemma_nli.search.rules.asha import Halving
from gemma_nli.search.rules.fold_racing import RaceTable
from gemma_nli.search.rules.median import Median
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.spec.sweep_sections import SCHEDULERS, SchedulerSettings
from gemma_nli.sweep.ray.scheduler import build_scheduler
from gemma_nli.training.metrics import fold_metrics
from gemma_nli.training.results import FoldResult
from gemma_nli.trial import TrialJournal, read_trial

FOLDS = 5


@pytest.fixture(scope="module")
def pairs():
    return build_pairs(synthetic_corpus(num_posts=120, seed=1), DataConfig())


def spec(kind, **scheduler):
    tree = {"name": "t", "space": {"model.head": {"grid": ["linear", "mlp"]}}}
    return SweepSpec.from_mapping({**tree, "scheduler": {"kind": kind, **scheduler}})


def fold_result(pairs, fold, quality, seed):
    rows = pairs.evaluation_rows(fold)
    labels = np.asarray(pairs.label_N[rows], dtype=np.int8)
    noise = np.random.default_rng([seed, fold]).standard_normal(len(rows))
    probabilities = (1 / (1 + np.exp(-(quality * (2.0 * labels - 1) + noise)))).astype(np.float32)
    history = {name: [0.5] for name in ("train_loss", "val_loss", "val_f1", "val_auc", "val_accuracy")}
    metrics = fold_metrics(probabilities, labels, 0.5)
    return FoldResult(fold, "finished", history, 1, 1, 0.5, rows, probabilities, labels, metrics)


def play(scheduler, storage, pairs, key, quality, seed, folds=FOLDS):
    """Journal and report a trial fold by fold; gives the folds it ran."""
    journal = TrialJournal(storage, key)
    journal.start(RunConfig(), pairs.fingerprint, "f" * 64, FOLDS)
    f1 = []
    for fold in range(1, folds + 1):
        result = fold_result(pairs, fold, quality, seed)
        journal.add_folds([result], keep_weights=False)
        f1.append(result.metrics["f1"])
        trial = SimpleNamespace(config={"key": key})
        reported = {"folds_done": fold, "mean_f1": float(np.mean(f1)), "failed": False}
        if scheduler.on_trial_result(None, trial, reported) == "STOP":
            return fold
    return folds


def test_the_kinds_are_exactly_the_rules_that_register_themselves_and_each_is_judged_by_its_own(tmp_path, pairs):
    assert set(SCHEDULERS) == set(RULES)
    for kind in SCHEDULERS:
        assert type(build_scheduler(spec(kind), tmp_path, pairs).rule) is RULES[kind]


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match=r"scheduler\.kind.*fold_racng.*did you mean.*fold_racing"):
        spec("fold_racng")


OTHER_VALUES = {
    "scheduler.grace_folds": 2,
    "scheduler.keep_last": 7,
    "scheduler.level": 0.2,
    "scheduler.reduction": 2.0,
    "scheduler.min_trials": 9,
    "search.seed": 5,
}


def test_each_setting_of_a_scheduler_reaches_every_rule_that_reads_it():
    for kind, part in SCHEDULERS.items():
        for name in {"scheduler.grace_folds", "scheduler.keep_last"} | part.reads:
            section, word = name.split(".")
            tree = {"name": "t", "space": {"model.head": {"grid": ["linear", "mlp"]}}, "scheduler": {"kind": kind}}
            tree[section] = {**tree.get(section, {}), word: OTHER_VALUES[name]}
            assert getattr(build_rule(SweepSpec.from_mapping(tree)), word) == OTHER_VALUES[name]


def test_every_setting_of_the_scheduler_is_read_by_a_rule():
    given = {"scheduler.kind", "scheduler.grace_folds", "scheduler.keep_last"}
    read = {name for part in SCHEDULERS.values() for name in part.reads}
    assert {f"scheduler.{name}" for name in SchedulerSettings.model_fields} - given <= read


def test_a_rule_that_says_it_reads_what_no_sweep_has_is_refused(monkeypatch):
    monkeypatch.setitem(RULES._reads, "asha", frozenset({"scheduler.reduktion"}))
    with pytest.raises(TypeError, match=r"asha says that it reads scheduler\.reduktion"):
        build_rule(spec("asha"))


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_rules_of_the_running_mean_read_no_journal(kind):
    def unread():
        raise AssertionError("a journal was read")

    rule = build_rule(spec(kind, keep_last=1, min_trials=1))
    for key, mean in (("a", 0.9), ("b", 0.8), ("c", 0.1)):
        for done in (1, FOLDS):
            rule.fold_ended(key, done, mean, unread)
    rule.fold_ended("d", 1, 0.05, unread)
    assert rule.decide("d").stop


def test_each_kind_builds_its_rule(tmp_path, pairs):
    assert build_scheduler(spec("none"), tmp_path, pairs) is None
    for kind, rule in (("asha", Halving), ("median", Median), ("fold_racing", RaceTable)):
        assert isinstance(build_scheduler(spec(kind, keep_last=2), tmp_path, pairs).rule, rule)
    race = build_scheduler(spec("fold_racing", level=0.2, keep_last=7, grace_folds=2), tmp_path, pairs).rule
    assert (race.level, race.keep_last, race.grace_folds, race.num_folds) == (0.2, 7, 2, FOLDS)


@pytest.mark.parametrize("kind", ["asha", "median", "fold_racing"])
def test_a_bad_trial_is_stopped_early_and_remembered_with_its_reason(tmp_path, pairs, kind):
    scheduler = build_scheduler(spec(kind, keep_last=1, min_trials=2), tmp_path, pairs)
    assert play(scheduler, tmp_path, pairs, "a" * 32, 1.5, seed=1) == FOLDS
    assert play(scheduler, tmp_path, pairs, "b" * 32, 1.6, seed=2) == FOLDS
    ran = play(scheduler, tmp_path, pairs, "c" * 32, 0.1, seed=3)
    assert ran < FOLDS
    assert list(scheduler.stopped) == ["c" * 32]
    assert scheduler.folds_stopped_at["c" * 32] == ran
    assert str(ran) in scheduler.stopped["c" * 32].reason


@pytest.mark.parametrize("kind", ["median", "fold_racing"])
def test_a_resumed_sweep_has_its_leader_at_once(tmp_path, pairs, kind):
    before = build_scheduler(spec(kind, keep_last=1, min_trials=1), tmp_path, pairs)
    play(before, tmp_path, pairs, "a" * 32, 1.5, seed=1)
    records = [read_trial(tmp_path, "a" * 32)]
    resumed = build_scheduler(spec(kind, keep_last=1, min_trials=1), tmp_path, pairs, records)
    assert play(resumed, tmp_path, pairs, "c" * 32, 0.1, seed=3) == 1


def test_failed_results_and_whole_trials_are_never_stopped(tmp_path, pairs):
    scheduler = build_scheduler(spec("asha", keep_last=1), tmp_path, pairs)
    trial = SimpleNamespace(config={"key": "x"})
    nothing = {"folds_done": 0, "mean_f1": float("nan"), "failed": True}
    assert scheduler.on_trial_result(None, trial, nothing) == "CONTINUE"
    for key, mean in (("a", 0.9), ("b", 0.1)):
        at_once = {"folds_done": FOLDS, "mean_f1": mean, "failed": False}
        assert scheduler.on_trial_result(None, SimpleNamespace(config={"key": key}), at_once) == "CONTINUE"
    scheduler.rule.decide = lambda key: Decision(True, 0.0, 0.1, "always")
    assert scheduler.on_trial_result(None, trial, at_once) == "CONTINUE"
    assert scheduler.on_trial_result(None, trial, {**at_once, "folds_done": 2}) == "STOP"


def test_racing_takes_a_post_and_its_copies_for_one(tmp_path, pairs):
    """Where every two posts are copies, the race is decided as one over half as many posts would be."""
    copied = dataclasses.replace(pairs, group_P=(pairs.group_P // 2 * 2).astype(np.int32))
    scheduler = build_scheduler(spec("fold_racing", keep_last=1), tmp_path, copied)
    play(scheduler, tmp_path, copied, "a" * 32, 1.5, seed=1)
    play(scheduler, tmp_path, copied, "c" * 32, 1.2, seed=3, folds=2)
    by_group, by_post = (RaceTable(FOLDS, keep_last=1, seed=42) for _ in range(2))
    for key, quality, seed, folds in (("a" * 32, 1.5, 1, FOLDS), ("c" * 32, 1.2, 3, 2)):
        for fold in range(1, folds + 1):
            found = fold_result(copied, fold, quality, seed)
            measured = (found.rows, found.probabilities, found.labels)
            by_group.record(key, fold, *measured, copied.group_N[found.rows], 0.5)
            by_post.record(key, fold, *measured, copied.post_N[found.rows], 0.5)
    judged = scheduler.rule.decide("c" * 32)
    assert judged == by_group.decide("c" * 32)
    assert judged.probability != by_post.decide("c" * 32).probability
