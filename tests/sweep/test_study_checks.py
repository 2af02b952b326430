"""What a study needs is looked at before anything is encoded, also by a plan."""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing

import optuna
import pytest

from gemma_nli.base.errors import EncoderError, SweepError
from gemma_nli.sweep.forecast.plan import plan_sweep
from tests.sweep.conftest import spec_of

SPACE = {"training.learning_rate": {"loguniform": ["1e-4", "1e-1"]}}
OPTUNA = {"algorithm": "optuna", "num_trials": 3}


def test_a_sampler_whose_package_is_missing_is_refused_by_the_plan(sweep_tree, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: found(name, *rest) if name != "cmaes" else None
    )
    with pytest.raises(SweepError, match="sampler cmaes needs a package"):
        plan_sweep(spec_of(sweep_tree, space=SPACE, search={**OPTUNA, "sampler": "cmaes"}))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "parse SQLAlchemy URL"),
        ("redis://a:s3cret@127.0.0.1/x", "Can't load plugin"),
        ("postgresql://a:s3cret@127.0.0.1:1/x", "refused"),
        ("sqlite:///{folder}/none/study.db", "no folder"),
        ("sqlite:///{folder}", "is a folder"),
        ("sqlite:///{folder}/notes.txt", "file is not a database"),
        ("sqlite:///{folder}/other.db", "another program's database"),
    ],
)
def test_a_database_that_no_study_can_live_in_is_refused_by_the_plan(sweep_tree, tmp_path, address, why):
    (tmp_path / "notes.txt").write_text("what I did on Monday, and why it took so long " * 20)
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.executescript("create table alembic_version (version_num text); create table people (name text);")
    search = {**OPTUNA, "storage": address.format(folder=tmp_path)}
    with pytest.raises(SweepError, match=why) as caught:
        plan_sweep(spec_of(sweep_tree, space=SPACE, search=search))
    assert "s3cret" not in str(caught.value)
    assert not (tmp_path / "storage").exists(), "before anything is written"


def test_a_studys_database_may_be_new_or_a_studys(sweep_tree, tmp_path):
    address = f"sqlite:///{tmp_path / 'study.db'}"
    for _ in range(2):
        assert plan_sweep(spec_of(sweep_tree, space=SPACE, search={**OPTUNA, "storage": address}))["to_run"] == 3
        optuna.create_study(storage=address)


@pytest.mark.parametrize(
    "space",
    [SPACE, {"model.max_length": {"choice": [64, 513]}}],
)
@pytest.mark.parametrize("search", [{}, {"algorithm": "random", "num_trials": 4}, OPTUNA])
def test_a_text_longer_than_the_encoders_positions_is_refused_by_the_plan(sweep_tree, space, search):
    if "model.max_length" not in space:
        sweep_tree["base"]["model"]["max_length"] = 513
    if not search:
        space = {key: {"grid": [1e-3] if key.startswith("training") else rule["choice"]} for key, rule in space.items()}
    with pytest.raises(EncoderError, match=r"max_length: 513 tokens, but .* has 512 positions"):
        plan_sweep(spec_of(sweep_tree, space=space, search=search))
