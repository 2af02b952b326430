"""Model cards of a sweep: one in its folder for the version that its end registers, one for whoever asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gemma_nli.base.errors import ReportError
from gemma_nli.base.files import write_whole
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.records.saved_report import kept_report
from gemma_nli.sweep.records.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from gemma_nli.analysis.findings import Findings

CARD = "model_card.md"


def model_name(spec: SweepSpec) -> str:
    """The registered model that the sweep's best trial becomes a version of."""
    return spec.finalize.model_name or f"gemma_nli_{spec.base.output.experiment_name}"


def keep_card(findings: Findings, folder: Path) -> None:
    """Write the card that goes with the version which this sweep's end registers; its number is not known yet."""
    from gemma_nli.analysis.report.model_card import CardOf, model_card

    spec = findings.evidence.spec
    if spec.finalize.enabled and spec.base.mlflow.enabled:
        card = model_card(findings, CardOf(model_name(spec), alias=spec.finalize.alias))
        write_whole(folder / CARD, card.encode())


def kept_card(folder: SweepFolder, key: str) -> Path | None:
    """The card of the report in a sweep's folder, if it is of the trial, or of the ensemble, `key`."""
    report, card = kept_report(folder), folder.path / CARD
    return card if report is not None and report.facts.get("registers") == key and card.is_file() else None


def write_card(findings: Findings, folder: SweepFolder, target: Path) -> None:
    """The card of the version that the sweep has registered, or will.

    Raises:
        ReportError: the registered version is of another trial than the report's best, or the file cannot be written.
    """
    from gemma_nli.analysis.report.model_card import CardOf, model_card, of_version

    result, several = folder.result(), findings.registered_ensemble
    registered = result.get("registered")
    best = f"trial {findings.winner_key}" if several is None else several.key
    made_from = (registered or {}).get("ensemble", {}).get("key") or f"trial {(result.get('best') or {}).get('key')}"
    if registered and made_from != best:
        raise ReportError(
            f"--model-card: version {registered['version']} of {registered['name']} was made from {made_from}, and the "
            f"report would register {best}; run `gemma-nli resume` first, so that both are of the same."
        )
    model = of_version(CardOf(model_name(findings.evidence.spec)), registered)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, model_card(findings, model).encode())
    except OSError as error:
        raise ReportError(f"--model-card {target}: cannot be written: {error.strerror}.") from error
