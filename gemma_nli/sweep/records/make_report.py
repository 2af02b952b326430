"""A sweep's report: made at its end and by `gemma-nli report`, and made again only if it would change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.from_journals import gather, merge
from gemma_nli.analysis.outside_predictions import check_names, read_predictions
from gemma_nli.analysis.sealed_posts import digest_of
from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import GemmaNliError, ReportError, SweepBusyError
from gemma_nli.base.files import write_whole
from gemma_nli.base.outgoing import shown_traceback
from gemma_nli.base.version import __version__
from gemma_nli.spec.spec import load_stored_sweep
from gemma_nli.sweep.prepare import Prepared, prepare
from gemma_nli.sweep.records.mlflow_recorder import Recorder
from gemma_nli.sweep.records.noted_corpus import corpus_and_pairs
from gemma_nli.sweep.records.reported_trials import evidence_of, reported
from gemma_nli.sweep.records.saved_report import FACTS, HTML, MARKDOWN, Reported, kept_report
from gemma_nli.sweep.records.sealed_looks import sealed_test
from gemma_nli.sweep.records.sweep_folder import SweepFolder, find_sweep
from gemma_nli.sweep.records.written_cards import CARD, keep_card, write_card
from gemma_nli.sweep.resume import stored_spec

if TYPE_CHECKING:
    from gemma_nli.analysis.findings import Findings

log = logging.getLogger(__name__)


def report_sweeps(
    names: Sequence[str],
    out: Path | None = None,
    encode: bool = False,
    outside: Mapping[str, Path] | None = None,
    latex: Path | None = None,
    card: Path | None = None,
) -> Reported:
    """The report of a sweep started before, or of several over one corpus.

    The posts need not be on this machine: what is read of them (TF-IDF, their length) is then left out.

    Args:
        out: folder to write to; by default the sweep's own (of several: a folder named after them).
        encode: compute the vectors that the cosine and zero-shot baselines lack.
        outside: files of other tools' out-of-fold predictions by name, compared as the baselines are
            (`analysis/outside_predictions.py` has their form).
        latex: folder for the report as LaTeX tables and PDF figures.
        card: file for a model card of the registered version; an empty path puts it beside the report.
    Raises:
        SweepError: no sweep of that name; ReportError: nothing has finished, the sweeps cannot be compared, or a
            file's predictions are not one of each evaluation pair.
    """
    from gemma_nli.analysis.baselines import NAMES

    outside = outside or {}
    check_names(list(outside), NAMES)
    if card is not None and len(dict.fromkeys(names)) > 1:
        raise ReportError("--model-card is of one sweep's registered version; name one sweep.")
    parts: list[Evidence] = []
    folders: list[Path] = []
    for name in dict.fromkeys(names):
        sweep_id, storage = find_sweep(name)
        kept = SweepFolder(storage / "sweeps" / sweep_id)
        kept.pull()
        folders.append(kept.path)
        spec = load_stored_sweep(kept.path / "spec.yaml")
        corpus, pairs = corpus_and_pairs(spec.base.data, kept)
        cells, sealed = reported(spec, kept), sealed_test(corpus.seal, kept, spec.name)
        parts.append(gather(spec, corpus, pairs, storage, cells, sweep_id, sealed))
    evidence = merge(parts)
    read = [read_predictions(name, Path(file), evidence.pairs, evidence.rows_N) for name, file in outside.items()]
    evidence.outside = tuple(read)
    own = len(parts) == 1 and out is None
    folder = out or (folders[0] if own else folders[0].parent / f"report-{_short(evidence.sweep_ids)}")
    report, findings = _write(evidence, folder, encode, note=own, latex=latex)
    if card is not None:
        card = folder / CARD if card == Path() else card
        write_card(findings, kept, card)
        report = dataclasses.replace(report, card=card)
    if own:
        kept.push(HTML, MARKDOWN, FACTS)
    return report


def send_report(name: str) -> str | None:
    """Log a sweep's kept report to its MLflow run; why it could not be, or None."""
    try:
        ready = prepare(stored_spec(name))
        if not ready.spec.base.mlflow.enabled:
            return None
        folder = SweepFolder(ready.folder)
        with folder.held(ready.spec.name):
            recorder = Recorder(ready, folder)
            try:
                recorder.open()
                recorder.end(folder.result())
            finally:
                recorder.abandon()
    except SweepBusyError as error:
        return f"MLflow will get the report when the sweep ends: {error}"
    except (
        GemmaNliError
    ) as error:  # MLflow is unreachable, or its password or the encoder is not here: the report is still written
        return f"MLflow does not have the report yet: {error}"
    return None


def report_at_end(ready: Prepared, folder: SweepFolder) -> Reported | None:
    """The report of a sweep that has just ended; an existing one if it is of the same trials.

    None if no trial has finished. Any other error is raised.
    """
    try:
        evidence = evidence_of(ready, folder)
    except ReportError:
        return None
    kept = kept_report(folder)
    if kept is not None and kept.facts.get("of") == _digest(evidence):
        return kept
    report, _ = _write(evidence, folder.path, encode=False, note=True)
    folder.push(HTML, MARKDOWN, FACTS)
    return report


def try_report(ready: Prepared, folder: SweepFolder) -> tuple[Reported | None, str | None]:
    """(report, why there is none): a report that fails is noted, and does not fail the sweep."""
    if not ready.spec.report.enabled:
        return None, None
    began = time.monotonic()
    try:
        found = report_at_end(ready, folder)
    except GemmaNliError as error:
        return None, f"no report: {error}"
    except Exception as error:  # noqa: BLE001 - logged, as far as it may be shown
        log.error("the report failed: %s", shown_traceback(error))
        line = command_line("gemma-nli", "--verbose", "report", ready.spec.name)
        return None, f"no report: {type(error).__name__}; see it with: {line}"
    log.info("report in %.1f s", time.monotonic() - began)
    return found, None


def _write(
    evidence: Evidence, folder: Path, encode: bool, note: bool, latex: Path | None = None
) -> tuple[Reported, Findings]:
    from gemma_nli.analysis.findings import facts_of
    from gemma_nli.analysis.report.write import write_report

    report = write_report(evidence, folder, encode, latex)
    facts = {"of": _digest(evidence), **facts_of(report.findings)}
    if note:
        write_whole(folder / FACTS, json.dumps(facts, indent=1).encode())
        keep_card(report.findings, folder)
    return Reported(report.html, report.markdown, facts, report.latex), report.findings


def _digest(evidence: Evidence) -> str:
    """Which trials in which state, described how, by which version."""
    states = sorted((trial.key, trial.state, trial.folds_done) for trial in evidence.trials)
    again = sorted((record.key, record.state) for record in evidence.confirmations)
    about = [__version__, evidence.names, evidence.questions, evidence.compared, evidence.varied, evidence.spec.metric]
    if evidence.spec.finalize.ensemble is not None:
        about.append(evidence.spec.finalize.ensemble.model_dump_json())
    read = [digest_of(evidence.sealed), *([] if evidence.corpus.has_texts else ["no texts"])]
    return hashlib.sha256(json.dumps([states, again, about, *read]).encode()).hexdigest()


def _short(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
