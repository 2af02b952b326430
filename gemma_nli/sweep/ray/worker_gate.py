"""What a Ray worker may print about the posts it works on: its exceptions and its log go to files that others read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gemma_nli.base.outgoing import guard_process, leaving
from gemma_nli.base.private_texts import forget, remember_corpus, remember_texts
from gemma_nli.corpus.redsm5 import Corpus

_NAME = "posts of this worker"


def guard_worker(posts: Corpus | Sequence[str], log_text: bool = False) -> None:
    """From now on this process prints and logs nothing that quotes these posts, unless `data.log_text` allows it."""
    guard_process()
    if log_text:
        forget(_NAME)
    elif isinstance(posts, Corpus):
        remember_corpus(_NAME, posts)
    else:
        remember_texts(_NAME, posts)


@contextmanager
def worker_gate(posts: Corpus | Sequence[str], log_text: bool = False) -> Iterator[None]:
    """A task's body: what it raises reaches Ray, and so the driver, with private text removed."""
    guard_worker(posts, log_text)
    with leaving():
        yield
