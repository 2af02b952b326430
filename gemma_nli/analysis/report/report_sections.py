"""What the report says, and in which order; the HTML page and the markdown have the same sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gemma_nli.analysis.ensembles import PER_CRITERION
from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.paired_tests import ROPE
from gemma_nli.analysis.report.confirmation_tables import confirmed_table, variance_table
from gemma_nli.analysis.report.final_tables import ensemble_table, has_scores, sealed_table
from gemma_nli.analysis.report.report_tables import (
    TableOf,
    baseline_table,
    baseline_tests_table,
    confusion_table,
    contrast_table,
    criteria_table,
    effect_table,
    leaderboard_table,
    mistake_table,
    phrasing_table,
    slice_table,
    two_trials_table,
)


@dataclass(frozen=True)
class Facts:
    """Named facts, one per line."""

    items: tuple[tuple[str, str], ...]

    def html(self, esc: Callable[[object], str]) -> str:
        lines = "".join(f"<dt>{esc(name)}</dt><dd>{esc(value)}</dd>" for name, value in self.items)
        return f"<dl>{lines}</dl>"

    def markdown(self) -> str:
        return "\n".join(f"- {name}: {value}" for name, value in self.items)


@dataclass(frozen=True)
class Code:
    text: str
    title: str = ""

    def html(self, esc: Callable[[object], str]) -> str:
        code = f"<pre><code>{esc(self.text)}</code></pre>"
        return f"<details><summary>{esc(self.title)}</summary>{code}</details>" if self.title else code

    def markdown(self) -> str:
        fence = "`" * 4
        return f"{fence}\n{self.text.rstrip()}\n{fence}"


@dataclass(frozen=True)
class Section:
    """`items` in order: a figure's name, (title, table), facts or code. `on_page`: what only the page can do."""

    name: str
    title: str
    lead: str
    items: tuple[str | tuple[str, TableOf] | Facts | Code, ...]
    on_page: str = ""


def sections(findings: Findings) -> list[Section]:
    """Every section with content."""
    found = [
        _compared(findings),
        _baselines(findings),
        _leaders(findings),
        _sealed(findings),
        _ensembles(findings),
        _confirmed(findings),
        _phrased(findings),
        _settings(findings),
        _training(findings),
        _errors(findings),
        _reproduce(findings),
    ]
    return [section for section in found if section is not None]


def _compared(findings: Findings) -> Section | None:
    answer = findings.answer
    if not answer.variants:
        return None
    how = {
        "compare": "Each compared value at its best, the rest tuned the same way for each.",
        "only": "Each value at its best.",
        "largest": "This sweep names nothing to compare, so the setting with the largest effect is compared: each "
        "value at its best, the rest tuned. To decide beforehand what is compared, name it under compare:.",
    }[answer.chosen_by]
    lead = (
        f"{how} Lead, tuned: the luck of being the best of its trials is taken off each, so a value wins nothing "
        "by having many; intervals and p hold for all pairs of values at once. Found in 80%: the true "
        "difference that this corpus and design would find in 80% of cases. The best trials by other tests, each pair "
        "by itself, so that intervals and p are not adjusted: over posts, the bootstrap; over trainings, the corrected "
        f"resampled t-test on folds; better, equal, worse: chances of a difference beyond {ROPE:g}, or within it."
    )
    others = ("The best trials by other tests", two_trials_table(findings))
    return Section("compared", "Compared", lead, ("answer", ("", contrast_table(findings)), others, "budget"))


def _baselines(findings: Findings) -> Section:
    lead = (
        "On the same folds and pairs, with thresholds chosen on training posts by the winner's rule. Lead: the winner, "
        "the luck of its choice taken off, minus the baseline; intervals and p hold for all rows at once. By every "
        "test: the winner as it is minus the baseline, each for itself; the columns are those of Compared."
    )
    if findings.evidence.outside:
        lead += (
            " Predictions of other tools were read from files: that each is of a model that never saw the posts of "
            "its fold is their makers' word."
        )
    tables = (("", baseline_table(findings)), ("By every test", baseline_tests_table(findings)))
    return Section("baselines", "Baselines", lead, tables)


def _leaders(findings: Findings) -> Section:
    tied = sum(row.level_with_winner for row in findings.rows) - 1
    others = "the one other trial" if tied == 1 else f"the {tied} other trials"
    marked = f"Marked: {others} not shown to be worse" if tied else "Every other trial is shown to be worse"
    lead = (
        f"Scores are means over folds. {marked} than the winner (95% intervals that hold for all rows at once). "
        f"The same trial won in {findings.honest.stability:.0%} of the resamples."
    )
    if len(findings.rows) == 1:
        lead = "Scores are means over folds."
    table = leaderboard_table(findings)
    return Section(
        "leaderboard", "Leaderboard", lead, (("", table),), "Marked rows are shaded; click a heading to sort."
    )


def _sealed(findings: Findings) -> Section | None:
    tests = findings.evidence.sealed
    if not tests:
        return None
    lead = (
        " ".join(test.sentence for test in tests)
        + " Foretold: the honest cross-validated score. The models are fitted "
        "on all other posts, and their thresholds are those that cross-validation chose; scores here are over all "
        "sealed pairs at once."
    )
    tables = tuple(("" if len(tests) == 1 else test.sweep, sealed_table(test)) for test in tests if has_scores(test))
    return Section("sealed", "Sealed test set", lead, tables)


def _ensembles(findings: Findings) -> Section | None:
    found = findings.ensembles
    if found is None:
        return None
    lead = (
        f"{found.sentence} An ensemble averages the probabilities and thresholds of {found.size} trials, added one at "
        "a time, each the one that helps most (one may come again). Held out: each fold by what the other folds chose, "
        "the single trial too; its score is therefore not the winner's. Intervals hold for all gains at once."
    )
    registered = findings.registered_ensemble
    if registered is not None:
        lead += f" This sweep registers {registered.about}, as finalize.ensemble asks."
    if found.better is not None and (registered is None or registered.finding.name != found.better):
        kind = ", per_criterion: true" if found.better == PER_CRITERION else ""
        lead += f" With finalize.ensemble: {{size: {found.size}{kind}}} the one that wins is registered."
    return Section("ensembles", "Ensembles", lead, (("", ensemble_table(findings)),))


def _confirmed(findings: Findings) -> Section | None:
    confirmation = findings.confirmation
    if confirmation is None:
        return None
    several, setting = len(confirmation.values) > 1, findings.answer.setting
    each = setting if len(findings.answer.keys) > 1 else f"value of {setting}"
    what = f"The best trial of each {each}" if several else "The best trial"
    lead = (
        f"{what}, trained again: {confirmation.seeds} seeds on each of {confirmation.drawings} fresh drawings of the "
        "folds. Confirmed: the mean of these trainings, less what the same posts still owe to the choice of the trial; "
        "its interval counts other posts, seeds and folds. Variance: standard deviations of the score by each source, "
        "by the method of moments; posts by the bootstrap, seeds of one training, folds beyond both. A pair's own "
        "noise counts once, with the posts."
    )
    tables = (("", confirmed_table(confirmation)), ("Variance", variance_table(confirmation)))
    return Section("confirmed", "Confirmed", lead, tables)


def _phrased(findings: Findings) -> Section | None:
    found = findings.phrasings
    if found is None:
        return None
    lead = (
        f"{found.sentence} Below: the winner's other settings ({found.kept}) in each wording and template, and their "
        "lead over the best of the others there. Intervals over posts hold for all phrasings and rivals at once. Where "
        "it won (shaded) the lead is partly luck; the other phrasings did not choose it."
    )
    return Section("phrasings", "In other words", lead, (("", phrasing_table(found)),))


def _settings(findings: Findings) -> Section | None:
    if not findings.effects:
        return None
    lead = (
        "What each setting did over all complete trials, the others held equal. Balanced: every combination of the "
        "others stands beside each value. Adjusted: by a linear model over the trials. Confounded: it changes together "
        "with others, or in too few trials, so nothing is claimed. Intervals and p count in other posts and the luck "
        "of single trials, and hold for all pairs of values of all settings at once."
    )
    table = ("", effect_table(findings))
    return Section("settings", "Settings", lead, (table, "effects", "importance", "interaction", "parallel", "scatter"))


def _training(findings: Findings) -> Section | None:
    if not findings.curves:
        return None
    return Section("training", "Training", "", ("curves",))


def _errors(findings: Findings) -> Section:
    mistakes, calibration = findings.mistakes, findings.calibration
    thresholds = ", ".join(f"{t:.2f}" for t in mistakes.thresholds)
    fallback = findings.evidence.complete[findings.evidence.winner].fallback
    thresholds += f" ({fallback})" if fallback else ""
    own = ", ".join(f"{name} {t:.2f}" for name, t in mistakes.own_thresholds.items())
    f1 = float(findings.evidence.fold_scores("f1")[findings.evidence.winner].mean())
    temperatures = ", ".join(f"{t:.2f}" for t in calibration.temperatures)
    facts = Facts(
        (
            ("thresholds, chosen on training posts", thresholds),
            *((("thresholds of single criteria, means over folds", own),) if own else ()),
            ("mean F1 at these thresholds", f"{f1:.3f}"),
            ("mean F1 at threshold 0.5", f"{mistakes.f1_at_half:.3f}"),
            ("calibration error", f"{calibration.error:.3f}, temperature scaled {calibration.scaled_error:.3f}"),
            ("Brier score", f"{calibration.brier:.3f}, temperature scaled {calibration.scaled_brier:.3f}"),
            ("temperatures, from the other folds", temperatures),
        )
    )
    items: list[str | tuple[str, TableOf] | Facts | Code] = [
        facts,
        ("Decisions", confusion_table(findings)),
        "criteria",
    ]
    items.append(("By criterion", criteria_table(findings)))
    items.append("calibration")
    items += [(f"By {title}", slice_table(parts, title)) for title, parts in mistakes.slices.items() if len(parts) > 1]
    if mistakes.most_confident:
        items.append(("Most confident mistakes", mistake_table(findings)))
    lead = "Of the winner's out-of-fold predictions. F1 here is over all folds at once; intervals resample posts. "
    lead += "AUC within a criterion is a mean over the folds that have both its classes. "
    lead += f"Scores {findings.evidence.measured_at}."
    return Section("errors", "Errors of the winner", lead, tuple(items))


def _reproduce(findings: Findings) -> Section:
    facts = Facts(tuple(findings.reproduce.items()))
    commands = Code("\n".join(findings.commands))
    config = Code(findings.config_yaml, "The winner's config.yaml")
    return Section("reproduce", "How to reproduce", "", (commands, facts, config))
