"""A report in a real browser, and the pictures of one that README and docs/ show.

python -m benchmarks.pictures REPORT.html [FOLDER]    report_light.png, report_dark.png and report_phone.png
"""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
SECONDS = 60
PICTURES = {"light": (1280, 1500, False), "dark": (1280, 1500, True), "phone": (390, 1700, False)}
"""(width, height, dark) by name, in CSS pixels."""


def open_page(url: str, profile: Path, width: int = 1200, dark: bool = False) -> Any:
    """A selenium driver of a fresh chromium that shows a report, drawn; close it by `quit()`.

    Args:
        profile: a folder of this browser's own.
        width: in CSS pixels; below 600 the browser says that it is a phone's.
    """
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
    shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
    driver.get(url)
    ready = "return document.documentElement.dataset.ready"
    WebDriverWait(driver, SECONDS).until(lambda opened: opened.execute_script(ready))
    return driver


def take(report: Path, folder: Path) -> list[Path]:
    """The pictures of a report's first page."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    for name, (width, height, dark) in PICTURES.items():
        with tempfile.TemporaryDirectory() as profile:
            driver = open_page(report.absolute().as_uri(), Path(profile), width, dark)
            try:
                clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
                asked = {"format": "png", "clip": clip, "captureBeyondViewport": True}
                picture = driver.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]
            finally:
                driver.quit()
        taken.append(folder / f"report_{name}.png")
        taken[-1].write_bytes(base64.b64decode(picture))
    return taken


def main(words: Sequence[str]) -> None:
    if not words or CHROMIUM is None or DRIVER is None:
        sys.exit(f"{__doc__}\nIt needs chromium and chromedriver.")
    for path in take(Path(words[0]), Path(words[1] if len(words) > 1 else "docs")):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
