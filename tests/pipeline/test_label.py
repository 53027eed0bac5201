"""Which images to label: what is asked for, what is kept, and that a later call goes on from there."""

import csv

import pytest

import vlmsel_auto
from helpers.drawings import SHAPES
from helpers.labelling import drawn_session, true_class, write_heap
from vlmsel_auto.errors import CandidateError, InputError, TaskError, WorkdirError
from vlmsel_auto.events import Notice
from vlmsel_auto.library.places import default_library
from vlmsel_auto.pipeline.label import write_to_label
from vlmsel_auto.pipeline.label_session import LabelSession, ToLabel
from vlmsel_auto.pipeline.workdir import check_usable
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import Ranking
from vlmsel_auto.tasks.label_writing import read_known

NAMES = ("ViT-Mi-16-64.all-m", "ViT-Mi-8-64.synth-s")


@pytest.fixture
def heap(tmp_path):
    return write_heap(tmp_path / "heap")


@pytest.fixture
def session(heap, tmp_path):
    return drawn_session(heap, workdir=tmp_path / "work")


def test_a_batch_names_different_images(session):
    wanted = session.suggest(10)
    assert len({one.path for one in wanted}) == 10
    assert wanted[:4] == session.suggest(4)
    assert all(one.suggested in SHAPES and 0 < one.probability <= 1 for one in wanted)
    assert all(one.why.startswith("candidates say ") for one in wanted)
    said = [(one.suggested, one.why.removeprefix("candidates say ").split(" (")[0], one.why) for one in wanted]
    assert [why for likely, first, why in said if (likely != first) != why.endswith(f"by trust: {likely}")] == []
    assert any(likely != first for likely, first, _ in said)
    assert len(session.suggest(100)) == 30


def test_labels_turn_the_ranking(session):
    before = session.scores()
    assert next(iter(before.p_best)) == "poor"
    for _ in range(15):
        (one,) = session.suggest(1)
        session.tell(one.path, true_class(one.path))
    now = session.scores()
    assert now.known == session.answered == 15
    assert next(iter(now.p_best)) == "good"
    assert sum(now.p_best.values()) == pytest.approx(1.0)
    assert now.loss["good"] == min(now.loss.values()) < min(before.loss.values())


def test_every_answer_is_kept_at_once_and_can_be_taken_back(session, heap, tmp_path):
    session.tell("003.png", "circle")
    session.tell("004.png", "square")
    assert read_known(heap, classes=SHAPES, unlabelled=False).labels == {"003.png": "circle", "004.png": "square"}
    session.tell("003.png", "square")  # another mind
    assert session.undo() == "003.png"
    assert session.labels == {"003.png": "circle", "004.png": "square"}
    kept = read_known(heap, classes=SHAPES, unlabelled=False).labels
    again = drawn_session(heap, workdir=tmp_path / "work", labels=kept)
    assert again.scores() == session.scores()
    assert again.undo() is None
    assert (session.undo(), session.undo(), session.undo()) == ("004.png", "003.png", None)
    assert not session.labels_path.exists()


def test_what_was_labelled_or_skipped_is_not_asked_for(session):
    first, second = session.suggest(2)
    session.tell(first.path, "circle")
    session.skip(second.path)
    assert session.closed == {first.path, second.path}
    assert not session.closed & {one.path for one in session.suggest(30)}


def test_for_tuning_every_class_has_its_turn(heap, tmp_path):
    wanted = drawn_session(heap, workdir=tmp_path / "work", purpose="tuning").suggest(6)
    assert [sum(one.suggested == shape for one in wanted) for shape in SHAPES] == [2, 2, 2]
    assert wanted[0].why == f"typical of the images that seem to be {wanted[0].suggested}"


@pytest.mark.parametrize(("path", "label"), [("nobody.png", "circle"), ("003.png", "star"), ("../003.png", "circle")])
def test_only_images_and_classes_of_the_task(session, path, label):
    with pytest.raises(TaskError, match="an image and a class of the task"):
        session.tell(path, label)
    assert not session.labels_path.exists()


def test_nobody_was_screened(session):
    with pytest.raises(CandidateError, match="at least one candidate must be screened"):
        LabelSession(
            session.task, ranking=Ranking(task="t", ranked=()), measured=[Measurement(candidate="a")], labels={}
        )


def test_no_cell_is_a_formula(tmp_path):
    odd = ToLabel(path="=1+1.png", suggested="@SUM(A1)", probability=0.5, why="-2+3")
    path = write_to_label([odd], tmp_path / "work")
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows == [["path", "suggested", "probability", "why"], ["./=1+1.png", "'@SUM(A1)", "0.500", "'-2+3"]]
    check_usable(tmp_path / "work")  # a search may still have it
    with pytest.raises(WorkdirError, match="what to label cannot be written"):
        write_to_label([odd], path)


def test_from_a_folder_to_a_file_and_on(heap, tmp_path):
    options = {
        "candidates": NAMES, "classes": SHAPES, "library": default_library(), "cache_dir": tmp_path / "cache",
        "workdir": tmp_path / "work", "device": "cpu",
    }  # fmt: skip
    found = vlmsel_auto.label(heap, count=4, **options)
    assert found.path == tmp_path / "work" / "to_label.csv"
    rows = list(csv.DictReader(found.path.read_text().splitlines()))
    assert [row["path"] for row in rows] == [f"./{one.path}" for one in found.to_label]
    assert found.scores.known == 0
    assert set(found.scores.p_best) == set(NAMES)
    (heap / "labels.csv").write_text(
        "path,label\n" + "".join(f"{one.path},{true_class(one.path)}\n" for one in found.to_label)
    )
    again = vlmsel_auto.label(heap, count=4, **options)
    assert again.scores.known == 4
    assert not {one.path for one in again.to_label} & {one.path for one in found.to_label}


def test_the_file_is_no_image(heap, monkeypatch):
    monkeypatch.chdir(heap)
    with pytest.raises(WorkdirError, match="must lie outside the task folder"):
        vlmsel_auto.label(".", classes=SHAPES)


def test_a_work_directory_that_cannot_be_written_is_told_before_anybody_is_screened(heap, tmp_path):
    (tmp_path / "file").touch()
    seen = []
    with pytest.raises(WorkdirError, match="the work directory cannot be written here"):
        vlmsel_auto.label(heap, classes=SHAPES, workdir=tmp_path / "file" / "work", sink=seen.append)
    assert not seen


def test_what_was_left_out_is_told_and_a_cache_in_the_folder_is_no_class(heap, tmp_path):
    (heap / "copy.png").write_bytes((heap / "000.png").read_bytes())
    (heap / "broken.png").write_bytes(b"")
    options = {"candidates": NAMES[:1], "classes": "circle,square,triangle", "cache_dir": heap / "cache"}
    notes = [
        f"files left out, {what}" for what in ("cannot be used: 1: 'broken.png: empty", "copies of other images: 1: ")
    ]
    for _ in range(2):
        seen = []
        vlmsel_auto.label(heap, workdir=tmp_path / "work", device="cpu", sink=seen.append, **options)
        told = [event.text for event in seen if isinstance(event, Notice)]
        assert all(any(text.startswith(note) for text in told) for note in notes)
        ranking = vlmsel_auto.rank(heap, device="cpu", **options)
        assert all(any(text.startswith(note) for text in ranking.notes) for note in notes)


def test_two_sessions_on_one_folder(session, heap, tmp_path):
    other = drawn_session(heap, workdir=tmp_path / "work")
    other.tell("004.png", "square")
    session.tell("003.png", "circle")
    assert session.labels == {"003.png": "circle", "004.png": "square"}
    assert session.answered == 1
    with pytest.raises(TaskError, match=r"somebody else has labelled '003.png' as 'circle'"):
        other.tell("003.png", "square")
    other.tell("003.png", "square")  # knowing of it
    with pytest.raises(TaskError, match="but got no label"):
        session.undo()
    assert session.answered == 0
    assert other.undo() == "003.png"
    assert read_known(heap, classes=SHAPES, unlabelled=False).labels == {"003.png": "circle", "004.png": "square"}


@pytest.mark.parametrize("options", [{"count": 0}, {"purpose": "fun"}])
def test_what_cannot_be_asked(heap, options):
    with pytest.raises(ValueError, match="count must be 1 or more and purpose ranking or tuning"):
        vlmsel_auto.label(heap, **options)


def test_a_data_set_has_no_place_for_labels(heap):
    with pytest.raises(InputError, match=r"needs a folder.*, but got a list"):
        vlmsel_auto.label([heap / "000.png"])
