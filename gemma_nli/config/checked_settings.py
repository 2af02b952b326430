"""What every section of settings is, and the section that says which posts are sealed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from gemma_nli.config.typed_values import as_wanted


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_typed(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML 1.1's interpretations, and pydantic's of true as 1, are not accepted for a setting."""
        return as_wanted(value, cls.model_fields[info.field_name or ""].annotation)


class SealedConfig(Settings):
    """Which posts are sealed. Posts that are copies of one another are sealed together, or not at all."""

    share: float | None = Field(
        default=None, gt=0, lt=1, description="share of the posts, drawn by post and stratified as folds are"
    )
    seed: int = Field(
        default=7, ge=0, description="seed of the draw and of the order of sealed negatives, apart from fold_seed"
    )
    ids: str | None = Field(
        default=None, min_length=1, description="a text file with the id of one sealed post per line, instead of share"
    )

    @model_validator(mode="after")
    def _share_or_ids(self) -> SealedConfig:
        if (self.share is None) == (self.ids is None):
            given = (
                "neither is given"
                if self.share is None
                else f"share ({self.share:g}) and ids ({self.ids}) are both given"
            )
            raise ValueError(f"needs share or ids, one of the two; {given}")
        return self
