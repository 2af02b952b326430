"""Every setting of a run, one class per section: type, bounds, unit, meaning, in one place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gemma_nli.base.what_was_measured import measured_at
from gemma_nli.config.checked_settings import SealedConfig, Settings
from gemma_nli.config.chosen_layers import LAST, Layers, as_stored
from gemma_nli.config.part_names import Calibration, Head, HeadNorm, Loss, Pooling, Schedule, Selection, Threshold
from gemma_nli.config.parts import Later, WhereRead
from gemma_nli.config.suited_defaults import FROZEN_NORM, HEAD_RATE, without_null
from gemma_nli.config.templates import NATIVE, PLACES, check_fit, read_template, refuse_mapping


class DataConfig(Settings):
    data_dir: str = Field(default="data", description="folder of the post, annotation and criterion files")
    num_folds: int = Field(default=5, ge=2, le=100, description="folds of the cross-validation, grouped by post")
    fold_seed: int = Field(default=42, ge=0, description="seed of the folds and of the order of negatives")
    negative_ratio: float = Field(default=1.0, gt=0, le=1000, description="training negatives per positive")
    negatives: Literal["matched", "pooled"] = Field(
        default="matched",
        description="matched: the ratios hold within each criterion of each fold, so that the criterion alone predicts "
        "nothing; pooled: within each fold, whatever the criterion",
    )
    eval_negative_ratio: float | Literal["all"] = Field(
        default=1.0,
        description="evaluation negatives per positive, or `all` for the true prevalence; the same for every trial",
    )
    wording: Annotated[str, Later()] = Field(
        default="full",
        min_length=1,
        description="which of a criterion's texts is used, by its name in criteria.json; a criterion of one text has "
        "it as `full`",
    )
    test: SealedConfig | None = Field(
        default=None, description="posts that no trial sees, until `gemma-nli test` scores models on them; null: none"
    )
    log_text: bool = Field(default=False, description="whether post text may appear in artifacts (posts are private)")

    @property
    def measured_at(self) -> str:
        """`at 1 matched negative per positive`: what stands beside scores on these evaluation pairs."""
        return measured_at(self.eval_negative_ratio, self.negatives)

    @field_validator("eval_negative_ratio")
    @classmethod
    def _positive_ratio(cls, value: float | Literal["all"]) -> float | Literal["all"]:
        if value != "all" and not 0 < value <= 1000:
            raise ValueError(f"must be `all` or in (0, 1000], got {value}")
        return value


class LoraConfig(Settings):
    rank: int = Field(default=8, ge=1, le=1024, description="rank of the adapters")
    alpha: float = Field(default=16.0, gt=0, description="scale of the adapters; the update is alpha / rank times B A")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout before the adapters")
    target_modules: tuple[str, ...] | Literal["auto", "all-linear"] = Field(
        default="auto", description="module names to adapt; `auto` takes the attention's query and value projections"
    )


class ModelConfig(Settings):
    name: str = Field(
        default="google/gemma-2-2b", min_length=1, description="Hugging Face id or local folder of the encoder"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    max_length: int = Field(
        default=512, ge=8, le=131072, description="maximum tokens per text or pair; the post is truncated first"
    )
    pair_encoding: Literal["joint", "separate"] = Field(
        default="joint",
        description="joint: one sequence per pair; separate: u, v, |u-v|, u*v of the texts encoded alone",
    )
    pooling_strategy: Pooling = Field(
        default="mean", description="how token states become one vector; native: as encode() of the folder does"
    )
    layers: Annotated[Layers, Later()] = Field(
        default=LAST,
        description="the encoder's layers that are pooled: last, a number (1 is the first, -1 the last, 0 the "
        "embeddings), a list (side by side), mix or {mix: [numbers]} (a learned mixture, of all or of some)",
    )
    pooling_k: Annotated[int, WhereRead()] = Field(
        default=4, ge=1, le=4096, description="k of the poolings that take one: tokens that are averaged"
    )
    premise_prompt: Annotated[str | None, WhereRead()] = Field(
        default=None,
        description="native pooling: name of the folder's prompt that precedes a post; null takes the folder's "
        "default_prompt_name, as encode() does; an empty name is no prompt",
    )
    hypothesis_prompt: Annotated[str | None, WhereRead()] = Field(
        default=None,
        description="native pooling: the same before a criterion; null is no prompt in a joint pair, since encode() "
        "prompts only a pair's first text",
    )
    template: Annotated[str, Later()] = Field(
        default=NATIVE,
        description="joint pairs: one text with {premise} and {hypothesis} in either order; `chat:` before it makes it "
        "the user's message in the encoder's chat template; `native` is the tokenizer's own pair",
    )
    premise_template: Annotated[str, Later()] = Field(
        default=NATIVE,
        description="separate texts: a text with {premise} for the post, also with `chat:`, or `prompt:NAME`, a prompt "
        "of the encoder's sentence-transformers folder",
    )
    hypothesis_template: Annotated[str, Later()] = Field(
        default=NATIVE, description="separate texts: the same with {hypothesis} for the criterion"
    )
    head: Head = Field(default="linear", description="the classifier on the pooled vector")
    head_hidden: Annotated[int, WhereRead()] = Field(
        default=256, ge=1, le=65536, description="hidden units of the head"
    )
    head_norm: Annotated[HeadNorm, Later(was="none")] = Field(
        default=FROZEN_NORM,
        description="layernorm: each text's vector to mean 0 and spread 1 over its own numbers; standardize: each "
        "number of the head's input to mean 0 and spread 1 over the fold's training pairs before the first step. If "
        "left out (or null) it suits what is trained: standardize on a frozen encoder, none where the encoder learns",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before each linear map of the head")
    freeze_encoder: bool = Field(default=True, description="train only the pooling and head, on cached vectors")
    unfreeze_last_n: int | None = Field(default=None, ge=1, description="train the last n layers of the encoder alone")
    lora: LoraConfig | None = Field(default=None, description="train adapters in place of the encoder's own weights")
    attention: Literal["auto", "causal", "bidirectional"] = Field(
        default="auto", description="which tokens a token attends to; auto is what the encoder was trained with"
    )
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        default="auto", description="attention kernel; auto takes the fastest one the encoder accepts"
    )

    @field_validator(*PLACES, mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        return refuse_mapping(value)

    @field_validator(*PLACES)
    @classmethod
    def _has_its_places(cls, value: str, info: ValidationInfo) -> str:
        read_template(value, PLACES[info.field_name or ""])
        return value

    @model_validator(mode="after")
    def _templates_fit(self) -> ModelConfig:
        check_fit(self)
        return self

    @field_validator("layers", mode="before")
    @classmethod
    def _layers_as_stored(cls, value: Any) -> Any:
        return as_stored(value)

    @model_validator(mode="before")
    @classmethod
    def _null_norm_is_left_out(cls, tree: Any) -> Any:
        return without_null(tree, "head_norm")

    @property
    def trained(self) -> str:
        """What is trained of the encoder, as model/adapters.py names it."""
        if self.freeze_encoder:
            return "nothing"
        if self.lora is not None:
            return "adapters"
        return "everything" if self.unfreeze_last_n is None else "last_layers"


class TrainingConfig(Settings):
    batch_size: int = Field(default=16, ge=1, le=65536, description="pairs per optimizer step")
    learning_rate: float = Field(
        default=HEAD_RATE,
        gt=0,
        le=1.0,
        description="peak AdamW learning rate; if left out (or null) it suits what is trained: 1e-3 for a head on a "
        "frozen encoder, 2e-4 with LoRA, 2e-5 for the encoder's own weights",
    )
    encoder_learning_rate: Annotated[float | None, WhereRead()] = Field(
        default=None,
        gt=0,
        le=1.0,
        description="peak AdamW learning rate of an unfrozen encoder, if different from the head's",
    )
    num_epochs: int = Field(default=20, gt=0, le=10000, description="passes over a fold's training pairs")
    weight_decay: float = Field(
        default=0.01, ge=0, le=10, description="AdamW weight decay of matrices; biases and norms have none"
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="share of all steps over which the learning rate rises from 0"
    )
    schedule: Schedule = Field(default="constant", description="the learning rate after warmup")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="gradient norm above which gradients are scaled down"
    )
    gradient_accumulation: Annotated[int, WhereRead()] = Field(
        default=1, ge=1, description="micro-batches per optimizer step; batch_size stays their sum"
    )
    patience: Annotated[int | None, WhereRead()] = Field(
        default=None,
        ge=1,
        description="epochs without a better F1, on the pairs that epoch_selection uses, before a fold stops",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of a label given to the other class")
    loss: Loss = Field(
        default="cross_entropy",
        description="weighted: positives weigh the training pairs' ratio of negatives to positives",
    )
    focal_gamma: Annotated[float, WhereRead()] = Field(
        default=2.0, ge=0, le=10, description="how much the focal loss reduces the weight of easy pairs"
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="seed of initial weights, batches and dropout")
    epoch_selection: Selection = Field(
        default="inner",
        description="the epoch a fold is measured at: by F1 on an inner split of its training posts, the last, "
        "or the best on the fold itself (optimistic)",
    )
    threshold: Annotated[Threshold, Later()] = Field(
        default="shared",
        description="from which probability on a pair is matched, chosen on the inner split. shared: one for all "
        "criteria; per_criterion: one for each, drawn towards the shared one where the inner split has few positive "
        "pairs of it. Without an inner split it is 0.5",
    )
    calibration: Annotated[Calibration, Later()] = Field(
        default="none",
        description="platt: slope and intercept of the logits, fitted on the inner split, so that probabilities hold; "
        "no fold's ranks change. A fold whose inner split lacks a class is not calibrated",
    )

    @model_validator(mode="before")
    @classmethod
    def _null_rate_is_left_out(cls, tree: Any) -> Any:
        return without_null(tree, "learning_rate")


class DeviceConfig(Settings):
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto takes a GPU if there is one"
    )
    mixed_precision: Literal["auto", "bf16", "fp16", "none"] = Field(
        default="auto", description="auto: bf16 on a GPU that supports it, none elsewhere"
    )
    gradient_checkpointing: Annotated[bool, WhereRead()] = Field(
        default=False, description="recompute activations to save memory"
    )
    compile: Annotated[bool, WhereRead()] = Field(default=False, description="torch.compile an unfrozen encoder")


class FeaturesConfig(Settings):
    token_budget_gib: float = Field(default=4.0, ge=0, description="GiB of token states kept for learned poolings")
    batch_tokens: int = Field(default=4096, ge=64, description="tokens per encoding batch, padding included")
    prefix_reuse: bool = Field(
        default=True, description="causal joint pairs: encode a post once and continue with criteria"
    )


class MlflowConfig(Settings):
    enabled: bool = Field(default=True, description="record runs in MLflow")
    tracking_uri: str | None = Field(
        default=None,
        description="MLflow store; by default $MLFLOW_TRACKING_URI, else SQLite under $GEMMA_NLI_HOME/mlflow",
    )
    experiment_name: str | None = Field(
        default=None, min_length=1, description="MLflow experiment; by default output.experiment_name"
    )
    artifact_location: str | None = Field(default=None, description="artifact root of a new experiment")
    system_metrics_seconds: float | None = Field(
        default=10.0, ge=0.1, le=3600, description="seconds between samples of CPU, memory, GPU; null takes none"
    )


class OutputConfig(Settings):
    experiment_name: str = Field(
        default="redsm5",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="names the experiment and the model",
    )
    run_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="the run's name in MLflow, by default made from its settings; a sweep's trials append their key",
    )
    fold_weights_gib: float = Field(
        default=0.5,
        ge=0,
        description="GiB of trained adapters or encoder that a trial keeps, all folds together; beyond it only the "
        "best fold's",
    )

    def fold_bytes(self, num_folds: int) -> float:
        """How much one of `num_folds` folds may keep."""
        return self.fold_weights_gib * 2**30 / num_folds
