"""A model card of the registered version, as the Hugging Face hub reads it: YAML, then what the report knows of it.

Its numbers are the report's own cells; no text of a post is among them.
Source: Mitchell et al. 2019, "Model Cards for Model Reporting"; huggingface.co/docs/hub/model-cards (the metadata).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.report.final_tables import members_table
from gemma_nli.analysis.report.latex_files import settings_table
from gemma_nli.analysis.report.markdown import esc, markdown_table
from gemma_nli.analysis.report.report_tables import baseline_table, criteria_table
from gemma_nli.base.errors import EncoderError
from gemma_nli.base.private_texts import without_posts
from gemma_nli.base.what_was_measured import ENSEMBLE_REFIT, REFIT
from gemma_nli.model.loading.identity import encoder_folder
from gemma_nli.model.loading.stated_licence import OTHER, StatedLicence, stated_licence

_HUB_METRICS = {"f1": "f1", "auc": "roc_auc", "accuracy": "accuracy", "precision": "precision", "recall": "recall"}
"""Ours to the hub's names, where it has one."""


@dataclass(frozen=True)
class CardOf:
    """The registered model's name; its version and alias, None while no version is registered."""

    name: str
    version: int | None = None
    alias: str | None = None

    @property
    def uri(self) -> str:
        which = f"/{self.version}" if self.version is not None else f"@{self.alias}" if self.alias else "/latest"
        return f"models:/{self.name}{which}"


def model_card(findings: Findings, model: CardOf) -> str:
    """The whole file."""
    licence = _licence(findings)
    front = yaml.safe_dump(metadata(findings, model, licence), sort_keys=False, allow_unicode=True)
    several = findings.registered_ensemble
    of_trial = "the best single trial's" if several else "the trial's"
    title = esc(model.name) + (f", version {model.version}" if model.version is not None else "")
    parts = [
        f"---\n{front}---\n\n# {title}",
        "Given a post (premise) and a criterion (hypothesis), the probability that the post shows the criterion. "
        f"{_made_of(findings)} of the sweep {esc(', '.join(findings.evidence.names))}.",
        f"**{'Its are' if several else 'This model is'} {ENSEMBLE_REFIT if several else REFIT}.**",
        *([markdown_table(members_table(findings))] if several else []),
        *_score(findings),
        "## Data\n",
        _listed(_data(findings)),
        "## Baselines\n",
        "On the same folds and pairs; intervals and p hold for all rows at once.\n",
        markdown_table(baseline_table(findings)),
        "## By criterion\n",
        f"Of {of_trial} out-of-fold predictions, over all folds.\n",
        markdown_table(criteria_table(findings)),
        "## Settings\n",
        *(["Of the best single trial; each member's own are in its bundle.json.\n"] if several else []),
        markdown_table(settings_table(findings)),
        "## Limits\n",
        _listed(_limits(findings)),
        "## How to load it\n",
        _loading(model, single=several is None),
        "## Licence\n",
        _licence_text(findings, licence),
    ]
    text = "\n".join(f"{part}\n" for part in parts if part).rstrip()
    return without_posts(text, findings.evidence.corpus) + "\n"


def metadata(findings: Findings, model: CardOf, licence: StatedLicence | None) -> dict[str, Any]:
    """The YAML section: what the hub reads."""
    value, several = findings.honest.value, findings.registered_ensemble
    label = f"cross-validated {findings.metric_name} of the trial, the luck of its choice taken off (not of this refit)"
    if several is not None:
        value = several.finding.value
        label = f"cross-validated {findings.metric_name} of an ensemble, each fold by one that the other folds chose"
    kind = _HUB_METRICS.get(findings.draws.metric, findings.draws.metric)
    found: dict[str, Any] = {"library_name": "gemma_nli", "pipeline_tag": "text-classification"}
    if licence is not None:
        found["license"] = licence.id
        found |= {"license_name": licence.name} if licence.name else {}
        found |= {"license_link": licence.link} if licence.link else {}
    name = findings.evidence.complete[findings.evidence.winner].config.model.name
    if "/" in name and not Path(name).expanduser().exists() and not name.startswith((".", "~", "/")):
        found["base_model"] = name
    corpus = Path(findings.evidence.spec.base.data.data_dir).name or "corpus"
    return {
        **found,
        "tags": ["text-classification", "nli", "gemma_nli"],
        "metrics": [kind],
        "model-index": [
            {
                "name": model.name,
                "results": [
                    {
                        "task": {"type": "text-classification", "name": "Criteria matching of text pairs"},
                        "dataset": {"type": corpus, "name": corpus},
                        "metrics": [{"type": kind, "value": round(value, 4), "name": label}],
                    }
                ],
            }
        ],
    }


def _made_of(findings: Findings) -> str:
    several = findings.registered_ensemble
    if several is None:
        return f"Refitted from trial {findings.winner_key}, the best"
    return f"{several.about[0].upper()}{several.about[1:]}, whose probabilities and thresholds are averaged by weight,"


def _score(findings: Findings) -> list[str]:
    honest, several = findings.honest, findings.registered_ensemble
    among = findings.evidence.measured_at
    if several is not None:
        low, high = several.interval
        return [
            "## Score\n",
            f"{findings.metric_name} **{several.finding.value:.3f}** (95% interval {low:.3f} to {high:.3f}) {among}, "
            "each fold measured by an ensemble that the other folds chose; of the ensemble that is registered, on the "
            f"folds that chose it, {several.finding.raw:.3f}. The interval is over posts.",
            esc(findings.ensembles.sentence if findings.ensembles is not None else ""),
            f"{esc(findings.answer.first)} {esc(findings.answer.second)}",
        ]
    return [
        "## Score\n",
        f"{findings.metric_name} **{honest.value:.3f}** ({honest.level:.0%} interval {honest.low:.3f} to "
        f"{honest.high:.3f}) {among}, the luck of being the best of {honest.candidates} trials taken off; the trial's "
        f"cross-validated score is {honest.raw:.3f}. The interval is over posts.",
        findings.within.sentence,
        f"{esc(findings.answer.first)} {esc(findings.answer.second)}",
    ]


def _data(findings: Findings) -> Mapping[str, str]:
    evidence, pairs = findings.evidence, findings.evidence.pairs
    data = evidence.complete[evidence.winner].config.data
    copies, groups = pairs.copies
    return {
        "corpus": f"{len(pairs.post_ids)} posts, {len(pairs.criterion_ids)} criteria, {int(pairs.label_N.sum())} "
        f"positive pairs (fingerprint {pairs.corpus_fingerprint[:16]})",
        "folds": f"{pairs.num_folds}, grouped by post, seed {pairs.fold_seed} (fingerprint {pairs.fingerprint[:16]})"
        + (f"; {copies} posts are copies, in {groups} groups that folds keep whole" if copies else ""),
        "measured on": f"{len(evidence.rows_N)} pairs of {len(np.unique(evidence.post_N))} posts, "
        + evidence.measured_at,
        "negatives": f"{data.negatives}, {data.negative_ratio:g} per positive in training",
    }


def _limits(findings: Findings) -> Mapping[str, str]:
    found = {
        "refit": f"its {ENSEMBLE_REFIT}" if findings.registered_ensemble else f"the registered model is {REFIT}",
        "use": "it predicts how annotators judged posts like these; it is no diagnosis, and other sources of text were "
        "not measured",
        "prevalence": "F1, precision and probabilities change with the share of negatives; they hold for the one above",
    }
    if not findings.evidence.confirmations:
        found["training seeds"] = "one training per trial: what other seeds would give is not known"
    return {**found, **{f"warning {i}": line for i, line in enumerate(findings.warnings, start=1)}}


def _loading(model: CardOf, single: bool) -> str:
    fence = "```"
    registered = "" if model.version is not None else "No version is registered yet; once one is:\n\n"
    module = f"model = gemma_nli.load_model({model.uri!r})\n"
    return (
        f"{registered}{fence}python\nimport gemma_nli\n\n{module if single else ''}"
        f"scorer = gemma_nli.load_scorer({model.uri!r})  # tables in, probabilities out\n{fence}\n\n"
        f"{fence}console\n$ gemma-nli predict --model {model.uri} --input pairs.csv --output scored.csv\n{fence}\n\n"
        f"With MLflow alone: `mlflow.pyfunc.load_model({model.uri!r})`. A row is a premise and a hypothesis; without a "
        "hypothesis the answer has a probability for each criterion. Weights are safetensors: nothing is unpickled."
    )


def _licence(findings: Findings) -> StatedLicence | None:
    try:
        config = findings.evidence.complete[findings.evidence.winner].config
        return stated_licence(encoder_folder(config.model))
    except EncoderError:
        return None  # it is on another machine


def _licence_text(findings: Findings, licence: StatedLicence | None) -> str:
    name = Path(findings.evidence.complete[findings.evidence.winner].config.model.name).name
    if licence is None:
        return f"The folder of the encoder ({esc(name)}) states no licence, or is not on the machine that wrote this."
    stated = licence.name if licence.id == OTHER and licence.name else licence.id
    return (
        f"The encoder ({esc(name)}) is under {esc(stated)}, as {esc(licence.where)} in its folder states; this model "
        "contains its weights. The posts it was trained on have terms of their own."
    )


def _listed(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {esc(name)}: {esc(text)}" for name, text in facts.items())


def of_version(model: CardOf, registered: Mapping[str, Any] | None) -> CardOf:
    """With what `result.json` says was registered."""
    if not registered:
        return model
    return dataclasses.replace(
        model, name=registered["name"], version=int(registered["version"]), alias=registered["alias"]
    )
