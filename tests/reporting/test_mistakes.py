"""Who is taken for whom against scikit-learn, the images that tell most, their thumbnails, and the page of it all."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from helpers.report_world import judged, make_report, pictured
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.reporting import html_page, plots
from vlmsel_auto.reporting.mistakes import BINS, SHOWN, Mistakes, judge, with_thumbnails
from vlmsel_auto.tuning import final_score


def test_counts_are_those_of_the_confusion_matrix():
    probabilities, labels, found = judged()
    expected = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(5))
    assert [one.right for one in found.classes] == expected.diagonal().tolist()
    assert [one.images for one in found.classes] == expected.sum(axis=1).tolist()
    assert [one.predicted for one in found.classes] == expected.sum(axis=0).tolist()
    assert {(one.true, one.predicted): one.images for one in found.confusions} == {
        (f"class {t}", f"class {p}"): expected[t, p] for t in range(5) for p in range(5) if t != p and expected[t, p]
    }
    counts = [one.images for one in found.confusions]
    assert counts == sorted(counts, reverse=True)
    assert found.images == 200


def test_recall_has_an_interval_where_there_are_images():
    found = judged()[2]
    assert found.classes[-1].interval is None
    for one in found.classes[:-1]:
        assert one.interval.low < one.right / one.images < one.interval.high


def test_reliability_gives_the_calibration_error():
    assert BINS == final_score._BINS
    probabilities, labels, found = judged()
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    error = sum((bins == b).mean() * abs(sure[bins == b].mean() - right[bins == b].mean()) for b in np.unique(bins))
    assert sum(b.images / 200 * abs(b.probability - b.right) for b in found.reliability) == pytest.approx(error)


def test_surest_mistakes_and_least_sure_images_in_their_order():
    probabilities, labels, found = judged()
    highest, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    assert len(found.surest) == len(found.unsure) == SHOWN
    assert [one.probability for one in found.surest] == sorted(highest[wrong], reverse=True)[:SHOWN]
    assert [one.probability for one in found.unsure] == sorted(highest)[:SHOWN]
    assert all(one.true != one.predicted for one in found.surest)
    first = found.surest[0]
    row = int(first.path[5:9])
    assert (first.true, first.true_probability) == (f"class {labels[row]}", probabilities[row, labels[row]])


def test_a_classifier_without_mistakes_has_none():
    labels = np.array([0, 1, 1])
    found = judge(np.eye(2)[labels], labels=labels, classes=["a", "b"], paths=["x", "y", "z"], split="test")
    assert (found.surest, found.confusions) == ((), ())
    assert found.reliability[0].right == 1.0
    page = html_page.html(make_report(mistakes=found))
    assert "3 right, 0 wrong" in page
    assert "The surest mistakes" not in page


def test_thumbnails_are_small_pictures_of_what_was_seen():
    image = np.zeros((200, 100, 3), dtype=np.uint8)
    image[:100] = 255
    (one,) = with_thumbnails(judged()[2].surest[:1], [image])
    head, data = one.thumbnail.split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (48, 96)
        pixels = np.asarray(picture)
    assert pixels[:40].min() > 240
    assert pixels[-40:].max() < 15


def test_the_record_survives_json():
    found = pictured(judged()[2], side=8)
    assert decode(Mistakes, encode(found)) == found


def test_the_page_shows_the_images_and_stays_small():
    found = pictured(judged(classes=8)[2])
    page = html_page.html(make_report(mistakes=found))
    assert page.count('src="data:image/jpeg;base64,') == 2 * SHOWN
    assert len(page.encode()) < 3_000_000
    assert page.count("<svg ") == 3 + 3
    assert "img-src data:" in page
    images = re.findall(r'<img src="data:[^"]*" width="96" height="96" alt="([^"]+)">', page)
    assert len(images) == 2 * SHOWN
    assert images[0] == f"{found.surest[0].true}, taken for {found.surest[0].predicted}"


def test_the_page_without_images_names_the_files_alone():
    found = judged(split="validation")[2]
    page = html_page.html(make_report(mistakes=found))
    assert "<img" not in page
    assert found.surest[0].path in page
    assert "did not learn from (validation)" in page


def test_names_are_escaped():
    labels = np.array([0, 1])
    found = judge(
        np.array([[0.2, 0.8], [0.3, 0.7]]), labels=labels, classes=["<b>$a$", "b"], paths=["<i>.png", "x"], split="test"
    )
    page = html_page.html(make_report(mistakes=found))
    assert "<b>$a$" not in page
    assert "<i>.png" not in page
    assert "&lt;b&gt;$a$" in page


@pytest.mark.parametrize("classes", [2, 3, 16, 30, 31, 200])
def test_many_classes_keep_the_page_readable(classes):
    found = judged(classes=classes, count=400)[2]
    page = html_page.html(make_report(mistakes=found))
    assert ("True classes against" in page) is (classes <= plots.MOST_CLASSES)
    assert ("the lowest first: 40 of 200 classes, all stand in the figures below." in page) is (classes == 200)
    for draw in (plots.recall_by_class, plots.reliability):
        ET.fromstring(draw(found).svg())  # noqa: S314 - our own output
    assert len(page.encode()) < 3_000_000


def test_a_matrix_counts_and_colours_its_cells():
    found = judged(classes=3)[2]
    drawing = plots.confusion_matrix(found)
    cells = [(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in drawing.axes[0].patches]
    assert len(cells) == len([one for one in found.classes if one.right]) + len(found.confusions)
    texts = {text.get_text() for text in drawing.axes[0].texts}
    assert {str(one.images) for one in found.confusions} <= texts
