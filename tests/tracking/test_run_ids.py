"""A run by the beginning of its id, and lists that say what they leave out."""

from __future__ import annotations

import json

import pytest

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig, RunConfig
from gemma_nli.tracking.read.frames import compare_runs, list_runs, metric_history
from gemma_nli.tracking.read.recorded import recorded_run
from gemma_nli.tracking.write.artifacts.config_yaml import config_yaml
from gemma_nli.tracking.write.projection import MetricPoint
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.commands import run_command
from tests.tracking.conftest import a_sweep, a_trial


def points(f1: float) -> list[MetricPoint]:
    made = [MetricPoint("cv_aggregate/mean_f1", f1, 0, 1), MetricPoint("cv_aggregate/mean_auc", f1, 0, 1)]
    made += [MetricPoint(f"cv_summary/fold_{k}_selected_f1", f1, 0, 1) for k in (1, 2)]
    return made + [MetricPoint(f"criterion/c{number}_f1", f1, 0, 1) for number in range(30)]


@pytest.fixture
def runs(sqlite_uri: str) -> list[str]:
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "ids")
    config = {"config.yaml": config_yaml(RunConfig()).encode()}
    parent = tracker.sweep_run(a_sweep())
    return [
        tracker.sync_trial(parent, a_trial(f"k{number}", metrics=points(0.5 + number / 10), artifacts=config))
        for number in range(3)
    ]


def test_the_first_characters_of_an_id_do_wherever_a_run_is_asked_for(runs, sqlite_uri, capsys):
    one, two, _ = (run[:8] for run in runs)
    assert list(compare_runs([one, two.upper()], sqlite_uri).runs.columns) == runs[:2]
    assert recorded_run(one, sqlite_uri).run_id == runs[0]
    assert metric_history(one, "cv_aggregate/mean_f1", sqlite_uri)["value"].tolist() == [0.5]
    assert run_command("compare", one, two, "--tracking-uri", sqlite_uri, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["runs"]) == runs[:2]
    with pytest.raises(TrackingError, match="name at least two runs"):
        compare_runs([one, runs[0]], sqlite_uri)


def test_a_beginning_that_several_runs_share_is_refused_with_their_ids(runs, sqlite_uri):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "ids")
    seen = {run[0] for run in runs}
    made = list(runs)
    while True:  # until two ids begin with the same character
        made.append(tracker.client.create_run(tracker.experiment_id).info.run_id)
        if made[-1][0] in seen:
            break
        seen.add(made[-1][0])
    shared = made[-1][0]
    with pytest.raises(TrackingError, match="more than one run begins with") as caught:
        recorded_run(shared, sqlite_uri)
    assert all(run in str(caught.value) for run in made if run.startswith(shared))


@pytest.mark.parametrize("unknown", ["0" * 32, "zzz", "", "%", "a' OR '1'='1", "0123456789abcdef"])
def test_an_unknown_run_is_told_with_the_line_that_lists_them(unknown, runs, sqlite_uri):
    with pytest.raises(TrackingError, match=r"no run '.*'; list them with: \S*gemma-nli runs"):
        recorded_run(unknown, sqlite_uri)


def test_a_list_that_was_cut_says_so_in_every_form(runs, sqlite_uri, capsys):
    assert run_command("runs", "--limit", "2", "--tracking-uri", sqlite_uri) == 0
    assert "2 of 3 shown; --all" in capsys.readouterr().out
    for form in ("--json", "--csv"):
        assert run_command("runs", "--limit", "2", form, "--tracking-uri", sqlite_uri) == 0
        reported = capsys.readouterr()
        assert "2 of 3 shown" in reported.err
        assert "shown" not in reported.out
    for words in (["--all", "--limit", "2"], []):
        assert run_command("runs", *words, "--tracking-uri", sqlite_uri) == 0
        assert "shown" not in capsys.readouterr().out
    assert len(list_runs(tracking_uri=sqlite_uri, limit=1)) == 1


def test_a_comparison_shows_what_one_looks_at_first_and_the_rest_when_asked(runs, sqlite_uri, capsys):
    words = ["compare", runs[0][:8], runs[1][:8], "--tracking-uri", sqlite_uri]
    assert run_command(*words) == 0
    reported = capsys.readouterr().out
    assert reported.index("cv_aggregate/mean_f1") < reported.index("fold F1")
    assert "criterion/c7_f1" not in reported
    assert "30 more metrics: --all" in reported
    assert run_command(*words, "--all") == 0
    assert "criterion/c7_f1" in capsys.readouterr().out


def test_a_train_of_a_sweeps_configuration_is_marked_as_its_twin(runs, sqlite_uri, capsys):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "ids")
    tracker.sync_trial(None, a_trial("k1", metrics=points(0.6)))
    assert run_command("runs", "--tracking-uri", sqlite_uri) == 0
    reported = " ".join(capsys.readouterr().out.split())
    assert f"={runs[1][:8]} " in reported
    assert sorted(list_runs(tracking_uri=sqlite_uri)["by"]) == ["sweep", "sweep", "sweep", "train"]


def test_a_run_takes_the_name_that_its_user_gives(sqlite_uri):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "ids")
    run_id = tracker.sync_trial(None, a_trial("k1"))
    import dataclasses

    again = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "ids")
    assert again.sync_trial(None, dataclasses.replace(a_trial("k1"), run_name="my best", named=True)) == run_id
    assert again.client.get_run(run_id).info.run_name == "my best"
