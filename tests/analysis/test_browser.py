"""The report in a real browser: it sorts, it answers the pointer, it changes its theme, and it asks no network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pictures import CHROMIUM, DRIVER, open_page
from gemma_nli.analysis.report.write import Report, write_report
from tests.analysis.conftest import evidence_over

pytestmark = pytest.mark.browser
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def page(simulated_report: Report) -> str:
    return simulated_report.html.as_uri()


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Open]:
    """Open a page in a fresh chromium of its own; each is closed at the test's end."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    opened: list[Any] = []

    def open_one(url: str, width: int = 1200, dark: bool = False) -> Any:
        opened.append(open_page(url, tmp_path / f"profile{len(opened)}", width, dark))
        return opened[-1]

    yield open_one
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


@pytest.fixture(scope="module")
def pages(
    page: str, analysis_corpus: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """By name: 18 trials of three settings, 12 drawn ones of six, and a single one."""
    folder, found = tmp_path_factory.mktemp("pages"), {"compared": page}
    drawn = {
        "model.pooling_strategy": {"grid": ["mean", "cls", "max"]},
        "training.learning_rate": {"loguniform": ["1e-4", "1e-2"]},
        "training.weight_decay": {"loguniform": ["1e-4", "1e-1"]},
        "training.warmup_ratio": {"uniform": [0.0, 0.2]},
        "training.batch_size": {"choice": [8, 16, 32, 64]},
        "model.dropout": {"uniform": [0.0, 0.5]},
    }
    single = {"model.pooling_strategy": {"grid": ["mean"]}}
    random = {"search": {"algorithm": "random", "num_trials": 12}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        for name, space, changes in (("drawn", drawn, random), ("single", single, {})):
            corpus = (analysis_corpus, tiny_bert)
            evidence = evidence_over(folder / name, *corpus, space, lambda _: 0.8, **changes)
            found[name] = write_report(evidence, folder / f"report-{name}").html.as_uri()
    return found


HIDDEN = """
const seen = e => e.getClientRects().length > 0;
return [...document.querySelectorAll('figure, .panels, .plot, pre, nav, dl, .cards, header, .warnings')]
  .filter(e => seen(e) && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.tagName + '.' + e.className + '#' + e.id)
  .concat([...document.querySelectorAll('.plot svg, .plot canvas')].filter(seen)
    .filter(e => e.getBoundingClientRect().right > e.closest('figure').getBoundingClientRect().right + 1)
    .map(e => 'drawing of ' + e.closest('.plot').id));
"""
"""What reaches past its own frame, so that a reader would have to find out that it scrolls, or never sees it."""

UNANNOUNCED = """
return [...document.querySelectorAll('.scroll')]
  .filter(e => !e.closest('details:not([open])') && e.scrollWidth > e.clientWidth + 1)
  .filter(e => !(e.nextElementSibling?.className === 'more' && /scroll/.test(e.nextElementSibling.innerText)))
  .map(e => e.getAttribute('aria-label'));
"""
CUT = """
return [...document.querySelectorAll('.scroll')]
  .filter(e => !e.closest('details:not([open])') && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.getAttribute('aria-label'));
"""


@pytest.mark.parametrize("name", ["compared", "drawn", "single"])
def test_it_reads_on_a_phone(pages: dict[str, str], browse: Open, name: str) -> None:
    """Nothing is wider than the screen, every figure is drawn whole, and a table that scrolls says so."""
    driver = browse(pages[name], width=390)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    assert driver.execute_script(HIDDEN) == []
    assert driver.execute_script(UNANNOUNCED) == []
    drawn = driver.execute_script("return [...document.querySelectorAll('.plot')].map(p => !!p.querySelector('svg'))")
    assert len(drawn) >= (4 if name == "single" else 12)
    assert all(drawn)
    driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    time.sleep(0.5)  # toggle events come later
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    assert driver.execute_script(UNANNOUNCED) == []
    assert errors_of(driver) == []


@pytest.mark.parametrize("name", ["compared", "drawn", "single"])
def test_a_desktop_shows_every_column(pages: dict[str, str], browse: Open, name: str) -> None:
    driver = browse(pages[name], width=1280)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 1280
    assert driver.execute_script(CUT) == []
    assert driver.execute_script(HIDDEN) == []
    assert errors_of(driver) == []


def test_parallel_axes_that_a_phone_has_no_room_for_are_named(pages: dict[str, str], browse: Open) -> None:
    said = "return document.querySelector('#plot-parallel + .more').textContent"
    axes = "return document.getElementById('plot-parallel').data[0].dimensions.map(each => each.label)"
    phone = browse(pages["drawn"], width=390)
    assert "of 6 settings: a wider screen shows all." in phone.execute_script(said)
    assert phone.execute_script(axes)[-1] == "F1"
    desktop = browse(pages["drawn"], width=1280)
    assert desktop.execute_script(said) == ""
    assert len(desktop.execute_script(axes)) == 7
