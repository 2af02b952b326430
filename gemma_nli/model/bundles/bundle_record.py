"""What `bundle.json` holds, and how it is read: strictly, in every format there was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import validation_lines
from gemma_nli.model.loading.folder_files import read_mapping
from gemma_nli.model.scaling import UNSCALED

FORMAT = 1
DECIDED_FORMAT = 2
"""Of a bundle with thresholds of single criteria or scaled logits, which a reader of format 1 would leave out."""


class _Scaling(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    slope: float = Field(default=UNSCALED.slope, gt=0)
    intercept: float = UNSCALED.intercept


class BundleRecord(BaseModel):
    """What `bundle.json` must hold, of no other types."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    config: dict[str, Any]
    threshold: float = Field(ge=0, le=1)
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    scaling: _Scaling = _Scaling()
    encoder: dict[str, Any]
    classifier_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    metadata: dict[str, Any]


def read_bundle_record(folder: Path) -> BundleRecord:
    """
    Raises:
        EncoderError: no bundle, a newer format, or a record that is not one.
    """
    path = folder / "bundle.json"
    try:
        record = read_mapping(path)
    except FileNotFoundError:
        raise EncoderError(f"{folder}: no bundle here (no bundle.json); name one written by save_bundle.") from None
    if record.get("format") not in (FORMAT, DECIDED_FORMAT) or isinstance(record["format"], bool):
        found = ascii(record.get("format"))[:80]
        raise EncoderError(
            f"{path}: format {found}, this version reads {FORMAT} and {DECIDED_FORMAT}; use the gemma_nli that wrote "
            "it."
        )
    try:
        return BundleRecord.model_validate(record)
    except ValidationError as error:
        where, what = validation_lines(error)[0]
        raise EncoderError(f"{path}: not a bundle's record: '{where}': {what}") from None
