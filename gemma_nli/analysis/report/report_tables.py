"""The report's tables as rows of cells, so that page and markdown show the same."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.importance import LEAST
from gemma_nli.analysis.inference.significance import Difference
from gemma_nli.analysis.mistakes import Slice, sliced_metrics
from gemma_nli.analysis.paired_tests import PairedTests
from gemma_nli.analysis.phrasings import Phrasings
from gemma_nli.analysis.wording import brief, p_text, short
from gemma_nli.base.metrics import METRICS, RankedMetric, measured_by
from gemma_nli.spec.domain import shown

MAX_ROWS = 500


@dataclass(frozen=True)
class Words:
    """A cell: what is read, and what it is sorted by."""

    text: str
    by: str = ""
    number: bool = False


@dataclass(frozen=True)
class TableOf:
    """`marked`: rows that stand out. `scored`: whether it holds scores, beside which is said at what they were
    measured.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Words, ...], ...]
    marked: frozenset[int] = field(default_factory=frozenset)
    note: str = ""
    scored: bool = True

    def without_empty_columns(self) -> TableOf:
        """Columns in which no row says anything are left out; a table without rows is as it was."""
        if not self.rows:
            return self
        kept = [i for i in range(len(self.header)) if any(row[i].text not in ("", "-") for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return dataclasses.replace(self, header=tuple(self.header[i] for i in kept), rows=rows)


def number(value: float, digits: int = 3) -> Words:
    return Words("-", "", True) if math.isnan(value) else Words(f"{value:.{digits}f}", f"{value:.6f}", True)


def count(value: int) -> Words:
    return Words(str(value), str(value), True)


def word(text: object) -> Words:
    return Words(str(text))


def phrasing_table(found: Phrasings) -> TableOf:
    """The winner's other settings in each phrasing, the one that won marked."""
    header = ("phrasing", found.score, "rivals", "lead", "95% at once")
    rows = tuple(
        (
            word(each.name),
            number(each.score),
            count(each.rivals),
            number(each.lead.value),
            word(f"{each.lead.low:.3f} to {each.lead.high:.3f}"),
        )
        for each in found.phrasings
    )
    return TableOf(header, rows, frozenset(row for row, each in enumerate(found.phrasings) if each.won))


def leaderboard_table(findings: Findings) -> TableOf:
    """Rank, settings, scores; trials that cannot be distinguished from the winner are marked."""
    keys, several = findings.evidence.varied, len(findings.evidence.names) > 1
    score = findings.metric_name
    header = ["#", *(["sweep"] if several else []), *(short(key) for key in keys), score, "std"]
    others = [name for name in ("f1", "auc", "macro_auc") if name != findings.draws.metric]
    header += [measured_by(name).label for name in others]
    header += ["behind", "95% at once", "note"]
    lines, marked = [], set()
    for place, row in enumerate(findings.rows[:MAX_ROWS]):
        line = [count(row.rank) if row.rank else Words("-", "", True), *([word(row.sweep)] if several else [])]
        for key in keys:
            value = row.settings.get(key)
            numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
            line.append(Words(brief(value), str(value) if numeric else shown(value), numeric))
        line += [number(row.score), number(row.std)]
        line += [number({"f1": row.f1, "auc": row.auc, "macro_auc": row.macro_auc}[name]) for name in others]
        interval = "" if math.isnan(row.low) or row.rank == 1 else f"{row.low:.3f} to {row.high:.3f}"
        line += [
            number(row.behind if len(findings.rows) > 1 else math.nan),
            word(interval),
            word(row.note if row.state == "finished" else f"{row.state} {row.note}"),
        ]
        lines.append(tuple(line))
        if row.level_with_winner and row.rank != 1:
            marked.add(place)
    left = len(findings.rows) - len(lines)
    note = f"{left} more trials are in MLflow." if left > 0 else ""
    return TableOf(tuple(header), tuple(lines), frozenset(marked), note).without_empty_columns()


def contrast_table(findings: Findings) -> TableOf:
    """The leader against each other value: what the answer is made of."""
    header = ("against", "lead, tuned", "95% interval", "p, adjusted", "found in 80%")
    rows = [(word(c.other), *_judged(c.tuned), number(c.smallest)) for c in findings.answer.contrasts]
    return TableOf(header, tuple(rows))


def two_trials_table(findings: Findings) -> TableOf:
    """The best trials of the leader and of each other value, as they are, by every other test."""
    rows = [
        (word(c.other), word(f"{c.fixed.value:.3f} ({c.fixed.low:.3f} to {c.fixed.high:.3f})"), *_tests(c.tests))
        for c in findings.answer.contrasts
    ]
    return TableOf(("against", "over posts", *TESTS), tuple(rows))


TESTS = ("over trainings", "better", "equal", "worse", "accuracy (McNemar)", "AUC (DeLong)")


def _judged(difference: Difference) -> tuple[Words, ...]:
    """Value, interval and p-value."""
    return (
        number(difference.value),
        word(f"{difference.low:.3f} to {difference.high:.3f}"),
        Words(p_text(difference.p_value), f"{difference.p_value:.6f}", True),
    )


def _tests(tests: PairedTests) -> tuple[Words, ...]:
    """The cells under `TESTS`."""
    folds, belief = tests.folds, tests.belief
    chances = (belief.better, belief.equal, belief.worse)
    known = not math.isnan(folds.value)
    return (
        word(f"{folds.value:.3f} ({folds.low:.3f} to {folds.high:.3f})" if known else "-"),
        *(Words(f"{p:.0%}", f"{p:.6f}", True) if known else Words("-", "", True) for p in chances),
        word(f"{tests.accuracy.value:.3f}, p {p_text(tests.accuracy.p_value)}"),
        word(f"{tests.auc.value:.3f}, p {p_text(tests.auc.p_value)}"),
    )


def baseline_table(findings: Findings) -> TableOf:
    score = findings.metric_name
    lead = (f"winner's lead, {score}", "95% at once", "p, adjusted")
    header = ("baseline", "what it does", "F1", "AUC", "macro AUC", *lead, "the best trial")
    rows = [
        (
            word(b.name),
            word(b.about),
            number(b.f1),
            number(b.auc),
            number(b.macro_auc),
            *_judged(b.ahead),
            word(b.outcome),
        )
        for b in findings.baselines
    ]
    return TableOf(header, tuple(rows))


def baseline_tests_table(findings: Findings) -> TableOf:
    """The winner as it is against each baseline by every test."""
    rows = [(word(b.name), number(b.smallest), *_tests(b.tests)) for b in findings.baselines]
    return TableOf(("against", "found in 80%", *TESTS), tuple(rows))


def effect_table(findings: Findings) -> TableOf:
    header = (
        "setting",
        "best on average",
        "worst",
        "difference",
        "95% interval",
        "p, adjusted",
        "found in 80%",
        "design",
    )
    methods = [name for name in LEAST if any(name in effect.importance for effect in findings.effects)]
    rows = []
    for effect in findings.effects:
        levels = sorted(effect.levels, key=lambda level: -level.mean)
        rows.append(
            (
                word(effect.key),
                word(levels[0].name),
                word(levels[-1].name),
                number(effect.spread.value),
                word(f"{effect.spread.low:.3f} to {effect.spread.high:.3f}" if effect.judged else ""),
                Words(p_text(effect.spread.p_value), f"{effect.spread.p_value:.6f}" if effect.judged else "", True),
                number(effect.smallest),
                word(effect.design),
                *(number(effect.importance.get(name, math.nan), 2) for name in methods),
            )
        )
    return TableOf((*header, *methods), tuple(rows))


def criteria_table(findings: Findings) -> TableOf:
    """By criterion; what ranks is within one, as the macro means average it."""
    table = slice_table(findings.mistakes.criteria, "criterion")
    ranked = [each.label for each in sliced_metrics().values() if isinstance(each, RankedMetric)]
    header = tuple(f"{name} within" if name in ranked else name for name in table.header)
    return dataclasses.replace(table, header=header, note=findings.within.note)


def slice_table(items: tuple[Slice, ...], first: str) -> TableOf:
    others = [(name, each.label) for name, each in sliced_metrics().items() if name != "f1"]
    header = (first, "pairs", "positive", METRICS["f1"].label, "95% interval", *(label for _, label in others))
    rows = [
        (
            word(item.name),
            count(item.pairs),
            count(item.support),
            number(item.f1),
            word("" if math.isnan(item.low) else f"{item.low:.3f} to {item.high:.3f}"),
            *(number(item.scores[name]) for name, _ in others),
        )
        for item in items
    ]
    return TableOf(header, tuple(rows)).without_empty_columns()


def confusion_table(findings: Findings) -> TableOf:
    c = findings.mistakes.confusion
    header = ("the pair is", "called matched", "called not matched")
    matched = (word("matched"), count(c["true positives"]), count(c["false negatives"]))
    others = (word("not matched"), count(c["false positives"]), count(c["true negatives"]))
    return TableOf(header, (matched, others), scored=False)


def mistake_table(findings: Findings) -> TableOf:
    most_confident, with_text = findings.mistakes.most_confident, any(m.text for m in findings.mistakes.most_confident)
    header = ("pair", "is", "probability of matched", "threshold", "source", *(("text",) if with_text else ()))
    rows = [
        (
            word(m.pair_id),
            word("matched" if m.label else "not matched"),
            number(m.probability, 4),
            number(m.threshold),
            word(m.source),
            *((word(m.text),) if with_text else ()),
        )
        for m in most_confident
    ]
    return TableOf(header, tuple(rows), scored=False)
