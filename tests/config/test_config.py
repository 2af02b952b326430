from __future__ import annotations

import pickle
import typing
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gemma_nli.base.errors import ConfigError
from gemma_nli.config import (
    RunConfig,
    build_config,
    build_stored_config,
    check_value,
    flatten,
    home,
    load_config,
    parse_overrides,
    parse_yaml,
    setting_names,
)
from gemma_nli.model.heads import HEADS
from gemma_nli.model.pooling import POOLERS
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.trial import trial_key
from tests.growth import growth

UNFROZEN = {"model.freeze_encoder": False}
LORA = {**UNFROZEN, "model.lora.rank": 8}


def refusal(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig().with_settings(changes)
    return str(caught.value)


class TestSettings:
    @pytest.mark.parametrize("name", sorted(setting_names()))
    def test_every_setting_says_what_it_means(self, name):
        assert setting_names()[name].description or "lora" in name

    def test_the_choices_of_pooling_and_head_are_those_that_are_registered(self):
        model = RunConfig.model_fields["model"].annotation
        assert set(typing.get_args(model.model_fields["pooling_strategy"].annotation)) == set(POOLERS)
        assert set(typing.get_args(model.model_fields["head"].annotation)) == set(HEADS)

    def test_a_config_cannot_be_changed(self):
        with pytest.raises(ValidationError, match="frozen"):
            RunConfig().training.seed = 3

    @pytest.mark.parametrize(
        ("key", "good", "bad"),
        [
            ("data.num_folds", [2, 100], [1, 101, 2.5]),
            ("data.negative_ratio", [0.01, 1000], [0, -1, 1001]),
            ("data.eval_negative_ratio", ["all", 0.5, 1000], [0, 1001, "most"]),
            ("data.negatives", ["matched", "pooled"], ["all", "match", True, 1]),
            ("model.name", ["x"], [""]),
            ("model.max_length", [8], [7, 10**9]),
            ("model.dropout", [0, 0.99], [1, -0.1]),
            ("model.pooling_strategy", ["last"], ["lats", 3, None]),
            ("training.learning_rate", [1e-12, 1.0], [0, 1.1, "fast"]),
            ("training.batch_size", [1], [0, 65537]),
            ("training.num_epochs", [1, 10000], [0, 10001]),
            ("training.patience", [None, 1], [0]),
            ("training.max_grad_norm", [None, 0.1], [0, -1]),
            ("training.warmup_ratio", [0, 0.99], [1]),
            ("training.seed", [0, 2**32 - 1], [-1, 2**32]),
            ("device.device", ["auto", "cpu", "cuda", "cuda:3"], ["gpu", "cuda:", "cuda:x"]),
            ("output.experiment_name", ["a.b-C_1"], ["", "a b", "../x", "a/b"]),
        ],
    )
    def test_bounds_hold_and_a_refusal_names_setting_and_value(self, key, good, bad):
        for value in good:
            assert RunConfig().with_settings({key: value}).flat()[key] == value
        for value in bad:
            message = refusal({key: value})
            assert key in message
            assert str(value) in message

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "inf", ".inf"])
    @pytest.mark.parametrize("key", ["training.learning_rate", "training.max_grad_norm", "data.negative_ratio"])
    def test_no_setting_takes_a_number_that_is_none(self, key, value):
        assert key in refusal({key: value})

    @pytest.mark.parametrize("key", ["training.num_epochs", "training.seed", "data.eval_negative_ratio"])
    def test_yes_is_no_number(self, key):
        assert "must be a number, got True" in refusal({key: True})

    def test_a_long_value_is_cut_in_its_refusal(self):
        assert len(refusal({"model.head": "x" * 100_000})) < 400

    @pytest.mark.parametrize(
        ("changes", "reported"),
        [
            ({"model.lora.rank": 4}, "model.lora is set but model.freeze_encoder is true"),
            ({"model.unfreeze_last_n": 2}, "model.unfreeze_last_n is set but model.freeze_encoder is true"),
            ({**LORA, "model.unfreeze_last_n": 2}, "both set"),
            ({"training.gradient_accumulation": 32}, "(32) exceeds training.batch_size (16)"),
        ],
    )
    def test_settings_that_contradict_each_other_are_refused_with_both_values(self, changes, reported):
        assert reported in refusal(changes)


class TestOverrides:
    def test_a_changed_copy_leaves_the_original(self):
        plain = RunConfig()
        changed = plain.with_settings({"training.learning_rate": "2e-5", "model.pooling_strategy": "last"})
        assert (changed.training.learning_rate, changed.model.pooling_strategy) == (2e-5, "last")
        assert plain == RunConfig()

    def test_words_become_values_of_their_settings_types(self):
        words = ["training.learning_rate=1e-3", "training.patience=null", "model.name=a=b", "data.log_text=true"]
        config = load_config(None, words)
        assert config.training.learning_rate == 1e-3
        assert config.training.patience is None
        assert config.model.name == "a=b"
        assert config.data.log_text is True

    def test_a_list_is_a_value(self):
        words = ["model.freeze_encoder=false", "model.lora.target_modules=[q_proj, v_proj]"]
        lora = load_config(None, words).model.lora
        assert lora is not None
        assert lora.target_modules == ("q_proj", "v_proj")

    @pytest.mark.parametrize("word", ["training.seed", "=3", " =3", "training.seed=[1", ""])
    def test_a_word_that_is_no_override_is_refused(self, word):
        with pytest.raises(ConfigError, match="command line: 1 problem"):
            parse_overrides([word])

    def test_all_wrong_words_are_told_at_once(self):
        with pytest.raises(ConfigError, match="command line: 2 problems"):
            load_config(None, ["training.lr=1", "trainning.seed=2"])

    @pytest.mark.parametrize(
        ("key", "near"),
        [
            ("training.learning_rat", "training.learning_rate"),
            ("modle.name", "model.name"),
            ("model.lora.rnak", "model.lora.rank"),
        ],
    )
    def test_an_unknown_setting_is_met_with_the_nearest_one(self, key, near):
        assert f"did you mean '{near}'?" in refusal({key: 1})

    def test_check_value_reads_as_the_setting_would(self):
        assert check_value("training.learning_rate", "2e-5") == 2e-5
        assert check_value("model.lora.rank", 4) == 4
        with pytest.raises(ConfigError, match="must be greater than 0, got 0"):
            check_value("training.num_epochs", 0)

    def test_the_home_of_stores_follows_the_environment(self, monkeypatch, tmp_path):
        monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path))
        assert home() == tmp_path
        monkeypatch.setenv("GEMMA_NLI_HOME", "")
        assert home().name == ".gemma_nli"


def aliased(levels: int, use: str) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, use.format(f"*a{levels - 1}")])


def merged(levels: int) -> str:
    lines = ["m0: &m0 {k: 1, l: 2}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


class TestYaml:
    def test_a_rate_without_a_point_is_still_a_number(self):
        assert yaml.safe_load("2e-5") == "2e-5", "the trap itself"
        config = build_config(parse_yaml("training: {learning_rate: 2e-5}", "x.yaml"), "x.yaml")
        assert config.training.learning_rate == 2e-5

    @pytest.mark.parametrize(
        ("text", "reported"),
        [
            ("training: {seed: 1, seed: 2}", "key 'seed' is given twice"),
            ("training: {seed: 1}\ntraining: {seed: 2}", "line 2, column 1 not valid YAML: key 'training' is given"),
            ("a: &a {seed: 1}\ntraining: {<<: *a}", "merge keys"),
            ("{[1]: 2}", "a key must be a plain name"),
            ("{? !!set {a} : 2}", "a key must be a plain name"),
            ("!!python/object/apply:os.system ['exit 3']", "could not determine a constructor"),
            ("a: 1\n---\nb: 2", "another document"),
            ("training: &t {seed: *t}", "recursive"),
            ("a: [1", "line 1, column"),
            ("a: \0", "not valid YAML"),
            ("model: {revision: !!timestamp 2020-13-45}", "month"),
            ("training: {seed: " + "9" * 5000 + "}", "not valid YAML"),
        ],
    )
    def test_what_is_no_plain_yaml_is_refused_with_its_place(self, text, reported):
        with pytest.raises(ConfigError) as caught:
            parse_yaml(text, "x.yaml")
        assert str(caught.value).startswith("x.yaml:")
        assert reported in str(caught.value)

    @pytest.mark.parametrize(
        "bomb",
        [
            lambda share: aliased(30 // share, "training: {{batch_size: {}}}"),
            lambda share: aliased(30 // share, "model: {{lora: {{target_modules: {}}}}}"),
            lambda share: aliased(30 // share, "{}: 1"),
            lambda share: merged(30 // share),
            lambda share: "a: " + "[" * (1000 // share) + "]" * (1000 // share),
            lambda share: "[" * (2000 // share),
            lambda share: "{a: " * (3000 // share),
            lambda share: "- " * (5000 // share) + "x",
            lambda share: "training: {seed: " + "[" * (150 // share) + "]" * (150 // share) + "}",
        ],
        ids=["aliases", "aliases in a union", "aliases as a key", "merges", *"abcde"],
    )
    def test_a_bomb_is_a_short_error_and_twice_the_bomb_costs_no_more_than_its_square(self, bomb):
        def refused(share):
            with pytest.raises(ConfigError) as caught:
                build_config(parse_yaml(bomb(share), "x.yaml"), "x.yaml")
            assert len(str(caught.value)) < 100_000

        assert growth(refused, 2, 1) < 4 * 2.5

    @settings(deadline=None, max_examples=40)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from([*RunConfig.model_fields, "seed", "lora", "name"]), inner, max_size=3)
                | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=2)
            ),
            max_leaves=8,
        )
    )
    def test_any_value_is_a_config_or_a_config_error(self, tree):
        try:
            assert isinstance(build_config(tree, "x.yaml"), RunConfig)
        except ConfigError as error:
            assert str(error).startswith("x.yaml:")  # noqa: PT017 - either outcome is right

    def test_every_problem_of_a_file_is_told_at_once(self, tmp_path):
        path = tmp_path / "run.yaml"
        path.write_text("training: {num_epochs: 0, learning_rte: 1}\nmodel: {pooling_strategy: lats}\nmodl: {}\n")
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        message = str(caught.value)
        assert f"{path}: 4 problems" in message
        assert "training.num_epochs: must be greater than 0, got 0." in message
        assert "model.pooling_strategy: unknown name 'lats'; did you mean 'last'?" in message
        assert "training.learning_rte: unknown setting; did you mean 'training.learning_rate'?" in message
        assert "modl: unknown setting; did you mean 'model'?" in message

    def test_a_file_that_is_not_there_is_met_with_its_neighbour(self, tmp_path):
        (tmp_path / "best.yaml").write_text("{}")
        with pytest.raises(ConfigError, match=r"no such file; did you mean 'best\.yaml'\?"):
            load_config(tmp_path / "bets.yaml")

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1, 2]", b"hello"])
    def test_a_file_of_anything_else_is_refused(self, tmp_path, content):
        (tmp_path / "x.yaml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"x\.yaml"):
            load_config(tmp_path / "x.yaml")

    def test_an_empty_file_is_the_defaults(self, tmp_path):
        (tmp_path / "x.yaml").write_text("# nothing\n")
        assert load_config(tmp_path / "x.yaml") == RunConfig()

    def test_a_config_comes_back_from_the_yaml_it_is_written_as(self, tmp_path):
        config = RunConfig().with_settings({**LORA, "model.lora.target_modules": ["q"], "training.learning_rate": 1e-5})
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        assert load_config(tmp_path / "x.yaml") == config


def keys_of(base: dict[str, Any], change: dict[str, Any]) -> tuple[str, str]:
    plain = RunConfig().with_settings(base)
    return trial_key(plain, "folds", "encoder"), trial_key(plain.with_settings(change), "folds", "encoder")


PLACES = {
    "data.data_dir": "elsewhere",
    "data.log_text": True,
    "data.test": {"share": 0.2},  # by the fold fingerprint, as data.data_dir
    "data.test.share": 0.2,
    "data.test.ids": "sealed.txt",
    "model.name": "other",
    "model.revision": "v2",
    "device.device": "cpu",
    "features.token_budget_gib": 1.0,
    "features.batch_tokens": 128,
    "features.prefix_reuse": False,
    "mlflow.enabled": False,
    "mlflow.tracking_uri": "sqlite:///x.db",
    "mlflow.experiment_name": "x",
    "mlflow.artifact_location": "x",
    "mlflow.system_metrics_seconds": 1.0,
    "output.experiment_name": "x",
    "output.run_name": "x",
    "output.fold_weights_gib": 0.0,
}
DECIDES = {
    "training.threshold": "per_criterion",
    "training.calibration": "platt",
    "data.num_folds": 4,
    "data.fold_seed": 1,
    "data.negative_ratio": 2.0,
    "data.eval_negative_ratio": "all",
    "data.negatives": "pooled",
    "model.max_length": 100,
    "model.pair_encoding": "separate",
    "model.pooling_strategy": "last",
    "model.head": "mlp",
    "data.wording": "short",
    "model.template": "{premise} Is this so: {hypothesis}",
    "model.head_norm": "layernorm",
    "model.layers": 4,
    "model.dropout": 0.5,
    "model.freeze_encoder": False,
    "model.attention": "causal",
    "model.attn_implementation": "eager",
    "training.batch_size": 8,
    "training.learning_rate": 2e-3,
    "training.num_epochs": 3,
    "training.weight_decay": 0.1,
    "training.warmup_ratio": 0.1,
    "training.schedule": "linear",
    "training.max_grad_norm": None,
    "training.patience": 2,
    "training.label_smoothing": 0.1,
    "training.loss": "focal",
    "training.seed": 1,
    "training.epoch_selection": "last",
    "device.mixed_precision": "bf16",
}
DORMANT = [  # setting, another value, what wakes it
    ("model.pooling_k", 7, {"model.pooling_strategy": "first_k"}),
    ("model.pooling_k", 7, {"model.pooling_strategy": "last_k"}),
    ("model.premise_prompt", "document", {"model.pooling_strategy": "native"}),
    ("model.hypothesis_prompt", "query", {"model.pooling_strategy": "native"}),
    ("model.head_hidden", 7, {"model.head": "mlp"}),
    ("training.focal_gamma", 0.5, {"training.loss": "focal"}),
    ("training.encoder_learning_rate", 1e-4, UNFROZEN),
    ("training.gradient_accumulation", 2, UNFROZEN),
    ("device.gradient_checkpointing", True, UNFROZEN),
    ("device.compile", True, UNFROZEN),
]
AWAKE_ELSEWHERE = [
    ("model.unfreeze_last_n", 2, UNFROZEN),
    ("model.lora.rank", 4, LORA),
    ("model.lora.alpha", 4.0, LORA),
    ("model.lora.dropout", 0.5, LORA),
    ("model.lora.target_modules", "all-linear", LORA),
    ("model.premise_template", "Post: {premise}", {"model.pair_encoding": "separate"}),
    ("model.hypothesis_template", "Criterion: {hypothesis}", {"model.pair_encoding": "separate"}),
]


class TestTrialKey:
    """Same key, same numbers: a key changes when numbers could, and only then."""

    @pytest.mark.parametrize(("name", "value"), PLACES.items())
    def test_places_and_names_leave_the_key(self, name, value):
        plain, changed = keys_of({}, {name: value})
        assert plain == changed

    @pytest.mark.parametrize(("name", "value"), DECIDES.items())
    def test_a_setting_that_decides_numbers_changes_the_key(self, name, value):
        plain, changed = keys_of({}, {name: value})
        assert plain != changed

    @pytest.mark.parametrize(("name", "value", "wakes"), DORMANT)
    def test_a_dormant_setting_changes_the_key_only_where_it_is_awake(self, name, value, wakes):
        assert len(set(keys_of({}, {name: value}))) == 1
        assert len(set(keys_of(wakes, {name: value}))) == 2

    @pytest.mark.parametrize(("name", "value", "base"), AWAKE_ELSEWHERE)
    def test_what_is_trained_of_the_encoder_changes_the_key(self, name, value, base):
        assert len(set(keys_of(base, {name: value}))) == 2

    def test_patience_sleeps_with_last(self):
        assert len(set(keys_of({"training.epoch_selection": "last"}, {"training.patience": 2}))) == 1

    def test_no_setting_is_left_out_of_these_lists(self):
        listed = {
            *PLACES,
            *DECIDES,
            *(name for name, _, _ in [*DORMANT, *AWAKE_ELSEWHERE]),
            "model.lora",
            "data.test.seed",
        }
        assert listed == set(setting_names())

    def test_the_folds_the_encoder_and_nothing_of_spelling_enter_the_key(self):
        config = RunConfig()
        keys = {trial_key(config, *prints) for prints in [("a", "b"), ("a", "c"), ("c", "b"), ("b", "a")]}
        assert len(keys) == 4
        spelt = config.with_settings({"data.negative_ratio": "1", "training.learning_rate": "1e-3"})
        assert trial_key(spelt, "a", "b") in keys

    def test_canonical_settings_are_plain_json_values(self):
        for value in RunConfig().with_settings(LORA).canonical().values():
            assert value is None or isinstance(value, (str, int, float, bool, list))


def test_flatten_keeps_order_lists_and_none():
    assert flatten({"a": {"b": [1], "c": None}, "d": 2}) == {"a.b": [1], "a.c": None, "d": 2}


def test_every_section_is_checked_and_frozen():
    for info in RunConfig.model_fields.values():
        assert isinstance(info.annotation, type)
        assert issubclass(info.annotation, BaseModel)
        assert info.annotation.model_config["extra"] == "forbid"
        assert info.annotation.model_config["frozen"]


class TestLearningRate:
    @pytest.mark.parametrize(
        ("settings", "rate"), [({}, 1e-3), (UNFROZEN, 2e-5), ({**UNFROZEN, "model.lora.rank": 8}, 2e-4)]
    )
    def test_left_out_it_suits_what_is_trained_and_the_number_is_in_key_and_params(self, settings, rate):
        config = RunConfig().with_settings(settings)
        assert config.training.learning_rate == rate
        assert config.canonical()["training.learning_rate"] == config.flat()["training.learning_rate"] == rate
        reported = config.with_settings({"training.learning_rate": rate})
        assert trial_key(reported, "a", "b") == trial_key(config, "a", "b")
        assert config.with_settings({"training.learning_rate": None}).training.learning_rate == rate

    def test_it_follows_what_is_trained_until_somebody_gives_one(self):
        moved = RunConfig().with_settings(UNFROZEN).with_settings({"training.seed": 7})
        assert moved.training.learning_rate == 2e-5
        assert moved.with_settings({"model.freeze_encoder": True}).training.learning_rate == 1e-3
        given = RunConfig().with_settings({"training.learning_rate": 1e-3}).with_settings(UNFROZEN)
        assert given.training.learning_rate == 1e-3

    def test_a_heads_norm_follows_what_is_trained_too(self):
        frozen = RunConfig()
        assert frozen.model.head_norm == frozen.canonical()["model.head_norm"] == "standardize"
        trained = frozen.with_settings(UNFROZEN)
        assert trained.model.head_norm == "none"
        assert "model.head_norm" not in trained.canonical()  # what the code did before it was a setting
        assert trained.with_settings({"model.freeze_encoder": True}).model.head_norm == "standardize"
        given = frozen.with_settings({"model.head_norm": "standardize"}).with_settings(UNFROZEN)
        assert given.model.head_norm == given.canonical()["model.head_norm"] == "standardize"

    def test_settings_that_were_stored_before_heads_had_norms_have_none(self):
        tree = RunConfig().model_dump(mode="json")
        del tree["model"]["head_norm"]
        assert build_stored_config(tree, "journal").model.head_norm == "none"
        assert build_stored_config(RunConfig().given(), "spec").model.head_norm == "standardize"

    def test_each_cell_of_a_sweep_has_its_own_and_a_stored_sweep_still_has(self):
        tree = {
            "name": "x",
            "base": {"training": {"num_epochs": 3}},
            "space": {"model.freeze_encoder": {"grid": [True, False]}, "training.batch_size": {"grid": [8]}},
        }
        spec = SweepSpec.from_mapping(tree, source="x.yaml")
        again = SweepSpec.from_mapping(yaml.safe_load(spec.to_yaml()), source="x.yaml")
        for each in (spec, again, pickle.loads(pickle.dumps(spec))):
            assert [cell.config.training.learning_rate for cell in each.cells()] == [1e-3, 2e-5]
