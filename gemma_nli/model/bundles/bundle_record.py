"""What the files of a bundle hold, and how they are read (strictly, in every format there was) and written."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gemma_nli.base.errors import EncoderError
from gemma_nli.base.files import put_folder_in_place
from gemma_nli.config import validation_lines
from gemma_nli.model.loading.folder_files import read_mapping
from gemma_nli.model.loading.identity import file_digest
from gemma_nli.model.scaling import UNSCALED

FORMAT = 1
DECIDED_FORMAT = 2
"""Of a bundle with thresholds of single criteria or scaled logits, which a reader of format 1 would leave out."""
ENSEMBLE_FORMAT = 3
"""Of several bundles that answer as one."""
Probability = Annotated[float, Field(ge=0, le=1)]
Weights = dict[str, Annotated[float, Field(gt=0, le=1)]]


class _Scaling(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    slope: float = Field(default=UNSCALED.slope, gt=0)
    intercept: float = UNSCALED.intercept


class BundleRecord(BaseModel):
    """What `bundle.json` must hold, of no other types."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    config: dict[str, Any]
    threshold: Probability
    thresholds: dict[str, Probability] = {}
    scaling: _Scaling = _Scaling()
    encoder: dict[str, Any]
    classifier_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    metadata: dict[str, Any]


class EnsembleRecord(BaseModel):
    """What the `bundle.json` of an ensemble must hold.

    members: by name, the folder of `encoders/` that each is read with; the files of a member are in `members/NAME`.
    weights: of the members, 1 together; `criterion_weights`: by criterion id, of criteria with weights of their own.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    members: dict[
        Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,100}$")], Annotated[str, Field(pattern="^[0-9]{1,4}$")]
    ]
    weights: Weights
    criterion_weights: dict[str, Weights] = {}
    threshold: Probability
    thresholds: dict[str, Probability] = {}
    metadata: dict[str, Any]

    @model_validator(mode="after")
    def _weighs_its_members(self) -> EnsembleRecord:
        for of, weights in {"all": self.weights, **self.criterion_weights}.items():
            if odd := sorted(weights.keys() - self.members.keys()):
                raise ValueError(f"weights of {of}: '{odd[0]}' is no member")
            if not math.isclose(math.fsum(weights.values()), 1, abs_tol=1e-9):
                raise ValueError(f"weights of {of} are {math.fsum(weights.values())} together, not 1")
        return self


def read_bundle_record(folder: Path) -> BundleRecord | EnsembleRecord:
    """
    Raises:
        EncoderError: no bundle, a newer format, or a record that is not one.
    """
    path = folder / "bundle.json"
    try:
        record = read_mapping(path)
    except FileNotFoundError:
        raise EncoderError(f"{folder}: no bundle here (no bundle.json); name one written by save_bundle.") from None
    written = record.get("format")
    if written not in (FORMAT, DECIDED_FORMAT, ENSEMBLE_FORMAT) or isinstance(written, bool):
        raise EncoderError(
            f"{path}: format {ascii(written)[:80]}, this version reads {FORMAT} to {ENSEMBLE_FORMAT}; use the "
            "gemma_nli that wrote it."
        )
    try:
        return (EnsembleRecord if written == ENSEMBLE_FORMAT else BundleRecord).model_validate(record)
    except ValidationError as error:
        where, what = validation_lines(error)[0]
        raise EncoderError(f"{path}: not a bundle's record: '{where}': {what}") from None


@contextmanager
def new_bundle(target: Path) -> Iterator[Path]:
    """A folder to write a bundle's files in, which then takes the place of `target`; nothing is left if that fails.

    Raises:
        EncoderError: `target` contains something that is not a bundle.
    """
    if target.exists() and not (target / "bundle.json").is_file() and (not target.is_dir() or any(target.iterdir())):
        raise EncoderError(f"{target}: exists and is not a bundle; name another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        work.chmod(0o755)
        yield work
        put_folder_in_place(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    (folder / "bundle.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises EncoderError if it is missing, damaged or does not match `sha256`."""
    try:
        if sha256 is not None and file_digest(path) != sha256:
            raise EncoderError(f"{path}: is not the file that was saved (sha256 differs); copy it again.")
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except FileNotFoundError:
        raise EncoderError(f"{path}: no such file.") from None
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{path}: damaged: {error}.") from None
