"""Shared stand-ins: small real models made on the spot, the real MiniLM, and a clean environment around each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub when it is imported

import pytest
import torch

from benchmarks.tiny_encoders import write_encoder
from benchmarks.tiny_tokenizer import write_tokenizer
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.model.probing.probe_notes import ProbeNotes

if TYPE_CHECKING:
    from tests.gcs_server import Store as GcsStore
    from tests.s3_server import Store


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine reaches a test, and no test reaches the machine's stores."""
    for name in list(os.environ):
        if name in ("RAY_ADDRESS", "WANDB_API_KEY") or name.startswith(("MLFLOW_", "HF_", "GEMMA_NLI_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "gemma_nli_home"))
    monkeypatch.setattr("gemma_nli.base.private_texts._read", {})  # what an earlier test has read of posts
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1 if os.environ.get("PYTEST_XDIST_WORKER") else 2)


@pytest.fixture(scope="session")
def kept_probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probes")


@pytest.fixture(autouse=True)
def probes_of_other_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kept_probes: Path) -> None:
    """What was found out about an encoder is kept for the tests that follow, as it is between a user's commands: a
    probe takes a second, and most tests load an encoder. A test marked `own_probes` has those of its own home."""
    if not any(request.node.get_closest_marker(mark) for mark in ("own_probes", "gemma")):
        monkeypatch.setattr(ProbeNotes, "path", property(lambda notes: kept_probes / f"{notes.digest}.json"))


def _write_model(folder: Path, kind: str) -> Path:
    from transformers import BertConfig, BertModel, Gemma2Config, Gemma2Model, Gemma3TextConfig, Gemma3TextModel

    folder.mkdir(parents=True)
    size = write_tokenizer(folder, "bert" if kind == "bert" else "gemma")
    torch.manual_seed(7)
    shape = {"vocab_size": size, "hidden_size": 32, "intermediate_size": 64}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    gemma = {**shape, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8, "max_position_embeddings": 1024}
    gemma |= {"layer_types": ["sliding_attention", "full_attention"], "initializer_range": 0.2}
    gemma |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    model: torch.nn.Module
    if kind == "gemma2":
        model = Gemma2Model(Gemma2Config(**gemma, query_pre_attn_scalar=16))
    elif kind == "gemma3":
        model = Gemma3TextModel(Gemma3TextConfig(**gemma, query_pre_attn_scalar=16))
    else:
        model = BertModel(BertConfig(**shape, max_position_embeddings=512, initializer_range=0.2))
    model.eval().save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_gemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer random Gemma2 (one sliding-window layer of 8 tokens), hidden 32, and its tokenizer."""
    return _write_model(tmp_path_factory.mktemp("models") / "tiny_gemma2", "gemma2")


@pytest.fixture(scope="session")
def tiny_gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer random Gemma3 (one sliding-window layer of 8 tokens), hidden 32, and its tokenizer."""
    return _write_model(tmp_path_factory.mktemp("models") / "tiny_gemma3", "gemma3")


@pytest.fixture(scope="session")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer random Gemma3 with its language-model head, whose vocabulary has yes and no."""
    from tests.model.language_models import write_language_model

    return write_language_model(tmp_path_factory.mktemp("models") / "speaker", "gemma3_text", query_pre_attn_scalar=16)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer random BERT, hidden 32, and its tokenizer with token types."""
    return _write_model(tmp_path_factory.mktemp("models") / "tiny_bert", "bert")


@pytest.fixture(scope="session")
def tiny_sentences(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_bert` as a folder of sentence-transformers: two poolings side by side, two Dense, Normalize, 20 wide."""
    from tests.model.sentence_folders import make_folder

    return make_folder(tmp_path_factory.mktemp("models") / "tiny_sentences", tiny_bert, "two dense, residual")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a tiny random encoder of any family of `benchmarks/tiny_encoders.py`, made once for its settings."""
    made: dict[str, Path] = {}

    def make(family: str, **settings: Any) -> Path:
        key = f"{family} {settings}"
        if key not in made:
            made[key] = write_encoder(tmp_path_factory.mktemp("families") / family, family, **settings)
        return made[key]

    return make


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of the real all-MiniLM-L6-v2 weights."""
    return minilm_folder()


@pytest.fixture(scope="session")
def local_ray(s3_server: Store, gcs_server: GcsStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Ray with two CPUs, started once; sweeps join it. Its workers know of a home and a bucket of their own."""
    import ray

    from gemma_nli.sweep.cluster.ray_session import ray_session

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(tmp_path_factory.mktemp("workers_home")))
        for name, value in {**s3_server.environment(), **gcs_server.environment()}.items():
            patch.setenv(name, value)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    with ray_session():
        yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Store]:
    from tests.s3_server import serving

    with serving() as store:
        yield store


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsStore]:
    from tests.gcs_server import serving

    with serving() as store:
        yield store


def _emptied(store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    store.away = store.no_conditions = False
    store.ahead_seconds, store.refused = 0, ""
    store.lose_answers.clear()
    store.empty()
    store.requests.clear()
    return store


@pytest.fixture
def s3(s3_server: Store, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Store:
    """An empty bucket `sweeps` on loopback, the environment pointing at it."""
    return _emptied(s3_server, monkeypatch)


@pytest.fixture
def gcs(gcs_server: GcsStore, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> GcsStore:
    """The same of Google Cloud Storage; a request that cannot succeed is told after a second."""
    monkeypatch.setattr("gemma_nli.storage.gcs.PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr("gemma_nli.storage.place._open", {})
    gcs_server.forbidden = False
    gcs_server.too_often.clear()
    return _emptied(gcs_server, monkeypatch)


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store | GcsStore:
    """An empty bucket of either kind."""
    found: Store | GcsStore = request.getfixturevalue(request.param)
    return found
