"""The page in a real browser: nothing cut off, no violation of axe-core's rules, usable by keyboard, light and dark."""

from dataclasses import replace

import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from helpers.browser import browser  # noqa: F401 - a fixture
from helpers.exported_world import LEVELS
from helpers.report_world import NAMES, doubted, judged, make_ranking, make_report, make_trial, pictured
from vlmsel_auto.records import Budget, NotScreened
from vlmsel_auto.reporting import html_page
from vlmsel_auto.reporting.report import CandidateSummary

pytestmark = pytest.mark.slow
LONG = "ViT-SO400M-16-SigLIP2-512/webli-and-a-tag-that-is-longer"
WIDER = """
return [...document.querySelectorAll("main *")].filter(one => one.scrollWidth > one.clientWidth + 1
    && getComputedStyle(one).overflowX === "auto").map(one => one.getAttribute("aria-label") || one.tagName)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with everything in it, and long names."""
    found = pictured(judged(classes=6)[2], side=60)
    names = (*NAMES[:3], LONG, *NAMES[4:])
    trials = [
        make_trial(0, NAMES[0], validation=0.90, test=0.88),
        make_trial(1, LONG, validation=0.95, test=0.91, method="finetune"),
        make_trial(2, NAMES[2], validation=0.80, test=0.82),
        make_trial(3, NAMES[1], state="failed"),
    ]
    settings = {"learning_rate": 1e-3, "weight_decay": 1e-4, "augmentation": 0.4}
    trials[1] = replace(trials[1], spec=replace(trials[1].spec, settings=settings), reason="the time budget ended it",
        seconds=3725.0, curve=(0.5,) * 24, epochs_run=24)  # fmt: skip
    ranking = replace(
        make_ranking(names), not_looked={LONG: NotScreened(reason="no time was left for it", seconds=3.0)}
    )
    report = make_report(
        ranking=ranking, trials=tuple(trials), mistakes=found, label_issues=doubted(found), budget=Budget(seconds=60.0),
        candidates=tuple(CandidateSummary(id=name, params=10**9, flops=8.8e7, size=64, latency=0.01) for name in names),
        stage_seconds={"images and ranking": 12.0, "trials": 46.0},
    )  # fmt: skip
    report = replace(report, best=replace(report.best, answers=LEVELS))
    folder = tmp_path_factory.mktemp("report")
    return html_page.write_html(report, folder).as_uri()


@pytest.fixture
def window(browser):  # noqa: F811
    """A function that gives the browser a width in CSS pixels, a light or a dark scheme, or paper."""

    def sized(*, width=1280, dark=False, media=""):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        return browser

    yield sized
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def opened(driver, url):
    driver.get(url)
    driver.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    return driver


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (380, False)])
def test_no_rule_of_axe_is_broken(window, page, width, dark):
    driver = opened(window(width=width, dark=dark), page)
    broken = Axe().run(driver)["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in broken] == []
    assert driver.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches") is dark


def test_nothing_is_cut_off_on_a_desk_and_the_page_itself_never_scrolls_sideways(window, page):
    assert opened(window(width=1280), page).execute_script(WIDER) == []
    narrow = opened(window(width=380), page)
    assert narrow.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    scrolled = narrow.execute_script(WIDER)
    assert "All trials" in scrolled  # wide tables scroll within themselves
    assert "FIGURE" not in scrolled  # plots shrink


def test_the_page_is_usable_by_keyboard(window, page):
    driver = window()
    driver.get(page)
    first = driver.find_element(By.CSS_SELECTOR, "details")
    assert first.get_attribute("open") is None
    for _ in range(60):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        if driver.switch_to.active_element.tag_name == "summary":
            break
    summary = driver.switch_to.active_element
    assert summary.tag_name == "summary"
    assert driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    summary.send_keys(Keys.ENTER)
    assert first.get_attribute("open") is not None


def test_on_paper_closed_tables_are_printed_in_black_on_white(window, page):
    driver = window(dark=True, media="print")
    driver.get(page)
    cell = driver.find_element(By.CSS_SELECTOR, "details:not([open]) td")
    assert driver.execute_script("return arguments[0].checkVisibility({contentVisibilityAuto: true})", cell)
    assert driver.execute_script("return getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
