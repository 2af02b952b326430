"""What `gemma-nli baseline` prints."""

from __future__ import annotations

from gemma_nli.console.terminal import Sheet, Terminal
from gemma_nli.local.baseline import BaselineScores


def show_baseline(found: BaselineScores) -> None:
    """A baseline's scores, with those of the criterion alone below."""
    console = Terminal()
    names = list(found.scores)
    title = f"{found.num_pairs} evaluation pairs, {found.ratio} negatives per positive"
    table = Sheet("", *names, right=set(names), title=title)
    for name, scores in ((found.name, found.scores), ("criterion only", found.criterion_only)):
        table.add(name, *(f"{scores[metric]:.3f}" for metric in names))
    console.print(table)
    console.say(f"{found.name}: {found.about}")
    for note in found.notes:
        console.say_all(f"note: {note}", "yellow")
