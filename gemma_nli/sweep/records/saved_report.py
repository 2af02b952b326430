"""The report that a sweep's folder holds.

storage/sweeps/<sweep_id>/report.html, report.md   what people read
                          report.json              what it says, and of which trials
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_nli.sweep.records.sweep_folder import SweepFolder

HTML, MARKDOWN, FACTS = "report.html", "report.md", "report.json"


@dataclass(frozen=True)
class Reported:
    """Where a report is and what it says: `facts` as report.json has them; `latex`, `card`: what was asked for beside
    it.
    """

    html: Path
    markdown: Path
    facts: dict[str, Any]
    latex: Path | None = None
    card: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        facts = {name: value for name, value in self.facts.items() if name != "of"}
        beside = {"latex": self.latex, "model_card": self.card}
        asked = {name: str(path) for name, path in beside.items() if path is not None}
        return {"html": str(self.html), "markdown": str(self.markdown), **asked, **facts}


def kept_report(folder: SweepFolder) -> Reported | None:
    """The report in a sweep's folder, if it is complete."""
    try:
        facts = json.loads((folder.path / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    html, markdown = folder.path / HTML, folder.path / MARKDOWN
    if not isinstance(facts, dict) or not html.is_file() or not markdown.is_file():
        return None
    return Reported(html, markdown, facts)


def honest_tags(report: Reported | None, key: str | None = None) -> dict[str, str]:
    """The winner's honest score as MLflow's tags, beside the raw one; none if `key` is not the winner's."""
    facts = report.facts if report is not None else {}
    honest = facts.get("honest")
    if not honest or key not in (None, facts["winner"]):
        return {}
    return score_tags(honest, str(facts["winner"]))


def score_tags(honest: Mapping[str, Any], key: str) -> dict[str, str]:
    """A score as report.json's `honest` has it, of the trial or ensemble `key`."""
    return {
        "gemma_nli.honest_metric": str(honest["metric"]),
        "gemma_nli.honest_value": repr(honest["honest"]),
        "gemma_nli.honest_raw": repr(honest["raw"]),
        "gemma_nli.honest_low": repr(honest["low"]),
        "gemma_nli.honest_high": repr(honest["high"]),
        "gemma_nli.honest_candidates": str(honest["candidates"]),
        "gemma_nli.honest_trial_key": key,
    }


def description_of(report: Reported, question: str) -> str:
    """What MLflow's page of the sweep says, as markdown: the question, the answer, what to do, what was measured."""
    from gemma_nli.analysis.report.markdown import esc

    facts = report.facts
    first, *others = map(esc, facts["answer"])
    lines = [f"*{esc(question)}*"] if question else []
    lines += [f"**{first}** {' '.join(others)}"]
    steps = [f"- **{name.replace('_', ' ').capitalize()}:** {esc(said)}" for name, said in facts["conclusion"].items()]
    lines += ["\n".join(steps), f"Scores {facts['measured_at']}. The whole report is among the artifacts: {HTML}."]
    return "\n\n".join(lines)
