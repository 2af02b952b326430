"""A sweep's folder: its cells whatever damage a line took, who holds it, and which sweep a name means."""

from __future__ import annotations

import json
import os

import pytest

from gemma_nli.base.errors import SweepBusyError, SweepError
from gemma_nli.sweep.records.sweep_folder import SweepFolder, find_sweep

CELLS = {"a" * 32: {"training.seed": 1}, "b" * 32: {"training.seed": 2}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "s").mkdir()
    return SweepFolder(tmp_path / "s")


def test_cells_come_back_in_their_order_and_each_is_noted_once(folder):
    folder.add_cells(CELLS)
    folder.add_cells({**CELLS, "c" * 32: {"training.seed": 3}})
    assert list(folder.cells().items()) == [*CELLS.items(), ("c" * 32, {"training.seed": 3})]
    lines = [line for line in (folder.path / "cells.jsonl").read_text().splitlines() if line]
    assert len(lines) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace('"training.seed": 1', '"training.seed": 7'),
        lambda line: line.replace("a" * 32, "d" * 32),
        lambda line: line[:-5],
        lambda line: json.dumps({"key": "a" * 32, "settings": {"training.seed": 1}}),
        lambda line: "[]",
        lambda line: "not JSON",
    ],
)
def test_a_line_that_does_not_hold_its_checksum_names_no_trial_and_takes_no_other_with_it(folder, damage):
    folder.add_cells(CELLS)
    path = folder.path / "cells.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(damage(line) if "a" * 32 in line else line for line in lines))
    assert folder.cells() == {"b" * 32: {"training.seed": 2}}
    folder.add_cells(CELLS)
    assert folder.cells() == CELLS


def test_a_folder_is_held_by_one_and_says_by_whom(folder):
    with (
        folder.held("mine"),
        pytest.raises(SweepBusyError, match=f"sweep 'mine' is being run by process {os.getpid()} on"),
        SweepFolder(folder.place).held("mine"),
    ):
        pytest.fail("held twice")
    with SweepFolder(folder.place).held("mine"):
        assert (folder.path / "holder.json").exists()
    assert not (folder.path / "holder.json").exists()


def test_of_sweeps_that_share_a_name_the_one_started_last_is_meant(tmp_path):
    for number, (sweep_id, age) in enumerate([("one", 50), ("two", 10), ("three", 90)]):
        (tmp_path / sweep_id).mkdir()
        SweepFolder(tmp_path / sweep_id).begin(sweep_id, "pooling", f"name: {number}\n", tmp_path / str(number))
        index = tmp_path / "gemma_nli_home" / "sweeps" / f"{sweep_id}.json"
        os.utime(index, (1e9 - age, 1e9 - age))
    assert find_sweep("pooling") == ("two", tmp_path / "1")
    assert find_sweep("three") == ("three", tmp_path / "2")
    with pytest.raises(SweepError, match="no sweep is called 'poling'; did you mean 'pooling'"):
        find_sweep("poling")


def test_a_result_of_the_run_before_is_gone_as_soon_as_the_sweep_begins_again(folder, tmp_path):
    folder.end({"interrupted": False, "trials": {}, "best": None})
    assert folder.result()
    folder.begin("s", "x", "name: x\n", tmp_path)
    assert folder.result() == {}
    (folder.path / "result.json").write_text('{"interrupted": fal')
    assert folder.result() == {}
