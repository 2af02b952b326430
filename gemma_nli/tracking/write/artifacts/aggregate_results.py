"""The numbers of a trial that has ended, over its folds."""

from __future__ import annotations

from gemma_nli.tracking.write.artifact import TrialSource, to_json, trial_artifact


@trial_artifact("aggregate_results.json")
def aggregate_results(source: TrialSource) -> bytes | None:
    record = source.record
    if record.state not in ("finished", "pruned"):
        return None
    results = {
        "key": record.key,
        "state": record.state,
        "aggregates": record.aggregates,
        "criteria": record.criteria,
        "eval_negative_ratio": record.config.data.eval_negative_ratio,
        "negatives": record.config.data.negatives,
        "fold_fingerprint": record.fold_fingerprint,
    }
    return to_json(results)
