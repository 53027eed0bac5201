"""The page on loopback: who gets in, what it shows, and a real browser that labels by keys."""

import http.client
import io
import json
import re
import shutil
from urllib.parse import urlsplit

import pytest
from PIL import Image

from helpers.browser import browser  # noqa: F401 - a fixture
from helpers.drawings import SHAPES
from helpers.labelling import drawn_session, true_class, write_heap
from vlmsel_auto.cli import labelpage
from vlmsel_auto.cli.labelpage import serving
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.label_writing import read_known


@pytest.fixture
def heap(tmp_path):
    return write_heap(tmp_path / "heap")


@pytest.fixture
def session(heap, tmp_path):
    return drawn_session(heap, workdir=tmp_path / "work")


@pytest.fixture
def address(session):
    with serving(session) as found:
        yield found


def ask(address, what, *, body=None, host=None, token=None):
    """Status, headers and body of one request below the page's address."""
    parts = urlsplit(address)
    path = parts.path if token is None else f"/{token}/"
    link = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)
    try:
        headers = {} if host is None else {"Host": host}
        link.request("GET" if body is None else "POST", path + what, body=body, headers=headers)
        reply = link.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        link.close()


def said(address, what, value=None):
    status, _, body = ask(address, what, body=None if value is None else json.dumps(value))
    return status, json.loads(body)


def test_nobody_gets_in_without_token_and_name(address):
    assert ask(address, "")[0] == 200
    assert ask(address, "state", host=f"localhost:{urlsplit(address).port}")[0] == 200
    for refused in (
        ask(address, "state", token="guessed"),  # noqa: S106 - a wrong one
        ask(address, "state", host="evil.example"),
        ask(address, "state", host=f"evil.example:{urlsplit(address).port}"),
        ask(address, "answer", host="evil.example", body='{"image": 0, "label": "circle"}'),
    ):
        assert refused[0] == 404
        assert b"image" not in refused[2]


def test_it_listens_on_loopback_alone(address):
    assert urlsplit(address).hostname == "127.0.0.1"
    assert len(urlsplit(address).path.strip("/")) >= 32


def test_the_page_loads_nothing_from_elsewhere(address):
    _, headers, body = ask(address, "")
    page = body.decode()
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; img-src 'self' data:; connect-src 'self'")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "http" not in page.replace("HTMLButtonElement", "")
    assert page.count("data-label") >= len(SHAPES)


def test_only_images_of_the_folder_are_shown(address, heap):
    (heap / "secret.txt").write_text("secret")
    status, headers, body = ask(address, "image/0")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(body)).size == (48, 48)
    for path in ("image/30", "image/-1", "image/secret.txt", "image/../secret.txt", "image/..%2fsecret.txt", "image/٣"):
        assert ask(address, path.encode("ascii", "ignore").decode())[0] == 404
    outside = heap.parent / "outside.png"
    shutil.copy(heap / "001.png", outside)
    (heap / "001.png").unlink()
    (heap / "001.png").symlink_to(outside)
    assert ask(address, "image/1")[0] == 404
    (heap / "002.png").write_bytes(b"broken by now")
    assert ask(address, "image/2")[0] == 404


def test_what_labels_can_gain_stands_beside_the_leader(address):
    standing = said(address, "state")[1]["standing"]
    assert re.search(
        r"leads: best with probability \d+ %, accuracy about \d+ % \(\d+ % to \d+ %\); .*further labels can .*gain",
        standing,
    )


def test_answers_go_round(address, heap):
    _, first = said(address, "state")
    place, name = first["image"]["place"], first["image"]["name"]
    status, second = said(address, "answer", {"image": place, "label": "circle"})
    assert (status, second["given"], second["labels"]) == (200, 1, 1)
    assert second["image"]["place"] != place
    assert read_known(heap, classes=SHAPES, unlabelled=False).labels == {name: "circle"}
    _, back = said(address, "undo", {})
    assert (back["image"]["place"], back["given"]) == (place, 0)
    _, third = said(address, "skip", {"image": place})
    assert third["image"]["place"] != place
    assert not (heap / "labels.csv").exists()


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("answer", '{"image": 0, "label": "star"}', 409),
        ("answer", '{"image": 99, "label": "circle"}', 409),
        ("answer", '{"image": "0", "label": "circle"}', 404),
        ("answer", "not JSON", 404),
        ("answer", "[1]", 404),
        ("nothing", "{}", 404),
        ("answer", "x" * 70_000, 400),
    ],
)
def test_what_is_no_answer_changes_nothing(address, heap, what, body, status):
    assert ask(address, what, body=body)[0] == status
    assert not (heap / "labels.csv").exists()


def test_an_answer_that_cannot_be_saved_is_told(address, heap):
    (heap / "labels.csv").mkdir()
    status, told = said(address, "answer", {"image": 0, "label": "circle"})
    assert status == 409
    assert "labels cannot be written here" in told["error"]
    assert said(address, "state")[1]["given"] == 0


def test_a_person_who_is_quicker_than_the_belief(session, monkeypatch):
    monkeypatch.setattr(labelpage, "_PATIENCE", 0.0)
    with serving(session) as address:
        _, now = said(address, "state")
        seen = []
        while now["image"] is not None:
            seen.append(now["image"]["name"])
            _, now = said(address, "answer", {"image": now["image"]["place"], "label": true_class(seen[-1])})
    assert sorted(seen) == [f"{number:03d}.png" for number in range(30)]
    assert session.labels == {name: true_class(name) for name in seen}


def test_when_nothing_is_left(heap, tmp_path):
    labels = {f"{number:03d}.png": true_class(f"{number:03d}.png") for number in range(29)}
    with serving(drawn_session(heap, workdir=tmp_path / "work", labels=labels)) as address:
        _, last = said(address, "state")
        assert last["image"]["name"] == "029.png"
        _, done = said(address, "answer", {"image": last["image"]["place"], "label": "triangle"})
        assert (done["image"], done["labels"]) == (None, 30)


def test_a_port_that_is_taken(session, address):
    with pytest.raises(TaskError, match="the page needs a free port"), serving(session, port=urlsplit(address).port):
        pass


@pytest.mark.slow
def test_five_images_by_keys_alone(browser, address, heap):  # noqa: F811 - the fixture
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def shown():
        return browser.find_element(By.ID, "name").text

    def press(key):
        """The image that comes after a key."""
        before = shown()
        browser.switch_to.active_element.send_keys(key)
        WebDriverWait(browser, 30).until(lambda _: shown() not in {"", before})
        return shown()

    def kept():
        return read_known(heap, classes=SHAPES, unlabelled=False).labels

    browser.get(address)
    WebDriverWait(browser, 30).until(lambda _: shown())
    expected = {}
    for count in range(1, 6):
        name = shown()
        expected[name] = true_class(name)
        press("123"[SHAPES.index(expected[name])])
        assert kept() == expected
        assert len(kept()) == count
    assert browser.find_element(By.ID, "count").text == "5 labelled now, 5 of 30 images in all"

    assert press(Keys.BACKSPACE) == name
    assert kept() == {path: label for path, label in expected.items() if path != name}
    browser.refresh()
    WebDriverWait(browser, 30).until(lambda _: shown())
    assert browser.find_element(By.ID, "count").text == "4 labelled now, 4 of 30 images in all"
    browser.switch_to.active_element.send_keys("/")  # the filter: a name's letters, then Enter
    name = shown()
    browser.switch_to.active_element.send_keys("triang")
    press(Keys.ENTER)
    assert kept()[name] == "triangle"
    name = shown()
    suggested = browser.find_element(By.CSS_SELECTOR, "button.suggested").get_attribute("data-label")
    press(Keys.ENTER)
    assert kept()[name] == suggested
    name = shown()
    press(Keys.SPACE)
    assert name not in kept()
    assert len(kept()) == 6
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert loaded
    assert all(one.startswith((address, "data:")) for one in loaded)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
