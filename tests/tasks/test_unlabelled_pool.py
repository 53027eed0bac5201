"""Images without labels: which folders are such tasks, what is drawn, what is said of the rest."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.drawings import SHAPES, draw_shape, draw_task
from vlmsel_auto.errors import TaskError
from vlmsel_auto.records import UNLABELLED, ImageView, Task
from vlmsel_auto.tasks import split
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.scan import Scan
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tasks.templates import DEFAULT_TEMPLATES
from vlmsel_auto.tasks.unlabelled_pool import LEAST, AsManyAsFit, draw_sample, spoken_in

NAMED = ("triangle", "circle", "square")  # not sorted: the order given is kept


def pool(root: Path, *, count: int = 12, seed: int = 0) -> Path:
    """ROOT/*.png, every shape in turn."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    for number in range(count):
        draw_shape(SHAPES[number % 3], rng).save(root / f"{number:03d}.png")
    return root


def load(root: Path, **options: object) -> Task:
    return load_task(root, TaskOptions(**options), workdir=root.parent / "work")


def test_a_flat_folder_with_names_is_a_task_without_labels(tmp_path: Path) -> None:
    task = load(pool(tmp_path / "pool"), classes=NAMED)
    assert task.classes == NAMED == task.prompts
    assert not task.is_labelled
    assert task.known_labels is None
    assert (task.labels == UNLABELLED).all()
    assert len(task.paths) == 12
    np.testing.assert_array_equal(task.screened, np.arange(12))
    assert [len(part) for part in (task.train, task.val, task.test, task.support)] == [0, 0, 0, 0]
    assert task.folds == ()
    assert task.notes == ("no labels: all 12 files were screened",)
    assert task.pixels.read(ImageView(size=16), task.screened).shape == (12, 16, 16, 3)


def test_a_labelled_task_is_screened_by_its_support_set(tmp_path: Path) -> None:
    task = load(draw_task(tmp_path / "shapes", train=4, test=2), shots=2)
    assert task.is_labelled
    np.testing.assert_array_equal(task.screened, task.support)
    np.testing.assert_array_equal(task.known_labels, task.labels[task.support])


def test_names_and_prompts_of_task_toml(tmp_path: Path) -> None:
    root = pool(tmp_path / "pool")
    (root / "task.toml").write_text('classes = ["circle", "square"]\n[prompts]\nsquare = "box"\n')
    task = load(root)
    assert (task.classes, task.prompts) == (("circle", "square"), ("circle", "box"))
    assert load(root, classes=("square", "disc")).classes == ("square", "disc")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('classes = "circle"', "classes.*: expected"),
        ("classes = [1, 2]", "classes.*: expected"),
        ('classes = ["a", "a"]', "'a' more than once"),
        ('classes = ["a"]', "two classes or more"),
    ],
)
def test_task_toml_with_names_that_cannot_be_used(tmp_path: Path, line: str, message: str) -> None:
    root = pool(tmp_path / "pool")
    (root / "task.toml").write_text(line + "\n")
    with pytest.raises(TaskError, match=message):
        load(root)


def test_without_names_the_error_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"no image was found that has a class.*labels.csv.*--classes.*got 12 files"):
        load(pool(tmp_path / "pool"))


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    pool(tmp_path / "pool" / "2023" / "may")
    pool(tmp_path / "pool" / "2024", seed=1)
    with pytest.raises(TaskError, match="--unlabelled where folders are no classes, but got '2023', '2024'"):
        load(tmp_path / "pool", classes=NAMED)
    task = load(tmp_path / "pool", classes=NAMED, unlabelled=True)
    assert len(task.paths) == 24
    assert not task.is_labelled
    with pytest.raises(TaskError, match="--classes"):
        load(tmp_path / "pool", unlabelled=True)


def test_labels_are_not_used_when_that_is_wanted(tmp_path: Path) -> None:
    root = draw_task(tmp_path / "shapes", train=4, test=2)
    (root / "labels.csv").write_text("path,label\ntrain/circle/000.png,circle\n")
    task = load(root, classes=NAMED, unlabelled=True)
    assert len(task.paths) == 18
    assert (task.labels == UNLABELLED).all()


def test_a_class_without_an_image_is_named(tmp_path: Path) -> None:
    root = draw_task(tmp_path / "shapes", train=4, test=2)
    with pytest.raises(TaskError, match="'star' with 0"):
        load(root, classes=(*NAMED, "star"))
    assert load(root, classes=NAMED).is_labelled


def test_a_partly_labelled_folder_is_its_labelled_part(tmp_path: Path) -> None:
    root = tmp_path / "task"
    shutil.move(draw_task(tmp_path / "shapes", train=4, test=0) / "train", tmp_path / "labelled")
    pool(root / "unlabelled")
    with pytest.raises(TaskError, match="--classes"):
        load(root)
    assert len(load(root, classes=NAMED).paths) == 12
    shutil.move(tmp_path / "labelled", root / "Labelled")
    task = load(root)
    assert task.classes == SHAPES
    assert len(task.paths) == 12
    assert all(path.startswith("Labelled/") for path in task.paths)
    assert len(task.beside.paths) == 12
    assert not task.beside.is_labelled


def test_a_table_that_names_some_images(tmp_path: Path) -> None:
    pool(tmp_path / "task" / "images")
    rows = "".join(f"{number:03d}.png,{SHAPES[number % 3]}\n" for number in range(9))
    (tmp_path / "task" / "labels.csv").write_text("path,label\n" + rows)
    task = load(tmp_path / "task", classes=NAMED)
    assert len(task.paths) == 9
    assert task.beside.paths == tuple(f"images/{number:03d}.png" for number in (9, 10, 11))
    with pytest.raises(TaskError, match="but got 'triangle'"):
        load(tmp_path / "task", classes=("circle", "square"))


def test_damaged_files_and_copies_are_left_out_and_listed(tmp_path: Path) -> None:
    root = pool(tmp_path / "pool")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n")
    shutil.copy(root / "003.png", root / "again.png")
    task = load(root, classes=NAMED)
    assert len(task.paths) == 12
    told = {bad.path: bad.reason for bad in task.bad_files}
    assert set(told) == {"broken.png", "again.png"} or set(told) == {"broken.png", "003.png"}
    assert any(reason.startswith("same image as ") for reason in told.values())


def test_not_one_readable_image(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / "pool").mkdir(exist_ok=True)
        (tmp_path / "pool" / name).write_bytes(b"nothing")
    with pytest.raises(TaskError, match=r"not one file can be decoded, but got 'a.png: "):
        load(tmp_path / "pool", classes=NAMED)
    assert [path.name for path in (tmp_path / "work" / "pixels").iterdir()] == [".lock"]


def test_a_sample_is_drawn_once_and_said(tmp_path: Path) -> None:
    root = pool(tmp_path / "pool", count=30)
    first, again, other = (load(root, classes=NAMED, images=10, seed=seed) for seed in (0, 0, 1))
    assert first.paths == again.paths != other.paths
    assert first.digest == again.digest != other.digest
    assert len(first.paths) == 10
    assert first.notes == ("no labels: 10 of 30 files were screened, drawn by chance (--images)",)
    with pytest.raises(TaskError, match="images must be at least 1"):
        load(root, classes=NAMED, images=0)


def test_a_draw_knows_its_images_by_their_content(tmp_path: Path) -> None:
    root = pool(tmp_path / "pool", count=30)
    shutil.copy(root / "004.png", root / "zzz.png")  # whichever was drawn first stands for both
    few, many = (load(root, classes=NAMED, images=images) for images in (20, 31))
    assert few.draw is not None
    assert many.draw is not None
    assert (few.draw.files, many.draw.files, len(many.paths)) == (20, 31, 30)
    first, all_of_them = ([task.paths[place] for place in task.draw.order] for task in (few, many))
    assert first == all_of_them[: len(first)]
    ids = dict(zip(many.paths, many.image_ids.tolist(), strict=True))
    assert len(set(ids.values())) == 30
    assert few.image_ids.tolist() == [ids[path] for path in few.paths]
    assert few.measured_under == many.measured_under != load(root, classes=("disc", "box")).measured_under
    draw_shape("circle", np.random.default_rng(9)).save(root / first[0])
    again = load(root, classes=NAMED, images=20)
    assert again.paths == few.paths
    assert (again.image_ids != few.image_ids).sum() == 1


def test_every_file_is_as_likely_in_a_sample(tmp_path: Path) -> None:
    scan = scan_folder(pool(tmp_path / "pool", count=20), classes=NAMED)
    drawn = np.concatenate([draw_sample(scan, images=5, seed=seed).positions for seed in range(400)])
    counts = np.bincount(drawn, minlength=20)
    assert abs(counts - 100).max() < 40  # binomial: standard deviation 8.7


def test_a_small_png_is_enough(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "pool" / "dot.png")
    assert load(tmp_path / "pool", classes=NAMED).paths == ("dot.png",)


def test_a_parquet_table_without_its_labels(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = pool(tmp_path / "pool", count=6)
    images = [path.read_bytes() for path in sorted(root.iterdir())]
    folder = tmp_path / "table"
    folder.mkdir()
    parquet.write_table(arrow.table({"image": images, "label": [0, 1, 2] * 2}), folder / "images.parquet")
    (folder / "task.json").write_text('{"classes": ["circle", "square", "triangle"], "templates": ["a {}."]}')
    task = load(folder, unlabelled=True)
    assert (task.classes, task.templates) == (SHAPES, ("a {}.",))
    assert (task.labels == UNLABELLED).all()
    assert load(folder, classes=("disc", "box"), unlabelled=True).classes == ("disc", "box")
    with pytest.raises(TaskError, match=r"must be those of images.parquet"):
        load(folder, classes=("disc", "box"))


def test_whether_the_user_named_templates_is_known(tmp_path: Path) -> None:
    root = pool(tmp_path / "pool")
    plain = load(root, classes=NAMED)
    assert (plain.names_templates, plain.templates) == (False, DEFAULT_TEMPLATES)
    (root / "task.toml").write_text(f'templates = ["{DEFAULT_TEMPLATES[0]}"]\n')
    named = load(root, classes=NAMED)
    assert (named.names_templates, named.templates) == (True, DEFAULT_TEMPLATES)


def test_other_templates_are_other_texts_of_the_same_images(tmp_path: Path) -> None:
    task = load(pool(tmp_path / "pool"), classes=NAMED)
    spoken = spoken_in(task, ("a drawing of a {}.",))
    assert spoken.templates == ("a drawing of a {}.",)
    assert spoken.measured_under != task.measured_under
    assert spoken.digest != task.digest
    np.testing.assert_array_equal(spoken.image_ids, task.image_ids)
    (tmp_path / "pool" / "task.toml").write_text('templates = ["a drawing of a {}."]\n')
    assert load(tmp_path / "pool", classes=NAMED).measured_under == spoken.measured_under


def test_a_labelled_task_keeps_its_templates(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a task without labels, but got 'shapes'"):
        spoken_in(load(draw_task(tmp_path / "shapes", train=4, test=2)), ("a {}.",))


@pytest.fixture(scope="module")
def damaged_pool(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    """300 files, of which those in the middle, which are timed, are damaged."""
    root = tmp_path_factory.mktemp("pool")
    for number in range(300):
        path = root / f"{number:03d}.png"
        Image.new("RGB", (4, 4), (number % 256, 0, 0)).save(path)
        if 140 <= number < 160:
            path.write_bytes(path.read_bytes()[:20])
    return scan_folder(root, classes=("a", "b"))


def refused() -> float:
    """Nobody needs to know how long an image takes."""
    raise AssertionError


def test_a_given_number_is_kept_to(damaged_pool: Scan) -> None:
    sample = draw_sample(damaged_pool, images=5, seed=0)
    assert len(set(sample.positions.tolist())) == 5
    assert sample.note == "no labels: 5 of 300 files were screened, drawn by chance (--images)"
    for images in (300, None):
        assert draw_sample(damaged_pool, images=images, seed=0).note == "no labels: all 300 files were screened"


@pytest.mark.parametrize(("seconds", "expected"), [(150.0, 141), (250.0, 200), (1.0, LEAST), (1e6, 300)])
def test_as_many_as_the_time_allows_in_steps(damaged_pool: Scan, seconds: float, expected: int) -> None:
    size = AsManyAsFit(candidates=2, image_seconds=lambda: 1e3, seconds=1e3 * seconds)
    assert len(draw_sample(damaged_pool, images=size, seed=0).positions) == expected


def test_the_note_says_what_bounds_the_sample(damaged_pool: Scan) -> None:
    def note(size: AsManyAsFit) -> str:
        return draw_sample(damaged_pool, images=size, seed=0).note

    timely = note(AsManyAsFit(candidates=2, image_seconds=lambda: 1e3, seconds=150e3))
    assert timely.startswith("no labels: 141 of 300 files were screened, drawn by chance, as many as fit in 150000 ")
    assert "and 1000000 ms in all candidates; --images chooses another number)" in timely
    assert "the least that are: more than 60 seconds" in note(AsManyAsFit(candidates=2, image_seconds=lambda: 1e3))
    crowd = note(AsManyAsFit(candidates=500, image_seconds=lambda: 0.0, seconds=1e6))
    assert "141 of 300" in crowd
    assert "as many as fit in 537 MB (all candidates keep 3.10 MB of each" in crowd


def paths_of(scan: Scan, *, images: int, seed: int = 0) -> list[str]:
    """As they were drawn."""
    sample = draw_sample(scan, images=images, seed=seed)
    assert (np.diff(sample.positions) > 0).all()
    return [scan.entries[place].path for place in sample.positions[sample.order]]


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(damaged_pool: Scan) -> None:
    assert (
        paths_of(damaged_pool, images=100)
        == paths_of(damaged_pool, images=200)[:100]
        != paths_of(damaged_pool, images=100, seed=1)
    )


def test_a_file_that_goes_takes_no_other_out_of_the_sample(damaged_pool: Scan) -> None:
    drawn = paths_of(damaged_pool, images=100)
    fewer = replace(damaged_pool, entries=tuple(entry for entry in damaged_pool.entries if entry.path != drawn[7]))
    assert paths_of(fewer, images=100)[:99] == [*drawn[:7], *drawn[8:]]


def test_a_search_that_goes_on_keeps_to_its_number(damaged_pool: Scan) -> None:
    size = AsManyAsFit(candidates=1, image_seconds=refused, earlier=7)
    note = "no labels: 7 of 300 files were screened, drawn by chance, as many as this search began with"
    assert draw_sample(damaged_pool, images=size, seed=0).note == note


def test_few_images_are_not_timed(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    few = scan_folder(tmp_path, classes=("a", "b"))
    sample = draw_sample(few, images=AsManyAsFit(candidates=1, image_seconds=refused), seed=0)
    assert (sample.positions.tolist(), sample.note) == ([0], "no labels: all 1 files were screened")


@pytest.fixture
def partly(tmp_path: Path) -> Path:
    """Twelve labelled drawings beside thirty without a label."""
    root = tmp_path / "task"
    shutil.move(draw_task(tmp_path / "shapes", train=4, test=0) / "train", tmp_path / "labelled")
    shutil.move(draw_task(tmp_path / "more", train=10, test=0, seed=5) / "train", tmp_path / "unlabelled")
    root.mkdir()
    shutil.move(tmp_path / "labelled", root)
    shutil.move(tmp_path / "unlabelled", root)
    return root


def test_training_images_beyond_the_support_set_are_screened_up_to_160() -> None:
    train, support = np.arange(100, 400), np.arange(100, 400, 10)
    found = split.further_images(train, support, seed=0)
    assert len(found) == 160 - 30
    assert set(found) <= set(train) - set(support)
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, split.further_images(train, support, seed=0))
    assert set(found) != set(split.further_images(train, support, seed=1))
    assert not split.further_images(train, np.arange(100, 300), seed=0).size
    np.testing.assert_array_equal(split.further_images(train[:40], support, seed=0), np.setdiff1d(train[:40], support))


def test_a_labelled_folder_shows_more_than_its_support_set(tmp_path: Path) -> None:
    task = load(draw_task(tmp_path / "shapes", train=6, test=2), shots=2)
    assert len(task.support) == 6
    assert set(task.others) == set(task.train) - set(task.support)
    assert task.screening_size == len(task.train)
    assert task.beside is None


def test_files_without_a_label_are_a_task_of_their_own(partly: Path) -> None:
    task = load(partly)
    assert task.is_labelled
    assert task.beside is not None
    assert (task.beside.classes, task.beside.prompts, task.beside.templates) == (
        task.classes, task.prompts, task.templates,
    )  # fmt: skip
    assert len(task.beside.paths) == 30
    assert all(path.startswith("unlabelled/") for path in task.beside.paths)
    assert task.screening_size == len(task.train) + 30
    assert task.beside.pixels.read(ImageView(size=8), np.arange(30)).shape == (30, 8, 8, 3)
    assert "files without a label: 30; the ranking looks at 30 of them, no model learns from them" in task.notes
    assert task.digest == load(partly).digest


def test_no_more_are_drawn_than_screenings_see(partly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "SCREENED", 20)
    task = load(partly)
    assert task.screening_size == 20
    assert task.beside is not None
    assert len(task.beside.paths) == 20 - len(task.train)
    monkeypatch.setattr(split, "SCREENED", 3)
    task = load(partly)
    assert task.beside is None
    assert task.screening_size == len(task.support)
    assert "files without a label: 30; not used" in task.notes


def test_files_that_are_no_images_are_passed_over(partly: Path) -> None:
    for each in sorted((partly / "unlabelled").rglob("*.png"))[:29]:
        each.write_bytes(b"no picture")
    task = load(partly)
    assert task.beside is not None
    assert len(task.beside.paths) == 1
    for each in (partly / "unlabelled").rglob("*.png"):
        each.write_bytes(b"no picture")
    task = load(partly)
    assert task.beside is None
    assert any("files without a label: 30; not used: no image" in note for note in task.notes)
    assert not task.bad_files
