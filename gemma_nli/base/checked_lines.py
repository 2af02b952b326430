"""JSON lines that carry their own checksum: `0123456789abcdef {"key": ...}`, one entry per line.

Files of such lines are only ever appended to, so a machine that dies may leave half a line, and a disk may flip a bit.
A line that does not match its checksum counts as never written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

CHECK_DIGITS = 16
"""Hex digits of a line's sha256."""


def checked_line(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line, without the line break."""
    text = json.dumps(dict(entry)).encode()
    return _checksum(text) + b" " + text


def read_line(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, or None where the line does not match its checksum.

    Sweeps started with an earlier version have the checksum inside the entry, last, as `check`: these are read too.
    """
    check, _, text = line.partition(b" ")
    if check == _checksum(text):
        entry = json.loads(text)
        return entry if isinstance(entry, dict) else None
    return _with_check_inside(line)


def _with_check_inside(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or "check" not in entry:
        return None
    check = entry.pop("check")
    whole = json.dumps({**entry, "check": check}).encode() == line
    return entry if whole and str(check).encode() == _checksum(json.dumps(entry).encode()) else None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:CHECK_DIGITS].encode()
