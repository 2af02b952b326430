"""Trials whose process died: run again as often as the sweep allows, then ended in their journals by the driver.

A worker that is killed, runs out of memory or leaves by `os._exit` writes nothing, and Ray gives up on one that dies
while it is set up, whatever `max_failures` says. So the driver counts the deaths, and when there are too many it writes
the end and its reason, also for a trial that never began: no cell of a sweep is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from gemma_nli.base.outgoing import shown
from gemma_nli.model.encoder import identify_encoder
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.records.outcome import ended_of
from gemma_nli.trial import TrialJournal, TrialRecord


class LostTrials:
    """The trials that one fleet lost, by key."""

    def __init__(self, ready: Prepared, tags: Mapping[str, str]) -> None:
        """
        Args:
            tags: tags that say where the trials of this run of the command ran.
        """
        self.ready, self.tags = ready, dict(tags)
        self.deaths: Counter[str] = Counter()
        self.again: dict[str, str] = {}  # trial key -> why it was lost, for those that may run again

    def ended(self, key: str) -> bool:
        """Whether the trial has written an end of its own in this run of the command."""
        record = TrialJournal(self.ready.storage, key).read()
        return record is not None and record.state != "running" and not self._is_old(key, record)

    def lost(self, key: str, deaths: int, cause: str) -> bool:
        """Ray has given up on a trial without an end: whether it is run again. If not, its end is written here.

        Raises:
            JournalError: it cannot be written.
        """
        record = TrialJournal(self.ready.storage, key).read()
        before = self.ready.records.get(key)
        begun = (record.attempts if record is not None else 0) - (before.attempts if before is not None else 0)
        self.deaths[key] = max(self.deaths[key] + max(1, deaths), begun)
        self.again[key] = cause
        if self.deaths[key] <= self.ready.spec.resources.max_failures:
            return True
        self._give_up(key)
        return False

    def take(self) -> list[dict[str, Any]]:
        """The trials to run again, as Ray is given them; they are then no longer noted as lost."""
        found = [{"key": key, "settings": self.ready.trials[key].settings} for key in self.again]
        self.again.clear()
        return found

    def give_up_all(self) -> list[str]:
        """Write the end of every trial that was to run again, as nothing runs it any more; their keys.

        Raises:
            JournalError: an end cannot be written.
        """
        left = list(self.again)
        for key in left:
            self._give_up(key)
        return left

    def refused(self, key: str, error: str) -> None:
        """A trial that ended as failed and could not write so: its end is written here.

        Raises:
            JournalError: it cannot be written from here either.
        """
        self._end(key, error)

    def _give_up(self, key: str) -> None:
        cause, what = self.again.pop(key), f"the trial's process died {self.deaths[key]} times"
        record = TrialJournal(self.ready.storage, key).read()
        begun = record is not None and not self._is_old(key, record)
        self._end(key, f"{what}{'' if begun else ' before the trial began'}: {cause}")

    def _end(self, key: str, error: str) -> None:
        ready, journal = self.ready, TrialJournal(self.ready.storage, key)
        record = journal.read()
        if record is None or self._is_old(key, record):
            config = ready.trials[key].config
            encoder = identify_encoder(config.model).fingerprint
            journal.start(config, ready.pairs.fingerprint, encoder, ready.pairs.num_folds, self.tags)
        journal.stop("failed", error=shown(error))

    def _is_old(self, key: str, record: TrialRecord) -> bool:
        """Whether the journal says what it said before this run of the command."""
        before = self.ready.records.get(key)
        return before is not None and ended_of(before) == ended_of(record)
