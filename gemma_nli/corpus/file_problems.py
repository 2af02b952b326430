"""What is wrong with one file, by line: equal problems are one line with a count and the first places."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

SHOWN_OF_A_KIND, SHOWN_PLACES = 3, 5
_ID_LIKE = re.compile(r"[\w.:-]{1,64}")


@dataclass
class _Places:
    """How often, and the first lines where."""

    count: int = 0
    lines: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        self.count += 1
        if len(self.lines) < SHOWN_PLACES:
            self.lines.append(line)

    def text(self) -> str:
        named = ", ".join(map(str, self.lines))
        return f"lines {named}{', ...' if self.count > len(self.lines) else ''}"


@dataclass
class _Kind:
    messages: dict[str, _Places] = field(default_factory=dict)
    others: _Places = field(default_factory=_Places)  # of messages past SHOWN_OF_A_KIND


@dataclass
class FileProblems:
    """The problems of a file of any size in bounded memory: a few messages per kind are kept, the others counted."""

    name: str
    count: int = 0
    _kinds: dict[str, _Kind] = field(default_factory=dict)

    def add(self, line: int, what: str, kind: str = "") -> None:
        """
        Args:
            line: of the physical file; 0 for the file as a whole.
            what: the sentence; equal ones are grouped.
            kind: what sentences that differ only in a name have in common, such as `unknown symptom`.
        """
        self.count += 1
        of_kind = self._kinds.setdefault(kind or what, _Kind())
        if what in of_kind.messages or len(of_kind.messages) < SHOWN_OF_A_KIND:
            of_kind.messages.setdefault(what, _Places()).add(line)
        else:
            of_kind.others.add(line)

    def shown(self) -> list[str]:
        """By first line: `name:line: what`, with how often and where else."""
        found: list[tuple[int, str]] = []
        for kind, of_kind in self._kinds.items():
            for what, places in of_kind.messages.items():
                first = places.lines[0]
                more = f" ({places.count} times: {places.text()})" if places.count > 1 else ""
                found.append((first, f"{self.name}:{first}: {what}{more}" if first else f"{self.name}: {what}{more}"))
            if of_kind.others.count:
                rest, first = of_kind.others, of_kind.others.lines[0]
                found.append((first, f"{self.name}:{first}: ... and {rest.count} more: {kind} ({rest.text()})"))
        return [text for _, text in sorted(found, key=lambda item: item[0])]


def named(value: str) -> str:
    """A quoted id, or only its length: a value that does not look like an id may be a post's text."""
    return repr(value) if looks_like_an_id(value) else f"of {len(value)} characters"


def has_control_character(value: str) -> bool:
    """Whether a value contains what no id may contain: a control character, a line or paragraph separator, half a
    surrogate.
    """
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)


def looks_like_an_id(value: str) -> bool:
    return _ID_LIKE.fullmatch(value) is not None
