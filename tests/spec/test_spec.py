"""A sweep file is read whole, refused whole, and overridden by name."""

import copy
import importlib.util
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.base.errors import GemmaNliError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.config import RunConfig, setting_names
from gemma_nli.spec.parsing import _sweep_keys
from gemma_nli.spec.space import SearchSpace
from gemma_nli.spec.spaces import find_space
from gemma_nli.spec.spec import SweepSpec, load_sweep

ROOT = Path(__file__).parents[2]
TREE = {
    "name": "small",
    "base": {"training": {"batch_size": 32}},
    "space": {"model.pooling_strategy": {"grid": ["mean", "max"]}},
}
OPTUNA = {
    "name": "tuned",
    "space": {"training.learning_rate": {"loguniform": ["1e-5", "1e-2"]}, "model.head": {"choice": ["linear", "mlp"]}},
    "search": {"algorithm": "optuna", "num_trials": 30},
}


def refused(tree, *overrides, source="sweeps/x.yaml") -> str:
    with pytest.raises(GemmaNliError) as caught:
        SweepSpec.from_mapping(tree, source, overrides)
    return str(caught.value)


def changed(tree, **parts):
    return {**copy.deepcopy(tree), **parts}


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "sweeps").glob("*.yaml")))
def test_every_shipped_sweep_is_valid_asks_a_question_and_reads_back_the_same(name):
    spec = load_sweep(ROOT / "sweeps" / name)
    assert spec.question.endswith("?")
    assert spec.name == Path(name).stem
    assert SweepSpec.from_mapping(yaml.safe_load(spec.to_yaml(masked=False))).model_dump() == spec.model_dump()


def test_the_shipped_grids_have_the_cells_they_promise():
    assert len(load_sweep(ROOT / "sweeps/pooling.yaml").cells()) == 8
    assert len(load_sweep(ROOT / "sweeps/pooling_lr_negatives.yaml").cells()) == 36
    tuned = load_sweep(ROOT / "sweeps/optuna_tpe.yaml")
    assert len(tuned.space) >= 5
    assert any(varied.when for varied in tuned.space.varied)


def test_the_python_sweep_builds_a_spec_like_a_file():
    there = importlib.util.spec_from_file_location("api_example", ROOT / "sweeps/api_example.py")
    module = importlib.util.module_from_spec(there)
    there.loader.exec_module(module)
    assert len(module.build(["search.num_trials=5"]).cells()) == 5


def test_a_name_is_either_a_base_setting_or_a_sweep_key_never_both():
    assert {n.split(".")[0] for n in setting_names()}.isdisjoint({n.split(".")[0] for n in _sweep_keys()})


def test_overrides_reach_the_base_and_the_sweep_by_name():
    spec = SweepSpec.from_mapping(
        TREE,
        "sweeps/x.yaml",
        [
            "training.batch_size=8",
            "base.training.seed=3",
            "storage=/big/disk",
            "resources.gpu=0.5",
            "name=other",
            "finalize.enabled=false",
            "search.algorithm=random",
            "search.num_trials=50",
            "metric=cv_aggregate/mean_auc",
        ],
    )
    assert (spec.base.training.batch_size, spec.base.training.seed) == (8, 3)
    assert (spec.storage, spec.name, spec.metric) == ("/big/disk", "other", "cv_aggregate/mean_auc")
    assert (spec.resources.gpu, spec.resources.cpu) == (0.5, "auto")
    assert not spec.finalize.enabled
    assert spec.search.num_trials == 50
    assert TREE["base"] == {"training": {"batch_size": 32}}


def test_a_space_can_be_replaced_by_an_override(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("model.head: {grid: [linear, mlp]}")
    assert SweepSpec.from_mapping(TREE, "x.yaml", ["space=other.yaml"]).space.keys == ["model.head"]
    inline = SweepSpec.from_mapping(TREE, "x.yaml", ["space={training.seed: {grid: [1]}}"])
    assert inline.space.keys == ["training.seed"]


def test_an_override_of_a_varied_setting_is_refused_quoting_both():
    text = refused(TREE, "model.pooling_strategy=last")
    assert "model.pooling_strategy=last" in text
    assert "varies model.pooling_strategy over grid [mean, max]" in text


def test_an_override_inside_a_varied_section_is_refused_too():
    tree = changed(TREE, base={"model": {"freeze_encoder": False}}, space={"model.lora": {"grid": [None, {"rank": 4}]}})
    assert "varies model.lora over" in refused(tree, "model.lora.rank=2")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("traning.batch_size=3", "did you mean 'training.batch_size'? (command line)"),
        ("serach.seed=3", "did you mean 'search.seed'? (command line)"),
        ("zzz=1", "not a setting of the base, nor a key of the sweep file (command line)"),
        ("training.num_epochs=0", "training.num_epochs: must be greater than 0, got 0 (command line)"),
        ("search.seed=x", "search.seed: must be a valid integer"),
        ("name=../evil", "name: must be"),
        ("name=a/b", "name: must be"),
        ("finalize.model_name=..", "finalize.model_name: must be"),
        ("finalize.alias=latest", "MLflow reserves"),
        ("finalize.alias=v3", "MLflow reserves"),
        ("metric=cv_aggregate/mean_f2", "did you mean 'cv_aggregate/mean_f1'?"),
        ("mode=maximum", "mode: unknown name 'maximum'"),
        ("resources.gpu=-1", "[0, 64]"),
        ("resources.gpu=1.5", "whole number"),
        ("resources=none", "resources: must be"),
        ("storage=", "storage:"),
        ("storage=az://bucket/sweeps", "storage: az:// is not supported; name a folder that all nodes mount"),
        ("storage=s3://me:pw@bucket/x", "storage: s3:// must be followed by a bucket's name"),
        ("search.num_trials=5", "is for random and optuna; a grid runs every cell"),
        ("search.sampler=gp", "sampler is for algorithm optuna"),
        ("search.algorithm=optuna", "write choice: [mean, max] instead"),
        ("scheduler.grace_folds=5", None),
        ("training.batch_size", "write key=value"),
    ],
)
def test_a_bad_override_is_refused_with_what_to_write(override, says):
    if says is None:
        assert "stops nothing" in refused(TREE, override, "scheduler.kind=asha")
    else:
        assert says in refused(TREE, override)


def test_all_problems_of_a_file_come_at_once_with_their_dotted_names():
    tree = {
        "name": "x",
        "base": {"model": {"pooling_strategy": "lats"}, "training": {"num_epochs": 0}},
        "space": {"training.batch_sise": {"grid": [1]}},
        "searhc": {},
    }
    assert refused(tree).splitlines() == [
        "sweeps/x.yaml: 4 problems",
        "  base.model.pooling_strategy: unknown name 'lats'; did you mean 'last'?",
        "  base.training.num_epochs: must be greater than 0, got 0.",
        "  space.training.batch_sise: unknown setting 'training.batch_sise'; did you mean 'training.batch_size'?",
        "  searhc: unknown setting; did you mean 'search'?",
    ]


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (None, "expected a sweep"),
        ([], "expected a sweep"),
        ({"name": "x"}, "space: missing"),
        (changed(TREE, space="nowhere.yaml"), "no such file 'nowhere.yaml'"),
        (changed(TREE, space="\0"), "space:"),
        (changed(TREE, space="~nobody_at_all/x"), "space:"),
        (changed(TREE, space="x" * 5000), "space:"),
        (changed(TREE, space="/dev/zero"), "no such file"),
        (changed(TREE, space=7), "expected settings to vary"),
        (changed(TREE, base=3), "base: expected settings"),
        (changed(TREE, base={1: 2}), "a name must be text"),
        (changed(TREE, base={"model": {"lora": {"rank": 4}}}), "base: model.lora is set but"),
        (changed(TREE, question=float("nan")), "finite"),
        (changed(TREE, search={"seed": 2**4000}), "too large"),
        (
            changed(OPTUNA, search={"objectives": [{"metric": "cv_aggregate/mean_f1", "mode": "max"}]}),
            "objectives needs two or more",
        ),
        (changed(OPTUNA, scheduler={"kind": "median"}, metric="cv_aggregate/mean_auc"), "by their mean F1"),
        (
            changed(
                OPTUNA, search={"algorithm": "optuna", "warm_start": {"configs": [{"training.learning_rate": 0.5}]}}
            ),
            "warm_start.configs[0].training.learning_rate: 0.5 is outside loguniform",
        ),
        (
            changed(OPTUNA, search={"algorithm": "optuna", "warm_start": {"configs": [{"training.seed": 5}]}}),
            "the space does not vary this setting",
        ),
        (changed(OPTUNA, search={"algorithm": "grid"}), "lists no values for a grid"),
        (changed(OPTUNA, space={}), "varies nothing"),
    ],
)
def test_a_bad_file_is_refused_with_what_to_write(tree, says):
    assert says in refused(tree)


def test_endless_yaml_is_refused_fast():
    loop = {"name": "x"}
    loop["base"] = loop
    assert "too deep" in refused(loop)
    wide = "x"
    for _ in range(30):
        wide = [wide, wide]
    assert "too large" in refused({"name": wide})


def test_the_space_is_found_beside_the_sweep_then_in_search_spaces_then_here(tmp_path, monkeypatch):
    sweep = tmp_path / "sweeps" / "pooling.yaml"
    for folder in ("sweeps", "search_spaces", "here"):
        (tmp_path / folder).mkdir()
    sweep.write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    for folder in ("here", "search_spaces", "sweeps"):
        (tmp_path / folder / "y.yaml").write_text("{}")
        assert os.path.samefile(find_space("y.yaml", str(sweep)), tmp_path / folder / "y.yaml")
    (tmp_path / "search_spaces" / "pooling.yaml").write_text("{}")
    assert find_space("pooling.yaml", str(sweep)).parent.name == "search_spaces"
    assert os.path.samefile(find_space("search_spaces/y.yaml", str(sweep)), tmp_path / "search_spaces" / "y.yaml")


def test_a_problem_in_a_space_file_names_that_file(tmp_path):
    (tmp_path / "bad.yaml").write_text("model.head: {grid: [linaer]}")
    text = refused(changed(TREE, space="bad.yaml"), source=str(tmp_path / "s.yaml"))
    assert "bad.yaml: model.head.grid[0]: unknown name 'linaer'; did you mean 'linear'?" in text


def test_a_missing_or_broken_sweep_file_is_told(tmp_path):
    (tmp_path / "pooling.yaml").write_text("name: [")
    with pytest.raises(GemmaNliError, match=r"did you mean 'pooling.yaml'"):
        load_sweep(tmp_path / "poling.yaml")
    with pytest.raises(GemmaNliError, match="not valid YAML"):
        load_sweep(tmp_path / "pooling.yaml")


def test_a_spec_written_out_hides_every_credential():
    tree = changed(OPTUNA, base={"mlflow": {"tracking_uri": "https://me:s3cret@host:5000/?token=s3cret"}})
    spec = SweepSpec.from_mapping(tree, "x", ["search.storage=postgresql://me:s3cret@db/optuna"])
    assert "s3cret" not in spec.to_yaml()
    assert "postgresql://***@db/optuna" in spec.to_yaml()
    assert "s3cret" in spec.to_yaml(masked=False)
    assert "s3cret" not in refused(tree, "search.storage=[postgresql://me:s3cret@db/optuna]")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pw@h/d",
        "postgresql+psycopg://u:p@pw@h/d",
        "mysql://u:p/pw@h/d",
        "http://h/?password=pw",
        "s3://key:pw@bucket/a",
    ],
)
def test_no_password_survives_the_mask(url):
    assert "pw" not in mask_credentials(f"at {url} now")


def test_python_parts_are_taken_as_they_are():
    space = SearchSpace.from_mapping({"model.head": {"grid": ["linear", "mlp"]}})
    spec = SweepSpec.from_mapping({"name": "x", "base": RunConfig(), "space": space}, overrides=["training.seed=9"])
    assert [cell.config.training.seed for cell in spec.cells()] == [9, 9]


def test_a_dotted_base_is_the_same_as_a_nested_one():
    dotted = SweepSpec.from_mapping(changed(TREE, base={"training.batch_size": 8, "model.max_length": 64}))
    assert (dotted.base.training.batch_size, dotted.base.model.max_length) == (8, 64)


words = st.one_of(
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.dates(),
    st.binary(max_size=3),
    st.sampled_from(["optuna", "random", "grid", "auto", "asha", "1e-5", "mlp", "search_spaces/pooling.yaml"]),
)
names = st.one_of(
    st.sampled_from(
        [
            "name",
            "question",
            "base",
            "space",
            "search",
            "scheduler",
            "resources",
            "metric",
            "mode",
            "finalize",
            "compare",
            "tune",
            "confirm",
            "report",
            "storage",
            "algorithm",
            "sampler",
            "num_trials",
            "seed",
            "warm_start",
            "configs",
            "objectives",
            "kind",
            "cpu",
            "gpu",
            "grid",
            "choice",
            "int",
            "uniform",
            "when",
            "model",
            "training",
            "model.head",
            "model.head_hidden",
            "training.batch_size",
            "model.lora",
            "model.lora.rank",
            "lora",
            "low",
            "high",
            "step",
        ]
    ),
    st.text(max_size=4),
    st.integers(0, 3),
)
trees = st.recursive(
    words,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
nearly = st.fixed_dictionaries(
    {"name": st.just("x"), "space": st.one_of(trees, st.just(OPTUNA["space"]), st.just(TREE["space"]))},
    optional={
        "base": trees,
        "search": st.one_of(trees, st.dictionaries(names, words, max_size=3)),
        "scheduler": trees,
        "resources": trees,
        "metric": words,
        "finalize": trees,
        "compare": trees,
        "tune": trees,
        "report": trees,
        "storage": words,
    },
)
overrides = st.lists(
    st.one_of(
        st.text(max_size=10),
        st.builds(
            lambda key, value: f"{key}={value}",
            st.sampled_from([*setting_names(), *_sweep_keys(), "base.model.head", "base", "x"]),
            st.one_of(
                st.text(max_size=6), words, st.sampled_from(["{a: b}", "[1, 2]", "null", "{", "0x" + "f" * 5000])
            ),
        ),
    ),
    max_size=3,
)


@settings(max_examples=250, deadline=None)
@given(st.one_of(trees, nearly), overrides)
def test_any_tree_with_any_overrides_is_a_spec_or_an_error_of_ours(tree, words):
    try:
        spec = SweepSpec.from_mapping(tree, "fuzz", words)
    except GemmaNliError:
        return
    assert SweepSpec.from_mapping(yaml.safe_load(spec.to_yaml(masked=False))).model_dump() == spec.model_dump()


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(max_size=60), trees.map(lambda tree: yaml.dump(tree))))
def test_any_bytes_in_a_sweep_file_are_a_spec_or_an_error_of_ours(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        load_sweep(path)
    except GemmaNliError:
        return


def test_your_own_tags_are_texts_and_no_part_of_what_a_sweep_is():
    spec = SweepSpec.from_mapping(changed(TREE, tags={"ticket": 7, "urgent": True}), "x", ["tags.researcher=ann"])
    assert spec.tags == {"ticket": "7", "urgent": "true", "researcher": "ann"}
    assert SweepSpec.from_mapping(yaml.safe_load(spec.to_yaml())).tags == spec.tags


@pytest.mark.parametrize("name", ["mlflow.runName", "gemma_nli.key", "version.torch", "a@b", "x" * 251])
def test_a_tag_that_is_not_yours_is_refused(name):
    assert "tag" in refused(changed(TREE, tags={name: "x"}))


def test_finalize_takes_a_role_and_a_level():
    spec = SweepSpec.from_mapping(changed(TREE, finalize={"promote_if_better": "production", "promote_level": 0.01}))
    assert (spec.finalize.promote_if_better, spec.finalize.promote_level) == ("production", 0.01)
    assert "finalize.promote_if_better" in refused(changed(TREE, finalize={"promote_if_better": "prod"}))
