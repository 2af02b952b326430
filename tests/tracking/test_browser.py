"""`gemma-nli ui` opened in a real browser: the experiment, a run's charts, two runs compared, the registered model.

GEMMA_NLI_SCREENSHOTS=docs/images keeps the screenshots of docs/tracking.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.config import MlflowConfig, RunConfig
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.local.train import run_here
from gemma_nli.tracking.read.frames import list_experiments, list_runs
from gemma_nli.tracking.registry.promotion import promote
from gemma_nli.tracking.registry.register import register_bundle
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import free_port
from tests.tracking.test_torch_models import TAGS, make_bundle

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --window-size=1400,900"
SECONDS = 60
SCREENSHOTS = os.environ.get("GEMMA_NLI_SCREENSHOTS")  # read here: each test starts in a clean environment


@pytest.fixture(scope="module")
def store(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three runs of the pooling ablation, and a registered model that serves."""
    folder = tmp_path_factory.mktemp("browser")
    write_synthetic(folder / "redsm5", num_posts=120, seed=3)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    for pooling in ("mean", "max", "attention"):
        settings = {"data.data_dir": str(folder / "redsm5"), "model.name": str(tiny_bert), "model.max_length": 48}
        settings |= {"training.num_epochs": 15, "training.learning_rate": 1e-2, "mlflow.tracking_uri": uri}
        settings |= {"output.experiment_name": "nli_pooling", "model.pooling_strategy": pooling}
        settings |= {"mlflow.system_metrics_seconds": 0.2}
        run_here(RunConfig().with_settings(settings), output=folder / "runs", storage=folder / "storage")
    tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "nli_pooling")
    best = list_runs("nli_pooling", tracking_uri=uri)["run_id"][0]
    bundle = make_bundle(folder / "bundle", tiny_bert, max_length=48)
    made = register_bundle(bundle, "gemma_nli_pooling", tracker, best, TAGS, export_limit_gib=0)
    promote(tracker.store, "gemma_nli_pooling", made.version, "production")
    return uri


@pytest.fixture(scope="module")
def address(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The line behind `make mlflow-ui`."""
    port = free_port()
    log = tmp_path_factory.mktemp("ui") / "ui.log"
    command = [sys.executable, "-m", "gemma_nli", "ui", "--port", str(port), "--tracking-uri", store]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        for _ in range(SECONDS * 5):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its own session
        process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Any]:
    from selenium import webdriver

    if CHROMIUM is None:
        pytest.skip("no chromium here")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    driver_path = shutil.which("chromedriver")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    driver.get(address)
    _choose_training(driver)
    yield driver
    driver.quit()


@pytest.fixture
def see(browser: Any, address: str) -> Callable[..., str]:
    """Opens a page, waits until it shows all the words, keeps a screenshot where one is asked for, gives its text."""

    def look(path: str, *words: str, picture: str = "") -> str:
        browser.get(f"{address}/{path}")
        text = ""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            text = browser.execute_script("return document.body.innerText")
            if all(word in text for word in words):
                break
            time.sleep(0.3)
        missing = [word for word in words if word not in text]
        assert not missing, f"{path}: {missing} not in {text[:2000]}"
        _close_hints(browser)
        time.sleep(2)  # charts are drawn after the words are there
        if picture and SCREENSHOTS:
            browser.save_screenshot(str(Path(SCREENSHOTS) / f"{picture}.png"))
        return text

    def only(name: str, picture: str) -> None:
        """Types into the page's search of charts, and waits for a chart of each fold."""
        from selenium.webdriver.common.by import By

        browser.find_element(By.CSS_SELECTOR, "input[placeholder*=metric]").send_keys(name)
        deadline, drawn = time.monotonic() + SECONDS, 0
        while drawn < 3 and time.monotonic() < deadline:
            time.sleep(0.5)
            drawn = browser.execute_script("return document.querySelectorAll('.js-plotly-plot .lines path').length")
        assert drawn >= 3, "no lines were drawn"
        time.sleep(2)
        if SCREENSHOTS:
            browser.save_screenshot(str(Path(SCREENSHOTS) / f"{picture}.png"))

    look.only = only  # type: ignore[attr-defined]
    return look


def _choose_training(browser: Any) -> None:
    """MLflow's pages have two faces; a browser remembers which one was chosen in the upper left corner."""
    script = "return [...document.querySelectorAll('*')].filter(e => e.innerText === 'Model training').pop()"
    deadline = time.monotonic() + SECONDS
    while (element := browser.execute_script(script)) is None:
        assert time.monotonic() < deadline, "no switch to Model training"
        time.sleep(0.3)
    element.click()


def _close_hints(browser: Any) -> None:
    """MLflow's announcements lie over its pages."""
    browser.execute_script(
        "document.querySelectorAll('[role=dialog] button[aria-label=Close], [data-component-id*=close]')"
        ".forEach(button => button.click())"
    )


def test_the_experiment_lists_its_runs(see, store):
    (number,) = list_experiments(store).query("experiment == 'nli_pooling'")["id"]
    names = list_runs("nli_pooling", tracking_uri=store)["name"].tolist()
    see(f"#/experiments/{number}/runs", *names, picture="experiment")


def test_a_run_shows_its_charts_and_system_metrics(see, store):
    (number,) = list_experiments(store).query("experiment == 'nli_pooling'")["id"]
    run_id = list_runs("nli_pooling", tracking_uri=store)["run_id"][0]
    see(f"#/experiments/{number}/runs/{run_id}/model-metrics", "cv_aggregate", "fold_1")
    see.only("val_f1", picture="charts")  # type: ignore[attr-defined]
    see(f"#/experiments/{number}/runs/{run_id}/system-metrics", "cpu_utilization_percentage")


def test_two_runs_are_compared(see, store):
    (number,) = list_experiments(store).query("experiment == 'nli_pooling'")["id"]
    first, second = list_runs("nli_pooling", tracking_uri=store)["run_id"][:2]
    path = f'#/compare-runs?runs=["{first}","{second}"]&experiments=["{number}"]'
    see(path, "Comparing 2 Runs", "model.pooling_strategy", picture="compare")


def test_the_registered_model_names_who_serves(see):
    see("#/models/gemma_nli_pooling", "gemma_nli_pooling", "Version 1", "production", picture="model")
