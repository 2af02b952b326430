"""What probes have found about an encoder, kept on this machine so that each runs once.

    $GEMMA_NLI_HOME/probes/<digest>.json    {"about": what the digest stands for, "found": {probe: its answer}}

An answer holds for one encoder's files, used one way, by one version of the libraries: all of which is in the
digest. If a file cannot be read or written, the probe just runs again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from gemma_nli.base.files import write_whole
from gemma_nli.config import home

log = logging.getLogger(__name__)
PROBES_VERSION = 2
"""Increases with every change of a probe, of the texts it runs or of what it concludes from them."""
Answer = TypeVar("Answer")


class ProbeNotes:
    """The answers about one encoder as it is used here.

    Args:
        about: everything that an answer depends on, besides the versions of torch and transformers: the encoder's
        fingerprint,
            its attention and kernel, device, precision and longest text. JSON values.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        libraries = {name: version(name) for name in ("torch", "transformers")}
        self.about = {**about, **libraries, "probes": PROBES_VERSION}
        self.digest = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def path(self) -> Path:
        return home() / "probes" / f"{self.digest}.json"

    def recall(self, probe: str, find: Callable[[], Answer]) -> Answer:
        """A probe's stored answer, or what `find` answers now (a JSON value), stored for the next time.

        What `find` raises is not stored: a refused encoder is probed again.
        """
        kept = self._read()
        if probe in kept:
            answer: Answer = kept[probe]
            return answer
        answer = find()
        self._write({**self._read(), probe: answer})
        return answer

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.debug("%s: not read, probed again: %s", self.path, error)
            return {}
        found = content.get("found") if isinstance(content, dict) and content.get("about") == self.about else None
        return found if isinstance(found, dict) else {}

    def _write(self, found: dict[str, Any]) -> None:
        content = json.dumps({"about": self.about, "found": found}, indent=1, sort_keys=True) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, content.encode())
        except OSError as error:
            log.debug("%s: not stored, will be probed again: %s", self.path, error)
