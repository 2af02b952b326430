"""A bundle as an MLflow model: our pyfunc and, if it can be exported, a pt2 program in one MLmodel; no pickle."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

import gemma_nli
from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, quoted_path
from gemma_nli.model.bundles.bundle import load_bundle
from gemma_nli.model.bundles.bundle_record import EnsembleRecord, read_bundle_record
from gemma_nli.model.bundles.exported import exportable

GIB = 2**30
PT2 = "pt2"
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pydantic", "PyYAML", "safetensors", "torch", "transformers")
SIGNATURE = ModelSignature(
    inputs=Schema(
        [ColSpec(DataType.string, "premise"), ColSpec(DataType.string, "hypothesis", required=False)]
    ),  # without a hypothesis: a probability and a label for each criterion
    outputs=Schema([ColSpec(DataType.double, "probability"), ColSpec(DataType.long, "label")]),
)
EXAMPLE = pd.DataFrame(  # made up: no post of a corpus gets out this way
    {
        "premise": ["Invented example: for weeks I have slept three hours a night.", "Invented example: a fine walk."],
        "hypothesis": ["Insomnia or sleeping too much nearly every day.", "Insomnia or sleeping too much."],
    }
)


def requirements() -> list[str]:
    """What the model needs, in the versions here; a local part (`+cpu`) is left out, since no package index has it."""
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]


def save_model_folder(bundle: Path, target: Path, example: pd.DataFrame | None, export_limit_gib: float) -> str:
    """Write the model to `target`, which must not exist.

    A program gives logits: from which probability on a pair is matched is in the model's metadata, `gemma_nli`.

    Returns:
        `pt2`, or why `mlflow.pytorch.load_model` will not find a torch module in it (`gemma_nli.load_model` does).
    """
    with tempfile.TemporaryDirectory(prefix=".export_", dir=target.parent) as folder:
        exported = Path(folder) / "torch"
        model, exported_as = _export(bundle, exported, export_limit_gib)
        mlflow.pyfunc.save_model(
            path=str(target),
            mlflow_model=model,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"bundle": quoted_path(bundle)},  # MLflow reads an address, and decodes it
            code_paths=[str(Path(gemma_nli.__file__).parent)],
            pip_requirements=requirements(),
            signature=SIGNATURE,
            input_example=EXAMPLE if example is None else example,
        )
        if exported_as == PT2:
            shutil.move(exported / "data", target / "data")
    return exported_as


def pytorch_flavor() -> Any:
    """`mlflow.pytorch`. Its import sets the root logger to errors and gives it a handler, which silences the caller's
    warnings and ours (a damaged line of a journal) where nobody has configured logging: both are put back."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    import mlflow.pytorch

    root.setLevel(level)
    root.handlers[:] = handlers
    return mlflow.pytorch


def _export(bundle: Path, folder: Path, limit_gib: float) -> tuple[Model, str]:
    record = read_bundle_record(bundle)
    decided = {"gemma_nli": {"threshold": record.threshold, "thresholds": record.thresholds}}
    if isinstance(record, EnsembleRecord):
        return Model(metadata=decided), f"not exported: an ensemble of {len(record.members)} models is no single module"
    size = sum(path.stat().st_size for path in bundle.rglob("*.safetensors")) / GIB
    if size > limit_gib:
        return Model(
            metadata=decided
        ), f"not exported: {size:.2g} GiB of weights, finalize.export_limit_gib is {limit_gib:g}"
    model = Model(metadata=decided)
    classifier = load_bundle(bundle, DeviceConfig(device="cpu", mixed_precision="none")).classifier
    try:
        module, inputs = exportable(classifier)
    except EncoderError as error:
        return Model(metadata=decided), f"not exported: {error}"
    shapes = Schema([TensorSpec(np.dtype(np.int64), (-1, -1), name) for name in inputs])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export's own, about its internals
            pytorch_flavor().save_model(
                module,
                str(folder),
                mlflow_model=model,
                signature=ModelSignature(inputs=shapes),
                input_example=tuple(tensor.numpy() for tensor in inputs.values()),
                serialization_format=PT2,
                pip_requirements=requirements(),
            )
    except Exception as error:  # noqa: BLE001 - torch.export raises all sorts; the version says so, nothing is lost
        why = " ".join(str(error).split())[:200] or type(error).__name__
        return Model(metadata=decided), f"not exported: {type(error).__name__}: {why}"
    return model, PT2
