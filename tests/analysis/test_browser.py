"""The report in a real browser: it sorts, it answers the pointer, it changes its theme, and it asks no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.analysis.report.write import Report

pytestmark = pytest.mark.browser
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
)
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def page(simulated_report: Report) -> str:
    return simulated_report.html.as_uri()


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Open]:
    """Open a page in a fresh chromium of its own; each is closed at the test's end."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    opened: list[Any] = []

    def open_page(url: str, width: int = 1200, dark: bool = False) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={tmp_path / f'profile{len(opened)}'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        opened.append(driver)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
        shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
        driver.get(url)
        WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))
        return driver

    yield open_page
    for driver in opened:
        driver.quit()


def errors_of(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def asked_of(driver: Any) -> set[str]:
    """The scheme of every address that was asked for."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {url.split(":")[0] for url in sent}


@pytest.mark.parametrize("dark", [False, True])
def test_a_reader_sorts_the_leaderboard(page: str, browse: Open, dark: bool) -> None:
    driver = browse(page, dark=dark)
    assert driver.execute_script("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
    table = driver.find_element("css selector", "#leaderboard table")
    heads = [head.text for head in table.find_elements("css selector", "th button")]
    column = heads.index("AUC")

    def values() -> list[float]:
        cells = table.find_elements("css selector", f"tbody td:nth-child({column + 1})")
        return [float(cell.get_attribute("data-v")) for cell in cells]

    unsorted = values()
    button = table.find_elements("css selector", "th button")[column]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()
    assert values() == sorted(unsorted)
    button.click()
    assert values() == sorted(unsorted, reverse=True)
    head = table.find_elements("css selector", "th")[column]
    assert head.get_attribute("aria-sort") == "descending"
    assert errors_of(driver) == []
    asked = asked_of(driver)
    assert "file" in asked
    assert not asked & {"http", "https", "ws", "wss"}


def test_a_figure_tells_its_numbers_under_the_pointer(page: str, browse: Open) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    driver = browse(page)
    plot = driver.find_element("id", "plot-budget")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot)
    point = plot.find_elements("css selector", ".scatterlayer .trace .points path")[3]
    ActionChains(driver).move_to_element(point).perform()
    label = WebDriverWait(driver, 20).until(lambda _: plot.find_elements("css selector", ".hoverlayer .hovertext"))
    assert "trials:" in label[0].text
    assert errors_of(driver) == []


def test_the_theme_changes_the_page_and_its_figures(page: str, browse: Open) -> None:
    driver = browse(page)
    plot = driver.find_element("id", "plot-answer")

    def inks() -> tuple[str, str]:
        script = "return [getComputedStyle(document.body).color, getComputedStyle(arguments[0]).fill]"
        body, tick = driver.execute_script(script, plot.find_element("css selector", ".ytick text"))
        return body, tick

    light = inks()
    driver.find_element("id", "theme").click()
    dark = inks()
    assert light[0] == light[1]
    assert dark[0] == dark[1]
    assert light != dark
    assert errors_of(driver) == []


def test_it_reads_on_a_phone(page: str, browse: Open) -> None:
    """Nothing wider than the screen but what scrolls by itself; every figure is drawn."""
    driver = browse(page, width=390)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    drawn = driver.execute_script("return [...document.querySelectorAll('.plot')].map(p => !!p.querySelector('svg'))")
    assert len(drawn) >= 9
    assert all(drawn)
    assert errors_of(driver) == []
