"""Posts and passwords stay where they were, nothing is unpickled, and no name becomes a path."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import gemma_nli
from benchmarks.chaos.stage import Server, Stage, build_source, warm_process
from gemma_nli.base.errors import ConfigError, GemmaNliError, SpecError, SweepError
from gemma_nli.base.private_texts import without_posts
from gemma_nli.config import RunConfig, load_config
from gemma_nli.corpus.redsm5 import Annotation, Corpus, load_corpus, write_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.spec.spec import SweepSpec, load_sweep
from gemma_nli.sweep.resume import stored_spec
from gemma_nli.trial import TrialJournal
from tests.base.planted import plant

CANARY = "the violet pangolin whispered about lighthouse marmalade at dawn"
SECRET = "hunter2-Qx9vLm"
TRAPPED = "/tmp/gemma_nli_was_tricked"
PACKAGE = Path(gemma_nli.__file__).parent


def canary_corpus(folder: Path) -> Corpus:
    """Every post, sentence and explanation says the canary."""
    made = synthetic_corpus(num_posts=60, seed=5)
    posts = {post: f"{text} {CANARY}." for post, text in made.posts.items()}
    reported = tuple(
        Annotation(a.post_id, a.sentence_id, f"{a.sentence_text} {CANARY}", a.criterion_id, a.status, CANARY)
        for a in made.annotations
    )
    corpus = Corpus(posts, made.criteria, reported)
    write_corpus(corpus, folder)
    return corpus


def canary_sweep(folder: Path, encoder: Path, port: int, **data: Any) -> Path:
    """Four cells of a corpus that says the canary, and a password in the tracking URI."""
    canary_corpus(folder / "data")
    tree = {
        "name": "private",
        "base": {
            "data": {"data_dir": str(folder / "data"), "num_folds": 3, **data},
            "model": {"name": str(encoder), "max_length": 48},
            "training": {"num_epochs": 3, "batch_size": 32},
            "device": {"device": "cpu"},
            "mlflow": {"tracking_uri": f"http://me:{SECRET}@127.0.0.1:{port}"},
            "output": {"experiment_name": "private"},
        },
        "space": {
            "model.pooling_strategy": {"grid": ["mean", "cls"]},
            "training.learning_rate": {"grid": ["1e-3", "1e-2"]},
        },
        "storage": str(folder / "storage"),
    }
    file = folder.parent / f"{folder.name}.yaml"  # the user's own file may hold what it holds
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's own temporary folder; a short name, since sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="ray_"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def driver(folder: Path, file: Path, ray_folder: Path, crash: bool = True) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own; with `crash`, one trial fails and quotes a post in its exception."""
    words = ["gemma-nli", "--verbose", "sweep", str(file)]
    code = f"import sys; from gemma_nli.cli import main\nsys.argv = {words}\nmain()"
    env = {**os.environ, "GEMMA_NLI_HOME": str(folder / "home"), "PYTHONPATH": str(PACKAGE.parent)}
    env |= {"RAY_TMPDIR": str(ray_folder)}
    if crash:
        site = folder.parent / "site"
        plant(site, "gemma_nli.training.cross_validation", QUOTING)
        env["PYTHONPATH"] = f"{site}:{env['PYTHONPATH']}"
    return subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, timeout=280, check=False
    )


QUOTING = f"""
# Breaks the `cls` pooling of every process of the sweep with an exception that quotes a post, as a library's might.
whole = module.run_folds
def run_folds(config, corpus, *rest, **named):
    if config.model.pooling_strategy == "cls":
        post = next(iter(corpus.posts.values()))
        raise ValueError("cannot tokenize " + repr(post) + " at sqlite://me:{SECRET}@host/x")
    return whole(config, corpus, *rest, **named)
module.run_folds = run_folds
"""


def holders(folder: Path, words: str, beside: tuple[Path, ...] = ()) -> list[Path]:
    """Files below the folder whose bytes hold the words, in UTF-8 or UTF-16, files of `beside` left out."""
    wanted = [words.encode(), words.encode("utf-16-le"), words.replace(" ", "\\\\u0020").encode()]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not any(path.is_relative_to(other) for other in beside):
            data = path.read_bytes()
            found += [path] * any(each in data for each in wanted)
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A real MLflow server; its store and log are searched too."""
    started = Server(tmp_path / "private" / "mlflow")
    started.start()
    yield started
    started.kill()


def test_no_byte_that_a_sweep_writes_holds_a_post_or_a_password(
    tmp_path: Path, tiny_bert: Path, server: Server, ray_folder: Path
) -> None:
    folder = tmp_path / "private"
    file = canary_sweep(folder, tiny_bert, server.port)
    ended = driver(folder, file, ray_folder)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said.decode()[-3000:]
    for words in ("violet pangolin", "lighthouse marmalade", SECRET):
        assert words.encode() not in said, words
        assert holders(folder, words, beside=(folder / "data",)) == [], words
    runs = sqlite3.connect(folder / "mlflow" / "mlflow.db")
    kinds = (
        "select status from runs join tags using (run_uuid) where lifecycle_stage = 'active' and key = ? and value = ?"
    )
    statuses = [row[0] for row in runs.execute(kinds, ("gemma_nli.kind", "trial"))]
    assert sorted(statuses) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    tracebacks = list((folder / "mlflow").rglob("traceback.txt"))
    assert len(tracebacks) == 2
    for path in tracebacks:
        assert "left out" in path.read_text()
        assert "run_folds" in path.read_text()
    tags = dict(runs.execute("select run_uuid, value from tags where key = 'gemma_nli.error'"))
    assert len(tags) == len(tracebacks)
    assert [*(folder / "mlflow").rglob("bundle.json")], "a model was registered: the search above went through it"
    assert holders(ray_folder, SECRET) == []  # posts are in Ray's shared memory; a password is nowhere


@pytest.mark.slow
def test_with_log_text_the_pairs_and_the_report_have_the_text_and_nothing_else_does(
    tmp_path: Path, tiny_bert: Path, server: Server, ray_folder: Path
) -> None:
    folder = tmp_path / "private"
    file = canary_sweep(folder, tiny_bert, server.port, log_text=True)
    tree = yaml.safe_load(file.read_text())
    tree["space"] = {"model.pooling_strategy": {"grid": ["mean"]}}
    file.write_text(yaml.safe_dump(tree))
    ended = driver(folder, file, ray_folder, crash=False)
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    found = holders(folder, "violet pangolin", beside=(folder / "data",))
    assert {re.sub(r"nli_pairs.*\.csv", "pairs", path.name) for path in found} <= {"pairs", "report.html", "report.md"}
    assert any("nli_pairs" in path.name for path in found)
    assert holders(folder, SECRET) == []


def test_a_study_that_cannot_be_opened_is_refused_without_its_password(tmp_path: Path, tiny_bert: Path) -> None:
    from gemma_nli.search.study import SweepStudy, study_url

    spec = SweepSpec.from_mapping({
        "name": "p", "space": {"training.seed": {"choice": [1, 2]}}, "base": {"model": {"name": str(tiny_bert)}},
        "search": {"algorithm": "optuna", "storage": f"postgresql://me:{SECRET}@127.0.0.1:9/x"},
    })  # fmt: skip
    with pytest.raises(SweepError) as refused:
        SweepStudy(spec, "p", study_url(spec, tmp_path))
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert SECRET not in spec.to_yaml()


def test_no_address_reaches_params_or_config_with_its_password(tmp_path: Path) -> None:
    from gemma_nli.tracking.write.artifacts.config_yaml import config_yaml

    changes = {"mlflow.tracking_uri": f"https://me:{SECRET}@host", "mlflow.artifact_location": f"s3://me:{SECRET}@b/x"}
    config = RunConfig().with_settings(changes)
    assert SECRET not in config_yaml(config)
    spec = SweepSpec.from_mapping({"name": "p", "space": {"training.seed": {"grid": [1]}}, "base": config})
    assert SECRET not in spec.to_yaml()


def test_exceptions_lose_the_lines_that_quote_a_post_and_keep_the_others() -> None:
    corpus = Corpus({"p1": f"Well, {CANARY}; so it goes."}, {}, (Annotation("p1", "s", "Nobody came.", "A", 1, "x"),))
    reported = without_posts(
        f"File a.py, line 3\nValueError: bad input {CANARY.upper()!r}\nKeyError: 'nobody came'", corpus
    )
    assert reported.splitlines()[0] == "File a.py, line 3"
    assert "pangolin" not in reported.lower()
    assert "nobody" not in reported.lower()
    assert without_posts("RuntimeError: the device ran out of memory", corpus).startswith("RuntimeError")


def test_a_stored_spec_without_its_password_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path
) -> None:
    from gemma_nli.sweep.records.sweep_folder import SweepFolder

    spec = SweepSpec.from_mapping({
        "name": "p", "storage": str(tmp_path), "space": {"training.seed": {"grid": [1, 2]}},
        "base": {"mlflow": {"tracking_uri": f"postgresql://me:{SECRET}@db/x"}, "model": {"name": str(tiny_bert)}},
    })  # fmt: skip
    folder = SweepFolder(tmp_path / "sweeps" / "abc")
    folder.path.mkdir(parents=True)
    folder.begin("abc", "p", spec.to_yaml(), tmp_path)
    with pytest.raises(SweepError, match="MLFLOW_TRACKING_URI"):
        stored_spec("p")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{SECRET}@db/x")
    assert stored_spec("p").base.mlflow.tracking_uri is None


def test_a_journal_keeps_no_password(tmp_path: Path) -> None:
    config = RunConfig().with_settings({"mlflow.tracking_uri": f"https://me:{SECRET}@host"})
    journal = TrialJournal(tmp_path, "ef" * 16)
    journal.start(config, "folds", "encoder", 3)
    assert SECRET not in journal.path.read_text()
    record = journal.read()
    assert record is not None
    assert record.config.canonical() == config.canonical()


# --- nothing is unpickled

UNSAFE = {
    r"\bpickle\.loads?\b": "pickle",
    r"\bcloudpickle\b": "cloudpickle",
    r"\bjoblib\b": "joblib",
    r"allow_pickle\s*=\s*True": "numpy pickles",
    r"\bread_pickle\b|\bto_pickle\b": "pandas pickles",
    r"yaml\.(unsafe_load|full_load|Loader|UnsafeLoader|FullLoader)\b": "unsafe YAML",
    r"trust_remote_code\s*=\s*True": "code of a model's folder",
    r"use_safetensors\s*=\s*False": "pickled weights",
    r"\bshelve\b|\bmarshal\b|\bdill\b": "pickles by another name",
}


def sources() -> Iterator[tuple[Path, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, path.read_text()


@pytest.mark.parametrize("pattern", UNSAFE)
def test_no_line_of_ours_unpickles(pattern: str) -> None:
    assert [str(path) for path, text in sources() if re.search(pattern, text)] == []


def test_torch_load_is_nowhere_without_weights_only() -> None:
    calls = [(path, call) for path, text in sources() for call in re.findall(r"torch\.load\(.*", text)]
    assert [(str(path), call) for path, call in calls if "weights_only=True" not in call] == []


class Trap:
    """Unpickling this leaves a file behind."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return Path.touch, (Path(TRAPPED),)  # type: ignore[return-value]


@pytest.fixture
def trap() -> Iterator[bytes]:
    Path(TRAPPED).unlink(missing_ok=True)
    yield pickle.dumps(Trap())
    assert not Path(TRAPPED).exists(), "a pickle was executed"


@pytest.mark.slow
def test_a_planted_pickle_is_never_executed(tmp_path: Path, tiny_bert: Path, trap: bytes) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_bert, encoder)
    (encoder / "pytorch_model.bin").write_bytes(trap)
    source = build_source(tmp_path / "source")
    (source / "tiny" / "pytorch_model.bin").write_bytes(trap)
    with warm_process() as warm:
        stage = Stage(tmp_path / "stage", source, warm)
        driver = stage.start()
        assert driver.until(lambda: len(stage.journals()) > 2, 200)
        driver.kill()
        planted = [*stage.journals(), *(stage.storage / "features").rglob("shard-*"), *stage.storage.rglob("folds_*")]
        for path in planted[1::2]:
            path.write_bytes(trap)
        trials = stage.sweep_folder / "ray" / "trials"
        trials.mkdir(parents=True, exist_ok=True)
        for name in ("tuner.pkl", "trainable.pkl", "experiment_state-2026.json", "searcher-state-x.pkl", "params.pkl"):
            (trials / name).write_bytes(trap)
        (stage.sweep_folder / "result.json").write_bytes(trap)
        stage.finish()
    shutil.rmtree(encoder)


def test_an_encoder_with_pickled_weights_only_is_refused(tmp_path: Path, tiny_bert: Path, trap: bytes) -> None:
    from gemma_nli.model.encoder import load_encoder

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(trap)
    config = RunConfig().with_settings({"model.name": str(folder)})
    with pytest.raises(GemmaNliError, match="safetensors"):
        load_encoder(config.model, config.device)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"]
)
def test_a_yaml_that_names_python_is_refused(tmp_path: Path, tag: str) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(f"name: x\nspace: {tag} ['touch {TRAPPED}']\n")
    for load in (load_sweep, load_config):
        with pytest.raises((ConfigError, SpecError)):
            load(file)
    assert not Path(TRAPPED).exists()


# --- names are no paths

PATHS = ["../../x", "..", "/etc/x", "a/b", "a\\b", ".hidden/../x", "x\0y", "", "a b/../c", "~root", "%2e%2e%2fx"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("key", ["name", "finalize.model_name", "finalize.alias", "output.experiment_name"])
def test_a_name_that_would_be_a_path_is_refused(key: str, name: str) -> None:
    tree: dict[str, Any] = {"name": "x", "space": {"training.seed": {"grid": [1]}}, "base": {}, "finalize": {}}
    if key == "output.experiment_name":
        tree["base"] = {"output": {"experiment_name": name}}
    else:
        *parents, leaf = key.split(".")
        place = tree[parents[0]] if parents else tree
        place[leaf] = name
    with pytest.raises(SpecError):
        SweepSpec.from_mapping(tree, source="x")


@pytest.mark.parametrize("name", ["../../x", "/etc", "..", "a/../../b"])
def test_an_mlflow_experiment_may_be_called_anything_and_its_artifacts_stay_inside(name: str, tmp_path: Path) -> None:
    from gemma_nli.tracking.store.mlflow_store import resolve_store

    root = tmp_path / "artifacts"
    config = RunConfig().with_settings({"mlflow.tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"})
    place = resolve_store(config.mlflow).location(name)
    assert place is not None
    assert Path(place).resolve().parent == root.resolve()


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/../../../b"])
def test_a_criterion_called_like_a_path_stays_a_name(tmp_path: Path, name: str) -> None:
    from gemma_nli.tracking.write.projection import safe_name

    made = synthetic_corpus(num_posts=40, seed=2)
    first = next(iter(made.criteria))
    criteria = {(name if key == first else key): text for key, text in made.criteria.items()}
    reported = tuple(
        Annotation(
            a.post_id, a.sentence_id, a.sentence_text, name if a.criterion_id == first else a.criterion_id, a.status, ""
        )
        for a in made.annotations
    )
    write_corpus(Corpus(made.posts, criteria, reported), tmp_path / "data")
    try:
        corpus = load_corpus(tmp_path / "data")
    except GemmaNliError:
        return  # refused is as good
    assert name in corpus.criteria
    shown = safe_name(f"criterion/{name}_f1")
    assert ".." not in shown.split("/")
    assert not shown.startswith("/")


def test_a_resumed_name_is_looked_up_and_never_opened() -> None:
    for name in PATHS:
        with pytest.raises(SweepError, match="no sweep"):
            stored_spec(name)
