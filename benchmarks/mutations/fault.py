"""A small fault that someone could make, and the tests that must then fail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` once in `file`, a path below `gemma_nli/`.

    Args:
        what: what the package then does wrong, in a few words.
        old: stands in the file exactly once, so that the table cannot plant another fault than it says.
        tests: arguments of pytest: the tests of the file's part.
        equivalent: why no behaviour changes; empty where it does. Such a fault is planted too, and must stay unseen.
    """

    what: str
    file: str
    old: str
    new: str
    tests: str
    equivalent: str = ""

    @property
    def room(self) -> str:
        return self.file.partition("/")[0]

    def planted(self, text: str) -> str:
        """The file's text with the fault in it.

        Raises:
            LookupError: `old` is not there once: the code has moved on, and the table must follow it.
        """
        found = text.count(self.old)
        if found != 1:
            raise LookupError(f"gemma_nli/{self.file}: found {found} times, not once: {self.old.strip()!r}")
        return text.replace(self.old, self.new)

    def plant(self, package: Path) -> str:
        """Write it into a copy of the package; gives the file's text before."""
        path = package / self.file
        before = path.read_text(encoding="utf-8")
        path.write_text(self.planted(before), encoding="utf-8")
        return before
