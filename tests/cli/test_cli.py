"""The command line: one clear message and exit status 2 for each mistake, before Ray starts and anything is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gemma_nli
from tests.commands import run_command

SWEEP = """
name: x
base: {data: {data_dir: DATA}, model: {name: ENCODER, max_length: 48}}
space: {model.pooling_strategy: {grid: [mean, cls]}}
"""


@pytest.fixture
def sweep_file(tmp_path: Path, tiny_bert: Path) -> Path:
    from gemma_nli.corpus.synthetic import write_synthetic

    write_synthetic(tmp_path / "data", num_posts=60, seed=3)
    path = tmp_path / "x.yaml"
    path.write_text(SWEEP.replace("DATA", str(tmp_path / "data")).replace("ENCODER", str(tiny_bert)))
    return path


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["training.bach_size=3"], "did you mean 'training.batch_size'"),
        (["training.num_epochs=0"], "must be greater than 0, got 0"),
        (["model.name=/no/such/folder"], "/no/such/folder"),
        (["data.data_dir=/no/such/data"], "redsm5_posts.csv"),
        (["space={model.pooling_strategy: {grid: [lats]}}"], "did you mean 'last'"),
        (["search.algorithm=optuna"], "grid"),
        (["metric=cv_aggregate/mean_f2"], "did you mean 'cv_aggregate/mean_f1'"),
        (["model.pooling_strategy=max"], "model.pooling_strategy"),
        (["nonsense"], "key=value"),
        (["storage=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(sweep_file, words, reported, capsys, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    assert run_command("sweep", str(sweep_file), *words) == 2
    error = capsys.readouterr().err
    assert reported in error
    assert "Traceback" not in error
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_missing_file_names_the_nearest(sweep_file, capsys):
    assert run_command("sweep", str(sweep_file.with_name("y.yaml"))) == 2
    assert "did you mean 'x.yaml'" in capsys.readouterr().err


def test_mistakes_are_told_before_ray_is_even_imported(sweep_file):
    code = (
        "import sys; from gemma_nli.cli import app; from gemma_nli.base.errors import GemmaNliError\n"
        "try: app(['sweep', sys.argv[1], 'training.num_epochs=0'])\n"
        "except GemmaNliError: sys.exit('ray.tune.tuner' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(sweep_file)], check=False).returncode == 0


def test_the_plan_says_what_would_run_and_writes_nothing(sweep_file, capsys, tmp_path):
    assert run_command("sweep", str(sweep_file), "--plan", "--json", f"storage={tmp_path / 'storage'}") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["cells"], plan["to_run"]) == (2, 2)
    assert plan["texts"]["to_encode"] > 0
    assert plan["memory_gib"]["total"] > 0
    assert not (tmp_path / "storage").exists()


def test_the_plan_states_the_question_the_compared_values_and_no_gpu_where_there_is_none(
    sweep_file, capsys, monkeypatch
):
    import torch
    import yaml

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tree = yaml.safe_load(sweep_file.read_text())
    tree.pop("space")
    tree |= {"question": "Does [b] pooling matter?", "compare": {"model.pooling_strategy": {"grid": ["mean", "max"]}}}
    tree |= {"tune": {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}}}
    sweep_file.write_text(yaml.safe_dump(tree))
    assert run_command("sweep", str(sweep_file), "--plan") == 0
    reported = " ".join(capsys.readouterr().out.split())
    assert "Does [b] pooling matter?" in reported
    assert "compared model.pooling_strategy: mean, max" in reported
    assert "tuned training.learning_rate: 0.001, 0.01" in reported
    assert "GPU memory" not in reported
    assert "no GPU" in reported
    assert "0 GiB" not in reported


def test_one_configuration_trains_without_ray(sweep_file, tiny_bert, capsys, tmp_path):
    settings = [f"data.data_dir={tmp_path / 'data'}", f"model.name={tiny_bert}", "model.max_length=48"]
    assert run_command("train", *settings, "data.num_folds=2", "training.num_epochs=2", "--json") == 0
    first = json.loads(capsys.readouterr().out)["metrics"]
    assert run_command("train", *settings, "data.num_folds=2", "training.num_epochs=2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == first
    assert "cv_aggregate/mean_f1" in first


@pytest.mark.parametrize("words", [["best", "--experiment", "nothing"], ["resume", "nothing"], ["flush", "nothing"]])
def test_asking_for_what_is_not_there_is_said_plainly(words, capsys):
    assert run_command(*words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_version_is_the_packages(capsys):
    assert run_command("--version") == 0
    assert gemma_nli.__version__ in capsys.readouterr().out
