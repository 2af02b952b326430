from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from gemma_nli.base.errors import JournalError
from gemma_nli.config import RunConfig
from gemma_nli.storage.record_files import FolderRecord
from gemma_nli.training.results import DIVERGED, FINISHED, CvResult, FoldResult
from gemma_nli.trial import TrialJournal, TrialRecord, read_trial
from tests.training.frozen_setup import assert_same_fold

CONFIG = RunConfig()
KEY = "ab" + "0" * 30


def fold_result(fold: int, seed: int = 0, rows: int = 7, **changes) -> FoldResult:
    """A fold full of numbers that a careless writer would round or lose."""
    draws = np.random.default_rng(seed + fold)
    history = {
        "train_loss": [math.nan, math.inf, 0.1 + 0.2],
        "val_loss": [-math.inf, 5e-324, 1 / 3],
        "val_f1": [0.0, 1 / 3, 0.7],
        "val_f1_at_half": [0.1, 0.0, 2 / 3],
        "val_auc": [math.nan, 0.5, 0.6],
    }
    facts = {
        "fold": fold,
        "status": FINISHED,
        "history": history,
        "selected_epoch": 2,
        "best_epoch": 3,
        "threshold": float(draws.random()),
        "rows": np.arange(rows, dtype=np.int64) * fold,
        "probabilities": draws.random(rows).astype(np.float32),
        "labels": draws.integers(0, 2, rows).astype(np.int8),
        "metrics": {"f1": 1 / 3, "auc": math.nan, "peeked_f1": 0.5},
        "state": {"head.weight": torch.randn(1, 5).t(), "head.bias": torch.tensor([math.nan, -0.0])},
        "seconds": 0.25,
        "detail": "Grüße ☂",
        "trained_parameters": 7,
    }
    return FoldResult(**{**facts, **changes})


def a_result(*folds: FoldResult) -> CvResult:
    return CvResult(
        list(folds), {"cv_aggregate/mean_f1": 1 / 3, "x": math.nan}, {"A": {"f1": math.nan, "support": 2.0}}
    )


def started(storage: Path, num_folds: int = 2, key: str = KEY) -> TrialJournal:
    journal = TrialJournal(storage, key)
    journal.start(CONFIG, "folds", "encoder", num_folds, {"gpu_name": "none"})
    return journal


def reread(journal: TrialJournal) -> TrialRecord:
    record = journal.read(weights=True)
    assert record is not None
    return record


def in_process(script: str) -> subprocess.Popen[str]:
    code = "from tests.trial.test_journal import *\n" + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


class TestReadingBack:
    def test_what_is_read_is_what_was_written_to_the_last_bit(self, tmp_path):
        first, second = fold_result(1), fold_result(2, status=DIVERGED, rows=0, metrics={})
        journal = started(tmp_path)
        before = time.time() * 1000
        journal.add_folds([first, second])
        journal.finish(a_result(first, second))
        record = reread(journal)
        for fold, written in zip(record.folds.values(), (first, second), strict=True):
            assert_same_fold(fold, written)
            assert fold.probabilities.tobytes() == written.probabilities.tobytes()
            assert [a.dtype for a in (fold.rows, fold.probabilities, fold.labels)] == [np.int64, np.float32, np.int8]
            for name, tensor in written.state.items():
                assert fold.state[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()
        assert (record.config, record.state, record.num_folds, record.attempts) == (CONFIG, "finished", 2, 1)
        assert (record.fold_fingerprint, record.encoder_fingerprint) == ("folds", "encoder")
        assert record.tags == {"gpu_name": "none"}
        assert record.aggregates["cv_aggregate/mean_f1"] == 1 / 3
        assert math.isnan(record.aggregates["x"])
        assert record.criteria["A"]["support"] == 2.0
        assert record.ended_ms is not None
        assert before - 1 <= record.fold_ms[1] <= record.ended_ms <= time.time() * 1000

    @settings(deadline=None, max_examples=15)
    @given(st.lists(st.floats(), min_size=1, max_size=4), st.floats(0, 1), st.text(max_size=20))
    def test_any_numbers_and_text_come_back(self, tmp_path_factory, values, threshold, detail):
        written = fold_result(1, history={"train_loss": values}, threshold=threshold, detail=detail)
        journal = started(tmp_path_factory.mktemp("any"), 1)
        journal.add_folds([written])
        read = reread(journal).folds[1]
        np.testing.assert_array_equal(read.history["train_loss"], values)
        assert (read.threshold, read.detail) == (threshold, detail)

    def test_nothing_is_there_before_something_is_written(self, tmp_path):
        assert read_trial(tmp_path, KEY) is None
        assert not list(tmp_path.iterdir()), "reading makes no folder"

    def test_folds_arrive_one_by_one_and_only_whole_trials_are_finished(self, tmp_path):
        journal = started(tmp_path)
        journal.add_folds([fold_result(1)])
        assert reread(journal).state == "running"
        journal.finish(a_result(fold_result(1)))
        early = reread(journal)
        assert (early.state, early.aggregates, early.ended_ms) == ("running", {}, None), "fold 2 is not there"
        journal.add_folds([fold_result(2)])
        assert reread(journal).state == "finished"

    @pytest.mark.parametrize("state", ["failed", "pruned"])
    def test_an_early_end_keeps_its_reasons_and_a_new_attempt_forgets_them(self, tmp_path, state):
        journal = started(tmp_path)
        journal.stop(state, a_result(fold_result(1)), error="no memory", traceback="line 1", reason="worse")
        record = reread(journal)
        assert (record.state, record.error, record.traceback, record.reason) == (state, "no memory", "line 1", "worse")
        assert record.aggregates
        started(tmp_path)
        again = reread(journal)
        assert (again.state, again.attempts, again.error, again.traceback, again.reason) == ("running", 2, *[None] * 3)
        assert (again.ended_ms, again.aggregates, again.criteria) == (None, {}, {})
        assert again.started_ms == record.started_ms

    def test_a_fold_told_again_replaces_the_first(self, tmp_path):
        journal = started(tmp_path)
        for seed in (1, 2):
            journal.add_folds([fold_result(1, seed)])
        assert_same_fold(reread(journal).folds[1], fold_result(1, 2, state=reread(journal).folds[1].state))

    def test_the_journal_only_ever_grows(self, tmp_path):
        journal, before = started(tmp_path), b""
        for step in (
            lambda: journal.add_folds([fold_result(1)]),
            lambda: journal.keep_weights([fold_result(1)], [], 1e6),
            lambda: journal.stop("failed", error="x"),
            lambda: started(tmp_path),
            lambda: journal.finish(a_result()),
        ):
            step()
            now = journal.path.read_bytes()
            assert now.startswith(before)
            assert len(now) > len(before)
            before = now


def bytes_read() -> int:
    """By this process so far, from files and all else."""
    counts = Path("/proc/self/io").read_text().split()
    return int(counts[counts.index("rchar:") + 1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts reads as Linux tells them")
@pytest.mark.parametrize("torn", [False, True])
def test_a_line_is_added_without_reading_the_journal_and_never_onto_a_torn_one(tmp_path, torn):
    record = FolderRecord(tmp_path)
    record.path.write_bytes(b"x" * 8_000_000 + (b"" if torn else b"\n"))
    before = bytes_read()
    record.append(b"new")
    assert bytes_read() - before < 1_000_000
    assert record.path.read_bytes()[-5:] == b"\nnew\n"
    record.append(b"more")
    assert record.lines()[1:] == [b"new", b"more", b""]


class TestWeights:
    def test_heads_are_left_out_when_they_are_not_wanted(self, tmp_path):
        journal = started(tmp_path)
        journal.add_folds([fold_result(1)], keep_weights=False)
        assert reread(journal).folds[1].state == {}

    def test_past_the_limit_only_the_best_folds_weights_stay(self, tmp_path):
        journal, done = started(tmp_path, 3), []
        for fold, f1 in ((1, 0.5), (2, 0.4), (3, 0.6)):
            result = fold_result(fold)
            result.metrics["f1"] = f1
            wanted = result.state["head.weight"].clone()
            journal.add_folds([result], keep_weights=False)
            journal.keep_weights([result], done, limit_bytes=8)
            done.append(result)
            assert result.state == {}
        assert [path.name for path in journal.folder.glob("weights_*")] == ["weights_3.safetensors"]
        assert list(reread(journal).weights) == [3]
        assert torch.equal(load_file(reread(journal).weights[3])["head.weight"], wanted)

    def test_up_to_the_limit_each_folds_weights_stay(self, tmp_path):
        journal = started(tmp_path, 3)
        folds = [fold_result(fold) for fold in (1, 2, 3)]
        journal.add_folds(folds, keep_weights=False)
        journal.keep_weights(folds, [], limit_bytes=1e6)
        assert sorted(reread(journal).weights) == [1, 2, 3]
        assert journal.read().weights == {}, "nobody pays for weights that were not asked for"

    def test_damaged_weights_are_no_weights_but_the_fold_counts(self, tmp_path):
        journal = started(tmp_path)
        journal.add_folds([fold_result(1)], keep_weights=False)
        journal.keep_weights([fold_result(1)], [], limit_bytes=1e6)
        path = journal.folder / "weights_1.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        record = reread(journal)
        assert list(record.folds) == [1]
        assert record.weights == {}


def two_folds(storage: Path) -> TrialJournal:
    """A finished trial: line 1 started, 2 fold 1, 3 fold 2, 4 ended."""
    journal = started(storage)
    journal.add_folds([fold_result(1)])
    journal.add_folds([fold_result(2)])
    journal.finish(a_result())
    return journal


class TestDamage:
    """What is damaged is as if it had never happened; the rest counts."""

    @pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
    def test_a_torn_last_line_does_not_count_and_what_comes_after_it_does(self, tmp_path, kept, caplog):
        journal = two_folds(tmp_path)
        lines = journal.path.read_bytes().splitlines(keepends=True)
        journal.path.write_bytes(b"".join(lines[:3]) + lines[3][: int(len(lines[3]) * kept)])
        assert reread(journal).state == "running"
        assert ("line 4 is damaged" in caplog.text) == (kept > 0)
        journal.finish(a_result())
        assert reread(journal).state == "finished"

    @pytest.mark.parametrize("line", [0, 1, 2, 3])
    @pytest.mark.parametrize("damage", ["flip", "checksum", "blank", "cut", "junk"])
    def test_a_damaged_line_takes_only_what_it_told(self, tmp_path, line, damage):
        journal = two_folds(tmp_path)
        lines = journal.path.read_bytes().splitlines()
        hurt = bytearray(lines[line])
        if damage == "flip":
            hurt[-5] ^= 1
        elif damage == "checksum":
            hurt[0] ^= 1
        elif damage == "cut":
            hurt = hurt[:-1]
        lines[line] = {"blank": b"", "junk": b"\x00\xff junk"}.get(damage, bytes(hurt))
        journal.path.write_bytes(b"\n".join(lines) + b"\n")
        record = journal.read()
        if line == 0:
            assert record is None, "without its first line nothing says what the trial was"
            return
        assert record is not None
        assert set(record.folds) == {1, 2} - {line}
        assert record.state == "running"

    @pytest.mark.parametrize("damage", ["missing", "cut", "flip", "empty", "another's"])
    def test_a_damaged_file_takes_its_folds_and_they_can_be_written_again(self, tmp_path, damage, caplog):
        journal = two_folds(tmp_path)
        path = journal.folder / "folds_2-2.safetensors"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        if damage == "missing":
            path.unlink()
        else:
            other = (journal.folder / "folds_1-1.safetensors").read_bytes()
            path.write_bytes({"cut": data[:-3], "flip": data, "empty": b"", "another's": other}[damage])
        record = reread(journal)
        assert (list(record.folds), record.state, record.aggregates, record.criteria) == ([1], "running", {}, {})
        assert "missing or damaged" in caplog.text
        journal.add_folds([fold_result(2)])
        assert reread(journal).state == "finished"

    def test_a_line_cannot_name_a_file_outside_the_trial(self, tmp_path):
        journal = started(tmp_path)
        journal.add_folds([fold_result(1)])
        data = (journal.folder / "folds_1-1.safetensors").read_bytes()
        (tmp_path / "folds_1-1.safetensors").write_bytes(data)
        (journal.folder / "folds_1-1.safetensors").unlink()
        event = next(e for e in journal.events() if e["event"] == "folds")
        event["file"] = "../../../folds_1-1.safetensors"
        journal._append(event)
        assert reread(journal).folds == {}

    def test_a_stray_file_counts_for_nothing(self, tmp_path):
        journal = started(tmp_path)
        (journal.folder / "folds_1-2.safetensors").write_bytes(b"half a file")
        assert reread(journal).folds == {}
        journal.add_folds([fold_result(1), fold_result(2)])
        assert set(reread(journal).folds) == {1, 2}


class TestOtherProcesses:
    def test_a_killed_writer_leaves_a_journal_that_reads_and_goes_on(self, tmp_path):
        child = in_process(
            f"""
            journal = started(Path({str(tmp_path)!r}), 10_000)
            print("go", flush=True)
            for fold in range(1, 10_000):
                journal.add_folds([fold_result(fold)])
            """
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        time.sleep(0.3)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        record = reread(TrialJournal(tmp_path, KEY))
        assert record.folds, "some folds should have been written in 0.3 s"
        assert list(record.folds) == list(range(1, len(record.folds) + 1))
        for fold, result in record.folds.items():
            assert_same_fold(result, fold_result(fold, state=result.state))
        journal = started(tmp_path, 10_000)
        journal.add_folds([fold_result(9999)])
        assert 9999 in reread(journal).folds

    def test_a_claim_keeps_a_second_process_out_until_its_holder_dies(self, tmp_path):
        holder = in_process(
            f"""
            with TrialJournal(Path({str(tmp_path)!r}), KEY).claim():
                print("held", flush=True)
                time.sleep(600)
            """
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            journal = TrialJournal(tmp_path, KEY)
            with pytest.raises(JournalError, match="another process is running this trial"), journal.claim(0.1):
                pass
            with TrialJournal(tmp_path, "cd" * 16).claim(0.1):
                pass  # another trial is free
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            with journal.claim(10):
                pass
        finally:
            holder.kill()
            holder.communicate()

    def test_a_claim_ends_with_its_block_even_on_an_error(self, tmp_path):
        for _ in range(2):
            with pytest.raises(KeyError), TrialJournal(tmp_path, KEY).claim(1):
                raise KeyError

    def test_a_full_disk_is_a_journal_error_and_nothing_half_written_counts(self, tmp_path):
        """The disk has room for no line, for a part of one, and for lines but not for the folds' arrays."""
        for spare in (0, 30, 2000):
            started(tmp_path / str(spare)).add_folds([fold_result(1)])
        child = in_process(
            f"""
            import resource
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            for spare, rows in ((0, 7), (30, 7), (2000, 100_000)):
                journal = TrialJournal(Path({str(tmp_path)!r}) / str(spare), KEY)
                room = journal.path.stat().st_size + spare
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
                try:
                    journal.add_folds([fold_result(2, rows=rows)])
                except JournalError as error:
                    print(error)
            """
        )
        reported = child.communicate()[0].splitlines()
        assert len(reported) == 3
        for spare, message, file in zip((0, 30, 2000), reported, ("journal.jsonl",) * 2 + ("folds_2-2",), strict=True):
            assert "cannot be written: File too large; free space or set storage=" in message
            assert file in message
            journal = TrialJournal(tmp_path / str(spare), KEY)
            assert list(reread(journal).folds) == [1]
            journal.add_folds([fold_result(2)])
            assert list(reread(journal).folds) == [1, 2]
            assert not list(journal.folder.glob(".*.tmp"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_one_may_not_write_is_a_journal_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(JournalError, match="storage="):
        started(tmp_path)


def test_a_file_where_the_folder_should_be_is_a_journal_error(tmp_path):
    (tmp_path / "trials").write_text("in the way")
    with pytest.raises(JournalError, match="storage="):
        started(tmp_path)
    with pytest.raises(JournalError, match="storage="), TrialJournal(tmp_path, KEY).claim():
        pass
