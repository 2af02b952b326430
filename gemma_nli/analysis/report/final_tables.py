"""Tables of what comes after the choice: sealed posts, and several trials served as one."""

from __future__ import annotations

import math

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.report.report_tables import TableOf, number, word
from gemma_nli.analysis.sealed_posts import SealedTest
from gemma_nli.base.metrics import measured_by
from gemma_nli.spec.domain import shown

MEMBERS = 8


def has_scores(test: SealedTest) -> bool:
    return test.last is not None and bool(test.last.scores)


def sealed_table(test: SealedTest) -> TableOf:
    """Models and baselines on the sealed pairs, as the latest look found them."""
    last = test.last
    assert last is not None
    assert last.scores, "ask has_scores first"
    others = list(last.scores[0].others)
    header = ("", "what it is", last.label, "95% interval", "foretold", "apart", "the first one's lead")
    rows = [
        (
            word(score.name),
            word(score.about),
            number(score.score.value),
            word(f"{score.score.low:.3f} to {score.score.high:.3f}"),
            *(word(found.text if found else "") for found in (score.foretold, score.apart, score.ahead)),
            *(number(score.others[name]) for name in others),
        )
        for score in last.scores
    ]
    note = f"{last.pairs} pairs of {test.posts} posts, {last.positives} of them positive; look {last.number}."
    return TableOf((*header, *(measured_by(name).label for name in others)), tuple(rows), note=note)


def members_table(findings: Findings) -> TableOf:
    """The trials of the registered ensemble, the heaviest first; a trial's score is its own, on all folds."""
    assert findings.registered_ensemble is not None
    rows = {row.key: row for row in findings.rows}
    header = ("weight", "trial", "rank", "score", *findings.evidence.varied)
    members = [(rows[key], weight) for key, weight in findings.registered_ensemble.weights.items()]
    return TableOf(
        header,
        tuple(
            (
                word(f"{weight:.0%}"),
                word(row.key),
                word(str(row.rank)),
                number(row.score),
                *(word(shown(row.settings.get(name))) for name in findings.evidence.varied),
            )
            for row, weight in members
        ),
    )


def ensemble_table(findings: Findings) -> TableOf:
    """The single best trial and the ensembles, each chosen and measured on different folds."""
    assert findings.ensembles is not None
    ranks = {row.key: row.rank for row in findings.rows}
    header = ("what is served", "held out", "on its own choice", "gain", "95% interval", "trials, by rank")
    rows = []
    for each in findings.ensembles.found:
        named = [(ranks[findings.evidence.complete[place].key], weight) for place, weight in each.members]
        members = ", ".join(f"{rank} ({weight:.0%})" for rank, weight in named[:MEMBERS])
        more = f", {len(named) - MEMBERS} more" if len(named) > MEMBERS else ""
        rows.append(
            (
                word(each.name),
                number(each.value),
                number(each.raw),
                number(each.gain.value if each.gain is not None else math.nan),
                word(f"{each.gain.low:.3f} to {each.gain.high:.3f}" if each.gain is not None else ""),
                word(f"{members}{more}"),
            )
        )
    return TableOf(header, tuple(rows))
