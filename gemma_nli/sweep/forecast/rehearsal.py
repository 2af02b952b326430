"""A tiny sweep, for the cost that every sweep has whatever its size: one cell, one epoch, twenty made-up posts.

It runs through the real engine, from Ray's workers and their imports to a registered model, in a folder of its own in
the sweep's storage and with an MLflow store of its own; both are gone afterwards.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from gemma_nli.base.environment import set_in_environment
from gemma_nli.base.errors import SweepError
from gemma_nli.config import RunConfig, sqlite_address
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place, Prefix, folder_of, place_of
from gemma_nli.sweep.engine import run_sweep


def rehearse(spec: SweepSpec, config: RunConfig) -> dict[str, float]:
    """Seconds of each phase (`total encode tune finalize`) of a sweep of that one configuration; call it within Ray.

    Raises:
        SweepError: the storage cannot be written, or the one trial fails: with the trial's own error.
    """
    storage = place_of(spec.storage) / f".rehearsal-{uuid.uuid4().hex[:12]}"
    folder = folder_of(storage)  # of the data and the rehearsal's MLflow, which the driver alone uses
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise SweepError(
            f"{folder.parent}: cannot be created: {error.strerror}; set storage= to a folder you own."
        ) from None
    try:
        write_synthetic(folder / "data", num_posts=max(20, 6 * config.data.num_folds), seed=0)
        with set_in_environment("GEMMA_NLI_HOME", str(folder / "home")):
            result = run_sweep(_little(spec, config, folder, storage / "storage"))
        if not result.trials["finished"]:
            raise SweepError(f"sweep '{spec.name}': a rehearsal of one trial on made-up posts did not finish.")
        return result.seconds
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(storage, Prefix):
            for key in storage.under().values():
                storage.bucket.delete(key)


def _little(spec: SweepSpec, config: RunConfig, folder: Path, storage: Place) -> SweepSpec:
    base = config.with_settings(
        {
            "data.data_dir": str(folder / "data"),
            "data.test": None,
            "training.num_epochs": 1,
            "training.patience": None,
            "mlflow.tracking_uri": sqlite_address(folder / "mlflow.db"),
            "mlflow.artifact_location": None,
        }
    )
    tree = {
        "name": "rehearsal",
        "base": base.model_dump(mode="json"),
        "space": {"training.seed": {"grid": [config.training.seed]}},
        "resources": spec.resources.model_dump(mode="json"),
        "finalize": {"enabled": spec.finalize.enabled},
        "storage": str(storage),
    }
    return SweepSpec.from_mapping(tree, source="rehearsal")
