"""A line counts when it holds its checksum, in today's form and in the one that sweeps had before."""

from __future__ import annotations

import hashlib
import json

import pytest

from gemma_nli.base.checked_lines import checked_line, read_line
from gemma_nli.tracking.write.outbox import Outbox, undelivered

ENTRY = {"key": "a" * 32, "settings": {"training.seed": 1, "model.name": "é"}}


def earlier_line(entry):
    return json.dumps({**entry, "check": hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:16]}).encode()


@pytest.mark.parametrize("write", [checked_line, earlier_line])
def test_an_entry_comes_back_and_one_with_any_byte_changed_does_not(write):
    line = write(ENTRY)
    assert read_line(line) == ENTRY
    for place in range(len(line)):
        assert read_line(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]) is None
        assert read_line(line[:place]) is None


@pytest.mark.parametrize("line", [b"", b"[]", b"null", b"{}", b'{"key": 1}', b"not JSON", b"\xff\xfe"])
def test_what_has_no_checksum_is_no_entry(line):
    assert read_line(line) is None


def test_keys_that_an_earlier_version_noted_still_wait(tmp_path):
    file = tmp_path / "pending.jsonl"
    file.write_text('{"key": "a", "waits": true}\n{"key": "b", "waits": true}\n{"key": "a", "waits": false}\n{"key"')
    assert undelivered(file) == ["b"]
    Outbox(file).close(0.0)
    assert [read_line(line) for line in file.read_bytes().splitlines()] == [{"key": "b", "waits": True}]
