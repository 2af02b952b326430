"""Every setting of a run: type, bounds, unit, meaning, one home; how YAML and overrides become a RunConfig."""

from __future__ import annotations

import os
import reprlib
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from gemma_nli.errors import ConfigError, Problems, did_you_mean


def home() -> Path:
    """Where stores live when nothing else is said: $GEMMA_NLI_HOME, else ~/.gemma_nli."""
    return Path(os.environ.get("GEMMA_NLI_HOME") or Path.home() / ".gemma_nli").absolute()


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes` and `on` as true, and pydantic reads true as 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {kind, *typing.get_args(kind)}:
            raise ValueError(f"must be a number, got {value}")
        return value


class DataConfig(Settings):
    data_dir: str = Field(default="data", description="folder of the post, annotation and criterion files")
    num_folds: int = Field(default=5, ge=2, le=100, description="folds of the cross-validation, grouped by post")
    fold_seed: int = Field(default=42, ge=0, description="seed of the folds and of the order of negatives")
    negative_ratio: float = Field(default=1.0, gt=0, le=1000, description="training negatives a positive")
    eval_negative_ratio: float | Literal["all"] = Field(
        default=1.0,
        description="evaluation negatives a positive, or `all` for the true prevalence; the same for each trial",
    )
    log_text: bool = Field(default=False, description="whether post text may appear in artifacts (posts are private)")

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
        default=512, ge=8, le=131072, description="tokens a text or pair keeps; the post is cut first"
    )
    pair_encoding: Literal["joint", "separate"] = Field(
        default="joint", description="joint: one sequence a pair; separate: u, v, |u-v|, u*v of the texts encoded alone"
    )
    pooling_strategy: Literal["attention", "attention_kv", "cls", "first_k", "last", "last_k", "max", "mean"] = Field(
        default="mean", description="how token states become one vector"
    )
    pooling_k: int = Field(default=4, ge=1, le=4096, description="tokens that first_k and last_k average")
    head: Literal["linear", "mlp"] = Field(default="linear", description="the classifier on the pooled vector")
    head_hidden: int = Field(default=256, ge=1, le=65536, description="hidden units of the mlp head")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before each linear map of the head")
    freeze_encoder: bool = Field(default=True, description="train only the pooling and head, on cached vectors")
    unfreeze_last_n: int | None = Field(
        default=None, ge=1, description="train only the last n layers of an unfrozen encoder"
    )
    lora: LoraConfig | None = Field(default=None, description="train adapters in place of the encoder's own weights")
    attention: Literal["auto", "causal", "bidirectional"] = Field(
        default="auto", description="which tokens a token sees; auto is as the encoder was made"
    )
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        default="auto", description="attention kernel; auto takes the fastest one the encoder accepts"
    )


class TrainingConfig(Settings):
    batch_size: int = Field(default=16, ge=1, le=65536, description="pairs an optimizer step")
    learning_rate: float = Field(
        default=2e-5, gt=0, le=1.0, description="peak AdamW rate of the head (and the encoder)"
    )
    encoder_learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1.0,
        description="peak AdamW rate of an unfrozen encoder, when it differs from the head's",
    )
    num_epochs: int = Field(default=20, gt=0, le=10000, description="passes over a fold's training pairs")
    weight_decay: float = Field(
        default=0.01, ge=0, le=10, description="AdamW decay of matrices; biases and norms have none"
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="share of all steps in which the rate rises from 0"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(default="constant", description="the rate after warmup")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="gradient norm above which gradients are scaled down"
    )
    gradient_accumulation: int = Field(default=1, ge=1, description="micro-batches a step; batch_size stays the sum")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="epochs without a better F1, by what epoch_selection looks at, before a fold stops; "
        "with `last`, which looks at nothing, it never stops",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of a label given to the other class")
    loss: Literal["cross_entropy", "weighted", "focal"] = Field(
        default="cross_entropy", description="weighted: positives weigh negatives/positives of the training pairs"
    )
    focal_gamma: float = Field(default=2.0, ge=0, le=10, description="how much the focal loss mutes easy pairs")
    seed: int = Field(default=42, ge=0, lt=2**32, description="seed of initial weights, batches and dropout")
    epoch_selection: Literal["inner", "last", "best"] = Field(
        default="inner",
        description="the epoch a fold is measured at: by F1 on an inner split of its training posts, the last, "
        "or the best on the very fold (optimistic)",
    )


class DeviceConfig(Settings):
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto takes a GPU where one is"
    )
    mixed_precision: Literal["auto", "bf16", "fp16", "none"] = Field(
        default="auto", description="auto: bf16 on a GPU that supports it, none elsewhere"
    )
    gradient_checkpointing: bool = Field(default=False, description="recompute activations to save memory")
    compile: bool = Field(default=False, description="torch.compile an unfrozen encoder")


class FeaturesConfig(Settings):
    token_budget_gib: float = Field(default=4.0, ge=0, description="GiB of token states kept for learned poolings")
    batch_tokens: int = Field(default=4096, ge=64, description="tokens an encoding batch holds, padding included")
    prefix_reuse: bool = Field(
        default=True, description="causal joint pairs: encode a post once and continue with criteria"
    )


class MlflowConfig(Settings):
    enabled: bool = Field(default=True, description="record runs in MLflow")
    tracking_uri: str | None = Field(
        default=None,
        description="MLflow store; without it $MLFLOW_TRACKING_URI, else SQLite under $GEMMA_NLI_HOME/mlflow",
    )
    experiment_name: str | None = Field(
        default=None, min_length=1, description="MLflow experiment; else output.experiment_name"
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


class RunConfig(Settings):
    """One configuration, checked and frozen. `with_settings` makes a changed, checked copy."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    device: DeviceConfig = DeviceConfig()
    features: FeaturesConfig = FeaturesConfig()
    mlflow: MlflowConfig = MlflowConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _fit_together(self) -> RunConfig:
        model, training = self.model, self.training
        if model.freeze_encoder and model.lora is not None:
            raise ValueError("model.lora is set but model.freeze_encoder is true; set model.freeze_encoder=false")
        if model.freeze_encoder and model.unfreeze_last_n is not None:
            raise ValueError(
                "model.unfreeze_last_n is set but model.freeze_encoder is true; set model.freeze_encoder=false"
            )
        if model.lora is not None and model.unfreeze_last_n is not None:
            raise ValueError("model.lora and model.unfreeze_last_n are both set; choose one")
        if training.gradient_accumulation > training.batch_size:
            raise ValueError(
                f"training.gradient_accumulation ({training.gradient_accumulation}) exceeds "
                f"training.batch_size ({training.batch_size})"
            )
        return self

    @property
    def experiment(self) -> str:
        return self.mlflow.experiment_name or self.output.experiment_name

    def with_settings(self, dotted: Mapping[str, Any], source: str = "settings") -> RunConfig:
        """A checked copy with dotted settings changed: `{"training.learning_rate": 1e-3}`."""
        tree = self.model_dump(mode="python", exclude_unset=False)
        problems = Problems(source)
        for key, value in dotted.items():
            if check_key(key, problems):
                set_dotted(tree, key, value)
        problems.raise_if_any(ConfigError)
        return build_config(tree, source)

    def flat(self) -> dict[str, Any]:
        """Dotted settings to plain values, as MLflow params name them; an unset `lora` is one None."""
        return flatten(self.model_dump(mode="json"))

    def canonical(self) -> dict[str, Any]:
        """The settings that decide a trial's numbers, dormant ones left out, for the trial's key.

        Left out: where things are (data_dir, stores, names), how much is cached, and each setting that the
        others switch off (`model.head_hidden` without an mlp head), so that equal trials have equal keys.
        The corpus and the encoder's weights enter the key by fingerprint.
        """
        flat = self.flat()
        kept = {k: v for k, v in flat.items() if k.split(".")[0] in ("data", "model", "training", "device")}
        return {k: v for k, v in kept.items() if k not in _PLACES and k not in self._dormant()}

    def _dormant(self) -> set[str]:
        model, training = self.model, self.training
        dormant = set()
        if model.pooling_strategy not in ("first_k", "last_k"):
            dormant.add("model.pooling_k")
        if model.head != "mlp":
            dormant.add("model.head_hidden")
        if training.loss != "focal":
            dormant.add("training.focal_gamma")
        if training.epoch_selection == "last":
            dormant.add("training.patience")
        if model.freeze_encoder:
            dormant |= {"training.encoder_learning_rate", "training.gradient_accumulation"}
            dormant |= {"device.gradient_checkpointing", "device.compile"}
        return dormant


_PLACES = {"data.data_dir", "data.log_text", "model.name", "model.revision", "device.device"}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys, in order; lists and None stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b.c` in nested dicts, making (or replacing a None by) the levels between."""
    *parents, leaf = key.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[leaf] = value


def setting_names(model: type[BaseModel] = RunConfig, prefix: str = "") -> dict[str, Any]:
    """Every dotted setting and its pydantic field; a section that may be unset (`model.lora`) is named too."""
    names: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        section = _section(info.annotation)
        if section is None or type(None) in typing.get_args(info.annotation):
            names[f"{prefix}{name}"] = info
        if section is not None:
            names.update(setting_names(section, f"{prefix}{name}."))
    return names


def _section(annotation: Any) -> type[BaseModel] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def check_key(key: str, problems: Problems, where: str | None = None) -> bool:
    """Whether `key` names a setting; if not, adds the problem with the nearest name."""
    names = setting_names()
    if key in names:
        return True
    problems.add(where or key, f"unknown setting '{key}'{did_you_mean(key, names)}" if where else _unknown(key, names))
    return False


def _unknown(key: str, names: Iterable[str]) -> str:
    return f"unknown setting{did_you_mean(key, names)}"


def check_value(key: str, value: Any) -> Any:
    """`value` as the setting's own type reads it, so that the text `2e-5` is a number.

    Raises:
        ConfigError: the setting refuses it; the message is one line without the setting's name.
    """
    tree: dict[str, Any] = {}
    set_dotted(tree, key, value)
    section = key.split(".")[0]
    field = RunConfig.model_fields[section].annotation
    assert isinstance(field, type)
    assert issubclass(field, BaseModel)
    try:
        checked = field.model_validate(tree[section])
    except ValidationError as error:
        raise ConfigError("; ".join(message for _, message in validation_lines(error))) from None
    for part in key.split(".")[1:]:
        checked = getattr(checked, part)
    return checked


def build_config(tree: Mapping[str, Any], source: str, prefix: str = "") -> RunConfig:
    """A checked RunConfig of a nested mapping.

    Raises:
        ConfigError: with every problem of `source`, each under its dotted name.
    """
    problems = Problems(source)
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{source}: expected settings (key: value), got {type(tree).__name__}.")
    try:
        return RunConfig.model_validate(dict(tree))
    except ValidationError as error:
        for where, message in validation_lines(error, RunConfig):
            problems.add(f"{prefix}{where}" if where else prefix.rstrip("."), message)
    problems.raise_if_any(ConfigError)
    raise AssertionError("unreachable")


def _shown(value: Any) -> str:
    """A refused value for a message, cut: a YAML file of a few lines can alias its way to one of gigabytes."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxlist, brief.maxdict = 2, 4, 4
    brief.maxstring = brief.maxother = brief.maxlong = 80
    return brief.repr(value)


def validation_lines(error: ValidationError, model: type[BaseModel] | None = None) -> list[tuple[str, str]]:
    """Pydantic's findings in our words: (dotted name, what is wrong), unknown names with the nearest one."""
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"] if not _is_branch(str(part)))
        value = item.get("input")
        if item["type"] == "extra_forbidden":
            message = f"unknown setting{did_you_mean(where, _known(model, where))}"
        elif item["type"] == "literal_error":
            options = [o.strip().strip("'") for o in item["ctx"]["expected"].replace(" or ", ", ").split(",")]
            message = (
                f"unknown name {_shown(value)}{did_you_mean(value, options)}"
                if isinstance(value, str)
                else f"must be one of {', '.join(options)}, got {_shown(value)}."
            )
        else:
            text = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            shown = (
                f", got {_shown(value)}."
                if not isinstance(value, (dict, BaseModel)) and item["type"] != "value_error"
                else "."
            )
            text = f"must be {text}" if item["msg"].startswith("Input should be ") else text
            message = text.rstrip(".") + shown
        lines[where] = f"{lines[where]} or: {message}" if where in lines else message
    return list(lines.items())


def _is_branch(part: str) -> bool:
    """Whether pydantic named a branch of a union (`float`, `literal['all']`), which is no setting's name."""
    return part in ("float", "int", "str", "LoraConfig") or "[" in part or part.startswith("tuple")


def _known(model: type[BaseModel] | None, where: str) -> list[str]:
    names = list(setting_names(model)) if model is not None else []
    sections = sorted({n.split(".")[0] for n in names})
    return names if "." in where else sections + names


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: plain YAML would keep the last one silently.

    Merge keys (`<<`) are refused too: what a file says should stand where it applies, and they can nest without bound.
    """


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise yaml.constructor.ConstructorError(
                None, None, "merge keys (<<) are not read; write the settings out", key_node.start_mark
            )
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain name", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        seen.add(key)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def parse_yaml(text: str, source: str) -> Any:
    """YAML text to plain values; raises ConfigError with line and column, never a YAML traceback."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # a SafeLoader  # noqa: S506  # nosec B506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}:{place} not valid YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())[:200]}.") from None


def read_yaml(path: Path) -> Any:
    """A YAML file's value; raises ConfigError where it is missing, not UTF-8 or not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [])
        raise ConfigError(f"{path}: no such file{near}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}.") from None
    return parse_yaml(text, str(path))


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`key=value` words to a dotted mapping; values are YAML (`[1, 2]`, `true`, `null`, text).

    Raises:
        ConfigError: a word without `=`, an empty key, a value that is no YAML.
    """
    problems = Problems("command line")
    parsed: dict[str, Any] = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.add(word, "not an override; write key=value, as in training.batch_size=16.")
            continue
        try:
            parsed[key] = parse_yaml(text, key)
        except ConfigError as error:
            problems.add("", str(error))
    problems.raise_if_any(ConfigError)
    return parsed


def load_config(path: Path | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """A RunConfig of a YAML file (or the defaults) and `key=value` overrides.

    Raises:
        ConfigError: with every problem of the file, or of the overrides.
    """
    tree = read_yaml(path) if path is not None else {}
    config = build_config(tree if tree is not None else {}, str(path or "defaults"))
    changes = parse_overrides(overrides)
    return config.with_settings(changes, source="command line") if changes else config
