"""What a copy of the package does with the files that CONTRIBUTING.md shows; run by test_contributing.py.

Usage: python contributed_parts.py FACTS.json. The last line that it prints is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import gemma_nli
from gemma_nli.base.errors import SpecError
from gemma_nli.config import RunConfig
from gemma_nli.local.train import run_here
from gemma_nli.model.pooling import build_pooler
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Changed, Lease, folder_of, place_of


def pooling(base: RunConfig) -> dict[str, Any]:
    """Vectors of a text of five tokens on either side of its padding, and trials' settings for their keys."""
    h_BTH = torch.arange(16.0).reshape(2, 8, 1) ** 2
    mask_BT = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1]])
    chosen = base.with_settings({"model.pooling_strategy": "middle_k"})
    keys = [chosen.with_settings({"model.pooling_k": k}).canonical() for k in (1, 3)]
    return {
        "vectors": [build_pooler("middle_k", 1, k)(h_BTH, mask_BT).flatten().tolist() for k in (1, 3, 9)],
        "k is in the key": keys[0] != keys[1],
    }


def storage(base: RunConfig) -> dict[str, Any]:
    """A bucket's contract, a lease in it, and what a run keeps there."""
    address = "mem://box/a"
    spec = SweepSpec.from_mapping({"name": "x", "space": {"training.seed": {"grid": [1]}}, "storage": address})
    try:
        SweepSpec.from_mapping({"name": "x", "space": {"training.seed": {"grid": [1]}}, "storage": "none://box"})
        refused = ""
    except SpecError as error:
        refused = str(error)
    place = place_of(spec.storage)
    bucket = place.bucket
    bucket.check_conditions("probe")
    version = bucket.put("a/b", b"1", if_absent=True)
    try:
        bucket.put("a/b", b"2", if_match=f"{version}x")
        conflict = False
    except Changed:
        conflict = True
    first, second = Lease(place / "lease"), Lease(place / "lease")
    leased = [first.acquire(patient=False), second.acquire(patient=False)]
    first.release()
    fetched = bucket.fetch("a/b", folder_of(place) / "b") and (folder_of(place) / "b").read_bytes().decode()
    bucket.delete("a/b")
    gone = bucket.fetch("a/b", folder_of(place) / "gone")
    with tempfile.TemporaryDirectory() as output:
        run_here(base, Path(output), storage=place)
    return {
        "refused": refused,
        "conflict": conflict,
        "leased": leased,
        "fetched": fetched,
        "gone": gone,
        "kept": any(key.startswith("a/features/") for key in bucket.keys("a/")),
    }


def run(base: RunConfig) -> dict[str, Any]:
    """A run that has all of them."""
    config = base.with_settings({"model.pooling_strategy": "middle_k", "model.pooling_k": 2})
    with tempfile.TemporaryDirectory() as output:
        done = run_here(config, Path(output))
        found = sorted(path.name for path in done.folder.iterdir())
        counts = json.loads((done.folder / "confusion_matrix.json").read_bytes())
    return {
        "files": found,
        "counts": counts["label by decision"],
        "pairs": sum(len(fold.rows) for fold in done.record.folds.values()),
        "specificity": done.result.aggregates.get("cv_aggregate/mean_specificity"),
    }


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text())
    base = RunConfig().with_settings(
        {
            "data.data_dir": facts["corpus"],
            "data.num_folds": 3,
            "model.name": facts["encoder"],
            "model.max_length": 24,
            "training.num_epochs": 2,
            "mlflow.enabled": False,
        }
    )
    answer: dict[str, Any] = {job.__name__: job(base) for job in (pooling, storage, run)}
    print(json.dumps({"package": gemma_nli.__file__, **answer}))


if __name__ == "__main__":
    main()
