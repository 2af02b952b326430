"""Credentials never leave the process in words: what every log, file, run and error passes through."""

from __future__ import annotations

import re

MASK = "***"
_AUTHORITY = re.compile(r"(?<=://)[^\s/\"<>]*@")
# An unescaped slash in a password ends the authority early; `host:8080/path@x` has a port there and is left alone.
_SLASHED = re.compile(r"(?<=://)[^\s/:@'\"<>]+:(?!\d+(?:[/?#]|$))[^\s\"<>]*@")
_QUERY = re.compile(
    r"(?i)((?:[?&;]|%3B)(?:password|passwd|pwd|token|access_token|api_key|secret)(?:=|%3D))(?:(?!%3B)[^&;\s'\"<>])+"
)


def mask_credentials(text: str) -> str:
    """`text` with the `user:password@` (or token) of every URI in it replaced by `***@`."""
    for pattern, mask in ((_AUTHORITY, f"{MASK}@"), (_SLASHED, f"{MASK}@"), (_QUERY, rf"\1{MASK}")):
        text = pattern.sub(mask, text)
    return text
