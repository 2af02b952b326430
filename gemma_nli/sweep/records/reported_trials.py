"""Which trials of a sweep's folder a report is about, and their evidence."""

from __future__ import annotations

from typing import Any

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.from_journals import gather
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.prepare import Prepared, asked_for, is_confirming
from gemma_nli.sweep.records.sealed_looks import sealed_test
from gemma_nli.sweep.records.sweep_folder import SweepFolder


def reported(spec: SweepSpec, folder: SweepFolder) -> dict[str, dict[str, Any]]:
    """What the sweep asks for now, and the confirming trials."""
    noted = folder.cells()
    return {**asked_for(spec, noted), **{key: found for key, found in noted.items() if is_confirming(found)}}


def evidence_of(ready: Prepared, folder: SweepFolder) -> Evidence:
    """Of a prepared sweep's journals; raises ReportError where no trial has finished."""
    cells, sealed = reported(ready.spec, folder), sealed_test(ready.corpus.seal, folder, ready.spec.name)
    return gather(ready.spec, ready.corpus, ready.pairs, ready.storage, cells, ready.sweep_id, sealed)
