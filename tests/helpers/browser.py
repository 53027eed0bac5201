"""Headless Chromium, driven by selenium; where there is none, the tests that want it say so and are skipped."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from selenium import webdriver

_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-extensions")


@pytest.fixture
def browser() -> Iterator[Callable[..., webdriver.Chrome]]:
    """A factory of browsers with a window of this width in CSS pixels, in a light or a dark scheme."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on this machine: apt-get install chromium chromium-driver")
    with ExitStack() as stack:

        def opened(*, width: int = 1280, height: int = 900, dark: bool = False) -> webdriver.Chrome:
            options = webdriver.ChromeOptions()
            options.binary_location = chromium
            for option in _OPTIONS:
                options.add_argument(option)
            found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
            stack.callback(found.quit)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            return found

        yield opened
