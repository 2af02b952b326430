"""Bad input at the command line: exit 0 or 2, never a traceback, never a hang, nothing written on exit 2.

Sweeps are only planned, so no case starts Ray. `pytest -m slow tests/test_fuzz.py` throws more than 2,000 cases.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemma_nli.config import setting_names
from gemma_nli.corpus.synthetic import write_synthetic

HANG_SECONDS = 60
FEW, MANY = 25, 350
SETTINGS = sorted(setting_names())
FILES = ("redsm5_posts.csv", "redsm5_annotations.csv", "criteria.json")

junk = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.just("2e-5"), st.just(""),
    st.sampled_from(["../../x", "/dev/null/x", "\0", "nan", "inf", "auto", "[", "{a: b", "1e999", "mean"]),
    st.sampled_from([10**30, -1, 0]),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip
domain = st.one_of(
    junk,
    st.fixed_dictionaries({}, optional={
        "grid": st.one_of(junk, st.lists(junk, max_size=4)), "choice": st.one_of(junk, st.lists(junk, max_size=4)),
        "uniform": st.one_of(junk, st.lists(junk, max_size=3)),
        "loguniform": st.one_of(junk, st.lists(junk, max_size=3)),
        "int": st.one_of(junk, st.lists(st.integers(-3, 9), max_size=3)), "when": junk, "step": junk,
    }),
    st.sampled_from([{"grid": [1, 2]}, {"grid": ["1e-3", "1e-2"]}, {"int": [1, 3]}, {"uniform": [0, 0.5]}]),
)  # fmt: skip
spaces = st.dictionaries(st.one_of(st.sampled_from(SETTINGS), st.text(max_size=10)), domain, max_size=3)
PARTS = {
    "name": junk, "question": junk, "space": st.one_of(junk, spaces), "metric": junk, "mode": junk, "storage": junk,
    "search": st.one_of(junk, st.fixed_dictionaries({}, optional={
        "algorithm": st.one_of(junk, st.sampled_from(["grid", "random", "optuna"])), "sampler": junk, "seed": junk,
        "num_trials": st.one_of(junk, st.integers(1, 30)), "time_budget": junk, "objectives": junk, "warm_start": junk,
    })),
    "scheduler": st.one_of(junk, st.fixed_dictionaries({}, optional={
        "kind": st.sampled_from(["none", "asha", "median", "fold_racing", "hyperband"]), "grace_folds": junk,
    })),
    "resources": st.one_of(junk, st.fixed_dictionaries({}, optional={"cpu": junk, "gpu": junk, "max_failures": junk})),
    "finalize": st.one_of(junk, st.fixed_dictionaries({}, optional={"alias": junk, "confirm": junk})),
    "compare": st.one_of(junk, spaces), "tune": st.one_of(junk, spaces), "report": junk, "base": junk, "nam": junk,
}  # fmt: skip
changes = st.lists(
    st.one_of(*(st.tuples(st.just((part,)), value) for part, value in PARTS.items()),
              st.tuples(st.sampled_from(SETTINGS).map(lambda key: ("base", *key.split("."))), junk)),
    min_size=1, max_size=3,
)  # fmt: skip
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6)), min_size=1, max_size=4)
words = st.lists(
    st.one_of(
        st.text(max_size=15),
        st.tuples(st.sampled_from([*SETTINGS, *PARTS, "search.seed"]), st.text(max_size=8)).map("=".join),
        st.sampled_from(["training.num_epochs=3", "search.algorithm=random", "search.num_trials=5"]),
        st.sampled_from(["name=../../up", "=", "a.b.c=1"]),
    ).filter(lambda word: not word.startswith("-")),
    min_size=1, max_size=4,
)  # fmt: skip


class Workspace:
    """A folder with a good sweep file, corpus and encoder, a home of its own, and the command."""

    def __init__(self, folder: Path, encoder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        write_synthetic(self.data, num_posts=40, seed=1)
        self.tree: dict[str, Any] = {
            "name": "fuzz",
            "base": {
                "data": {"data_dir": str(self.data), "num_folds": 3},
                "model": {"name": str(encoder), "max_length": 32},
            },
            "space": {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}},
            "storage": str(folder / "home" / "storage"),
        }
        self.file = folder / "fuzz.yaml"
        self.home = folder / "home"

    def written(self) -> set[Path]:
        """Everything below the folder, and the working directory's names."""
        return {*self.folder.rglob("*"), *Path.cwd().iterdir()}

    def run(self, *argv: str) -> int:
        """The exit status; fails the test on a traceback, a hang, another status, or files left by a refusal."""
        before, out = self.written(), io.StringIO()
        old = sys.argv
        sys.argv = ["gemma-nli", *argv]
        status: int | None = None
        try:
            with limited(HANG_SECONDS), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                from gemma_nli.cli import main

                main()
                status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001 - whatever comes out is the finding
            pytest.fail(f"{argv}: a traceback\n{traceback.format_exc()}")
        finally:
            sys.argv = old
        text = out.getvalue()
        assert "Traceback" not in text, text
        assert status in (0, 2), (status, argv, text)
        if status == 2:
            assert text.strip(), "a refusal says why"
            assert self.written() == before, self.written() - before
        return status


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("fuzz"), tiny_bert)


@pytest.fixture(autouse=True)
def in_workspace(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA_NLI_HOME", str(workspace.home))
    monkeypatch.chdir(workspace.folder)
    logging.raiseExceptions = False  # a log line to a stream of an earlier case is no finding


def cases(count: int) -> settings:
    unfit = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, suppress_health_check=unfit, database=None, derandomize=True)


def fuzz_sweep_files(workspace: Workspace, made: list[tuple[tuple[str, ...], Any]]) -> None:
    tree = copy.deepcopy(workspace.tree)
    for path, value in made:
        place = tree
        for part in path[:-1]:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[path[-1]] = value
    workspace.file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="replace")
    workspace.run("sweep", str(workspace.file), "--plan", "--json")


def fuzz_spaces(workspace: Workspace, space: dict[str, Any]) -> None:
    fuzz_sweep_files(workspace, [(("space",), space)])


def fuzz_file_bytes(workspace: Workspace, made: list[tuple[float, int, bytes]]) -> None:
    workspace.file.write_bytes(edited(yaml.safe_dump(workspace.tree).encode(), made))
    workspace.run("sweep", str(workspace.file), "--plan")


def fuzz_overrides(workspace: Workspace, given: list[str]) -> None:
    workspace.file.write_text(yaml.safe_dump(workspace.tree))
    workspace.run("sweep", str(workspace.file), "--plan", "--json", *[word for word in given if "\0" not in word])


def fuzz_corpora(workspace: Workspace, name: str, made: list[tuple[float, int, bytes]]) -> None:
    data = workspace.folder / "damaged"
    shutil.copytree(workspace.data, data, dirs_exist_ok=True)
    (data / name).write_bytes(edited((workspace.data / name).read_bytes(), made))
    workspace.file.write_text(yaml.safe_dump(workspace.tree))
    workspace.run("sweep", str(workspace.file), "--plan", "--json", f"data.data_dir={data}")


def fuzz_commands(workspace: Workspace, verb: list[str], word: str) -> None:
    if not word.startswith("-") and "\0" not in word:
        os.makedirs(workspace.home, exist_ok=True)
        workspace.run(*verb, word)


def edited(data: bytes, made: list[tuple[float, int, bytes]]) -> bytes:
    """Bytes taken out at some places and others put in."""
    for share, length, other in made:
        place = int(share * len(data))
        data = data[:place] + other + data[place + length :]
    return data


VERBS = [
    *(["resume"], ["flush"], ["best", "--experiment"], ["best", "--mode"], ["train", "--config"], ["sweep", "--plan"]),
    *(["features", "list", "--storage"], ["features", "verify", "--storage"]),
    ["best", "--experiment", "x", "--tracking-uri"],
]
FUZZ = {
    "sweep files": (fuzz_sweep_files, [changes], 3.0),
    "spaces": (fuzz_spaces, [spaces], 1.0),
    "bytes of a sweep file": (fuzz_file_bytes, [edits], 1.0),
    "overrides": (fuzz_overrides, [words], 1.0),
    "corpora": (fuzz_corpora, [st.sampled_from(FILES), edits], 1.0),
    "commands": (fuzz_commands, [st.sampled_from(VERBS), st.one_of(st.text(max_size=20), st.just("../../x"))], 0.5),
}


def throw(workspace: Workspace, kind: str, count: int) -> None:
    function, strategies, weight = FUZZ[kind]

    @cases(int(count * weight))
    @given(st.tuples(*strategies))
    def one(values: tuple[Any, ...]) -> None:
        function(workspace, *values)  # type: ignore[operator]

    one()


@pytest.mark.parametrize("kind", FUZZ)
def test_bad_input_is_refused_or_planned_and_nothing_else(workspace: Workspace, kind: str) -> None:
    throw(workspace, kind, FEW)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", FUZZ)
def test_much_bad_input_is_refused_or_planned_and_nothing_else(workspace: Workspace, kind: str) -> None:
    throw(workspace, kind, MANY)


def test_the_good_file_is_planned_and_writes_nothing(workspace: Workspace) -> None:
    workspace.file.write_text(yaml.safe_dump(workspace.tree))
    before = workspace.written()
    assert workspace.run("sweep", str(workspace.file), "--plan") == 0
    assert workspace.written() == before
