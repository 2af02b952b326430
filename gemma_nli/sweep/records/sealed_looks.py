"""What a sweep's folder knows of its sealed test set: which posts are sealed, and every look at them.

storage/sweeps/<sweep_id>/test.jsonl   one checksummed line per event: sealed (before the first trial), look (before
                                       anything is scored), scored

A look counts from the moment its line is on disk, whether it gave scores or not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_nli.analysis.sealed_posts import Look, SealedScore, SealedTest
from gemma_nli.base.checked_lines import checked_line, read_line
from gemma_nli.base.errors import SweepError
from gemma_nli.corpus.redsm5 import Seal
from gemma_nli.storage import folder_of
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.records.sweep_folder import TEST, SweepFolder, sweeps_called


@dataclass(frozen=True)
class SealedLooks:
    """The events of one folder; whoever writes holds it."""

    folder: SweepFolder

    def begin(self, seal: Seal) -> None:
        """Note which posts are sealed, once."""
        if sealed_posts(self.folder.path) is None:
            posts = {"posts": list(seal.post_ids), "fingerprint": seal.fingerprint}
            self._append({"event": "sealed", **posts})

    def count(self, known: int = 0) -> int:
        """Count a look, durably, and give its number; call it before a sealed text is read.

        Args:
            known: looks that MLflow knows of, in case this folder has lost some.
        """
        number = max(known, self.test_of("").count) + 1
        self._append({"event": "look", "number": number, "at_ms": time.time_ns() // 1_000_000})
        return number

    def scored(self, number: int, label: str, pairs: int, positives: int, scores: Sequence[SealedScore]) -> None:
        facts = {"label": label, "pairs": pairs, "positives": positives}
        self._append({"event": "scored", "number": number, **facts, "scores": [score.to_json() for score in scores]})

    def test_of(self, sweep: str) -> SealedTest:
        """The sealed set as far as it is noted."""
        posts, fingerprint, looks = 0, "", dict[int, Look]()
        for event in _events(self.folder.path):
            if event["event"] == "sealed":
                posts, fingerprint = len(event["posts"]), str(event["fingerprint"])
            elif event["event"] == "look":
                looks[event["number"]] = Look(event["number"], event["at_ms"])
            elif event["event"] == "scored" and event["number"] in looks:
                scores = tuple(SealedScore.from_json(score) for score in event["scores"])
                about = (event["label"], event["pairs"], event["positives"])
                looks[event["number"]] = Look(event["number"], looks[event["number"]].at_ms, *about, scores)
        return SealedTest(sweep, posts, fingerprint, tuple(look for _, look in sorted(looks.items())))

    def _append(self, event: dict[str, Any]) -> None:
        """On disk, and in a bucket, before it returns."""
        with (self.folder.path / TEST).open("ab") as file:
            file.write(b"\n" + checked_line(event) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.folder.push(TEST)


def sealed_test(ready_seal: Seal | None, folder: SweepFolder, sweep: str) -> list[SealedTest]:
    """What a report says of a sweep's sealed set; empty where nothing is sealed."""
    noted = SealedLooks(folder).test_of(sweep)
    if ready_seal is None:  # nothing is sealed, or the posts are not on this machine
        return [noted] if noted.posts else []
    return [SealedTest(sweep, len(ready_seal.post_ids), ready_seal.fingerprint, noted.looks)]


def refuse_another_seal(ready: Prepared) -> None:
    """A sweep of this name in this storage has sealed other posts, or none.

    Posts that were sealed would be trained on, or posts that trials were chosen by would be called sealed.

    Raises:
        SweepError: names both.
    """
    seal = ready.corpus.seal
    now = list(seal.post_ids) if seal is not None else []
    for sweep_id in sweeps_called(ready.spec.name, ready.storage):
        if sweep_id == ready.sweep_id:  # of which the sealed posts are a part
            continue
        path = folder_of(ready.storage / "sweeps" / sweep_id)
        if not (path / "cells.jsonl").exists() and not (path / TEST).exists():
            continue
        before = sealed_posts(path) or []
        if before != now:
            raise SweepError(
                f"sweep '{ready.spec.name}' in {ready.storage} was run with {_counted(before)}, and data.test (or the "
                f"corpus) now has {_counted(now)}{_apart(before, now)}: posts that were sealed would be trained on, or "
                "the other way round. Set data.test back, or give the sweep another name."
            )


def sealed_posts(path: Path) -> list[str] | None:
    """The ids that a sweep's folder notes as sealed, None where it notes nothing."""
    for event in _events(path):
        if event["event"] == "sealed":
            return [str(post) for post in event["posts"]]
    return None


def _events(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = (path / TEST).read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        event = read_line(line) if line else None
        if event is not None:
            yield event


def _counted(posts: Sequence[str]) -> str:
    return f"{len(posts)} sealed post{'s' if len(posts) != 1 else ''}" if posts else "no sealed posts"


def _apart(before: Sequence[str], now: Sequence[str]) -> str:
    """Which, where their number does not tell."""
    gone = sorted(set(before) - set(now))
    return f" ({gone[0]} is no longer among them)" if gone and len(before) == len(now) else ""
