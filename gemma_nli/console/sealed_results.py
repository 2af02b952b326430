"""What `gemma-nli test` prints: models and baselines on the sealed posts, beside what was foretold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gemma_nli.console.terminal import Sheet, Terminal

if TYPE_CHECKING:
    from gemma_nli.sweep.open_sealed import Opened


def show_opened(opened: Opened) -> None:
    """The look's number first: a score is worth less with each one."""
    console = Terminal()
    last = opened.test.last
    assert last is not None, "a look has just been counted"
    assert last.scores, "and it has scores"
    title = f"look {opened.number}: {last.pairs} sealed pairs of {opened.test.posts} posts, {last.positives} positive"
    table = Sheet("", last.label, "95% interval", "foretold", right={last.label}, title=title)
    for score in last.scores:
        interval = "-" if math.isnan(score.score.low) else f"{score.score.low:.3f} to {score.score.high:.3f}"
        foretold = score.foretold.text if score.foretold is not None else ""
        table.add(score.name, f"{score.score.value:.3f}", interval, foretold)
    console.print(table)
    console.say(last.sentence, "bold")
    for score in last.scores[1:]:
        if score.ahead is not None and not math.isnan(score.ahead.low):
            console.say(f"{last.scores[0].name} less {score.name}: {score.ahead.text}")
    console.say(
        f"model: {opened.registered}" if opened.registered else "model: refitted here, not registered", whole=True
    )
    if opened.report is not None:
        console.say(f"report: {opened.report.html}", whole=True)
