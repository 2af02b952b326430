"""`mlflow models serve` on a registered model: a POST gets the numbers that the model gives here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from gemma_nli.config import DeviceConfig, MlflowConfig
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.tracking.registry.promotion import promote
from gemma_nli.tracking.registry.register import register_bundle
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_trial, free_port
from tests.tracking.test_torch_models import CRITERIA, PAIRS, TAGS, make_bundle

pytestmark = pytest.mark.slow


@pytest.fixture
def served(sqlite_uri: str, tiny_bert: Path, tmp_path: Path) -> Iterator[tuple[str, PairScorer]]:
    """The command of docs/tracking.md, as it stands there but for the port."""
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "serve")
    bundle = make_bundle(tmp_path / "bundle", tiny_bert, max_length=48)
    made = register_bundle(bundle, "matcher", tracker, tracker.sync_trial(None, a_trial()), TAGS)
    promote(tracker.store, "matcher", made.version, "production")
    port = free_port()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": sqlite_uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = ["mlflow", "models", "serve", "-m", "models:/matcher@production", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address, process, tmp_path / "serve.log")
        yield address, PairScorer.from_bundle(bundle, DeviceConfig(device="cpu"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its own session
        process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=1):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def post(address: str, body: object) -> list[dict[str, float]]:
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["predictions"]


def test_a_post_of_pairs_and_a_post_of_posts_get_the_same_numbers(served):
    address, scorer = served
    rows = post(address, {"dataframe_split": PAIRS.to_dict("split")})
    expected = scorer.score(PAIRS)
    assert [row["label"] for row in rows] == expected["label"].tolist()
    assert [row["probability"] for row in rows] == pytest.approx(expected["probability"].tolist(), abs=1e-6)
    rows = post(address, {"dataframe_records": [{"premise": "i feel so sad"}, {"premise": "fine"}]})
    wide = scorer.score_posts(pd.DataFrame({"premise": ["i feel so sad", "fine"]}))
    for name in CRITERIA:
        assert [row[name] for row in rows] == pytest.approx(wide[name].tolist(), abs=1e-6)
        assert [row[f"{name}_label"] for row in rows] == wide[f"{name}_label"].tolist()
    assert {row["threshold"] for row in rows} == {scorer.bundle.threshold}
