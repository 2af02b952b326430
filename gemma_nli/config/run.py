"""A run's sections fitted together: the frozen RunConfig, its dotted names, its problems in words."""

from __future__ import annotations

import functools
import reprlib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from gemma_nli.base.errors import ConfigError, Problems, did_you_mean
from gemma_nli.config.checked_settings import Settings
from gemma_nli.config.chosen_layers import LAST
from gemma_nli.config.parts import EPOCH_SELECTIONS, as_they_were, dormant_settings, later_settings
from gemma_nli.config.sections import (
    DataConfig,
    DeviceConfig,
    FeaturesConfig,
    MlflowConfig,
    ModelConfig,
    OutputConfig,
    TrainingConfig,
)
from gemma_nli.config.suited_defaults import SUITED, suited


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
        if model.pooling_strategy == "native" and model.layers != LAST:
            raise ValueError(
                f"model.pooling_strategy is native, which a folder makes of its last layer, but model.layers is "
                f"{model.layers}; set model.layers=last or another pooling"
            )
        if training.gradient_accumulation > training.batch_size:
            raise ValueError(
                f"training.gradient_accumulation ({training.gradient_accumulation}) exceeds "
                f"training.batch_size ({training.batch_size})"
            )
        selection = EPOCH_SELECTIONS[training.epoch_selection]
        for name, plain in _BY_INNER_SPLIT.items():
            asked = getattr(training, name.removeprefix("training."))
            if asked != plain and selection.reads is not None and name not in selection.reads:
                raise ValueError(
                    f"{name} is {asked}, but training.epoch_selection is {selection.name}, which has no inner split to "
                    f"choose it by; set training.epoch_selection=inner, or {name}={plain}"
                )
        self._set_suited_defaults()
        return self

    def _set_suited_defaults(self) -> None:
        """A setting that was not given becomes what suits what is trained, and is remembered as a default."""
        for name, value in suited(self.model).items():
            section, setting = getattr(self, name), SUITED[name]
            if setting not in section.model_fields_set and getattr(section, setting) != value:
                fitting = section.model_copy(update={setting: value})
                fitting.__pydantic_fields_set__.discard(setting)
                self.__dict__[name] = fitting  # the model is frozen for others, not while it is built

    def given(self, *sections: str) -> dict[str, Any]:
        """Settings as a nested tree of JSON values (of all sections, or of some); null for one that was not given and
        suits what is trained: its value would stay when that is changed."""
        tree = self.model_dump(mode="json", include=set(sections) or None)
        for name, setting in SUITED.items():
            if name in tree and setting not in getattr(self, name).model_fields_set:
                tree[name][setting] = None
        return tree

    @property
    def experiment(self) -> str:
        return self.mlflow.experiment_name or self.output.experiment_name

    def with_settings(self, dotted: Mapping[str, Any], source: str = "settings") -> RunConfig:
        """A checked copy with dotted settings changed: `{"training.learning_rate": 1e-3}`."""
        tree = self.given()
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
        """The settings that decide a trial's numbers, inactive ones left out, for the trial's key.

        Left out: where things are (data_dir, stores, names), how much is cached, and each setting
        that others deactivate (`model.head_hidden` without an mlp head), so that equal trials have equal keys.
        The corpus, its sealed posts and the encoder's weights enter the key by fingerprint. What is dormant follows
        from the parts that the configuration names: each says which settings it reads. A setting that came after trials
        were stored is left out where it is what the code did before.
        """
        left_out = _PLACES | dormant_settings(self, _all_settings()) | as_they_were(self, _all_settings())
        sections = ("data", "model", "training", "device")
        return {k: v for k, v in self.flat().items() if k.split(".")[0] in sections and k not in left_out}

    def told_apart_by(self) -> dict[str, Any]:
        """`canonical` with the settings that came later, which it leaves out where they are as the code did before."""
        flat = self.flat()
        return {**self.canonical(), **{name: flat[name] for name in later_settings(_all_settings())}}

    def asked_by(self, other: RunConfig, varied: Collection[str] = ()) -> RunConfig:
        """The same numbers as `other` asks for them: what is not part of a trial's key is `other`'s.

        Args:
            varied: settings that stay as they are here, whether they are part of the key or not.
        """
        decided, theirs = self.told_apart_by(), other.flat()
        free = [key for key in self.flat() if key not in decided and key not in varied]
        return self.with_settings({key: theirs[key] for key in free if key in theirs})


_BY_INNER_SPLIT = {"training.threshold": "shared", "training.calibration": "none"}
"""Settings that choose by the inner split, and their values that need none."""
_PLACES = {"data.data_dir", "data.log_text", "model.name", "model.revision", "device.device"} | {
    f"data.test{part}" for part in ("", ".share", ".seed", ".ids")
}


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
    """Set `a.b.c` in nested dicts, creating (or replacing None by) the levels between."""
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


@functools.cache
def _all_settings() -> dict[str, Any]:
    return setting_names()


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
    """A refused value for a message, shortened: a YAML file of a few lines can alias its way to one of gigabytes."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxlist, brief.maxdict = 2, 4, 4
    brief.maxstring = brief.maxother = brief.maxlong = 80
    return brief.repr(value)


def validation_lines(error: ValidationError, model: type[BaseModel] | None = None) -> list[tuple[str, str]]:
    """Pydantic's errors in our words: (dotted name, what is wrong), unknown names with the nearest one."""
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
    """Whether pydantic named a branch of a union (`float`, `literal['all']`), which is not a setting's name."""
    return part in ("float", "int", "str", "LoraConfig") or "[" in part or part.startswith("tuple")


def _known(model: type[BaseModel] | None, where: str) -> list[str]:
    names = list(setting_names(model)) if model is not None else []
    sections = sorted({n.split(".")[0] for n in names})
    return names if "." in where else sections + names
