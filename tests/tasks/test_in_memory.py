"""Images in memory as files: nothing of their pixels is lost, and what is no image is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from helpers.drawings import draw_shape
from vlmsel_auto.errors import InputError
from vlmsel_auto.tasks.decode import decode_image
from vlmsel_auto.tasks.in_memory import as_classes, as_files, as_images, names_of, write_task
from vlmsel_auto.tasks.task import TaskOptions, load_task


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, size=(6, 20, 30, 3), dtype=np.uint8)


def test_pixels_and_pictures_come_back_unchanged(pixels, tmp_path):
    given = [*pixels[:2], Image.fromarray(pixels[2]), Image.fromarray(pixels[3]).convert("YCbCr"), pixels[4, :, :, 0]]
    files = as_files(given, tmp_path)
    read = []
    for file in files:
        with Image.open(file) as image:
            read.append(np.asarray(image))
    assert all(np.array_equal(one, image) for one, image in zip(read[:3], pixels[:3], strict=True))
    assert read[3].shape == (20, 30, 3)
    assert np.array_equal(read[4], pixels[4, :, :, 0])


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_deep_pictures_become_what_their_files_become(kind, tmp_path):
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    picture = Image.fromarray((ramp if kind == "float32" else 65535 * ramp).astype(kind))
    picture.save(tmp_path / "file.tif")
    (file,) = as_files([picture], tmp_path)
    found = np.asarray(decode_image(file).image)
    assert np.array_equal(found, np.asarray(decode_image(tmp_path / "file.tif").image))
    assert abs(found.mean() - 127.5) < 1.0


def test_turned_and_transparent_pictures_become_what_their_files_become(tmp_path):
    picture = Image.new("RGBA", (4, 8), (200, 0, 0, 128))
    turned = Image.new("RGB", (4, 8), "red")
    turned.getexif()[ExifTags.Base.Orientation] = 6
    first, second = as_files([picture, turned], tmp_path)
    assert decode_image(first).image.getpixel((0, 0)) == (227, 127, 127)
    assert decode_image(second).image.size == (8, 4)


@pytest.mark.parametrize("wrong", ["truncated", "closed", "empty"])
def test_pictures_that_cannot_be_loaded(pixels, wrong, tmp_path):
    stream = io.BytesIO()
    Image.fromarray(pixels[0]).save(stream, "PNG")
    picture = Image.open(io.BytesIO(stream.getvalue()[: 300 if wrong == "truncated" else None]))
    if wrong == "closed":
        picture.close()
    if wrong == "empty":
        picture = Image.new("RGB", (0, 3))
    with pytest.raises(InputError, match="image 1 must be one that Pillow can load, but got"):
        as_files([pixels[0], picture], tmp_path)


def test_paths_stay_where_they_are(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    assert as_files([str(file), file], tmp_path) == [file, file]


@pytest.mark.parametrize(
    "X",
    [["a", "b"], np.array(["a", "b"]), np.array([["a"], ["b"]], dtype=object)],
    ids=["list", "array", "column"],
)
def test_paths_in_any_container(X):
    assert as_images(X) == ["a", "b"]


def test_data_frames_hand_on_their_column():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"file": ["a", "b"]})
    assert as_images(frame) == as_images(frame["file"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a.png", "several images are needed.*but got str"),
        (np.zeros((2, 8, 8, 3)), r"uint8 of shape.*but got float64 of \(2, 8, 8, 3\)"),
        (np.zeros((2, 8), dtype=np.uint8), r"but got uint8 of \(2, 8\)"),
        (np.array([["a", "b"]]), r"is \(n,\) of paths.*but got \(1, 2\)"),
    ],
)
def test_what_holds_no_images_is_refused(X, message):
    with pytest.raises(InputError, match=message):
        as_images(X)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("gone.png", "image 0 is not there, but got 'gone.png'"),
        (3, "image 0 must be a path.*but got int"),
        (np.zeros((4, 4, 2), dtype=np.uint8), r"but got uint8 of \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"but got uint8 of \(0, 4, 3\)"),
    ],
)
def test_what_is_no_image_is_refused(image, message, tmp_path):
    with pytest.raises(InputError, match=message):
        as_files([image], tmp_path)


def test_a_written_task_loads_with_its_words(tmp_path):
    rng = np.random.default_rng(1)
    file = tmp_path / "mine.png"
    draw_shape("circle", rng).save(file)
    names = ['ci"rcle', "ünder, score"]
    images = [file, *(np.asarray(draw_shape(shape, rng)) for shape in ["circle"] * 5 + ["square"] * 6)]
    labels = [names[0]] * 6 + [names[1]] * 6
    write_task(
        ((image, label, "") for image, label in zip(images, labels, strict=True)),
        folder=tmp_path / "task",
        metric="balanced_accuracy",
        domain="drawn \\ shapes",
        templates=["a {}."],
        prompts={names[0]: "disc"},
    )
    task = load_task(tmp_path / "task", TaskOptions(draw_test=False, needs_val=True), workdir=tmp_path / "w")
    assert task.classes == tuple(names)
    assert (task.metric, task.domain, task.templates) == ("balanced_accuracy", "drawn \\ shapes", ("a {}.",))
    assert task.prompts == ("disc", "ünder, score")
    assert [names.index(label) for label in labels] == task.labels.tolist()
    assert (tmp_path / "task" / "images" / "0000000.png").samefile(file)
    assert Path(task.paths[0]).name == "0000000.png"
    assert len(task.test) == 0
    assert len(task.train) + len(task.val) == 12


@pytest.mark.parametrize(
    ("labels", "kind", "order"),
    [
        ([30, 10, 20, 10], "i", [10, 20, 30]),
        ([True, False, True], "b", [False, True]),
        ([0.0, 2.0, 1.0], "f", [0.0, 1.0, 2.0]),
        (["b", "a", "b"], "U", ["a", "b"]),
        (np.array(["b", "a"], dtype=object), "U", ["a", "b"]),
        ([("b", 2), ("a", 1), ("b", 2)], "O", [("a", 1), ("b", 2)]),
        (["b", 2, "b"], "O", [2, "b"]),
        ([np.int64(3), np.int64(1)], "i", [1, 3]),
        (np.array([np.int64(3), np.int64(1)], dtype=object), "i", [1, 3]),
        ([np.bool_(True), np.bool_(False)], "b", [False, True]),
        ([np.float32(2), np.float32(1)], "f", [1.0, 2.0]),
        ([np.str_("b"), np.str_("a")], "U", ["a", "b"]),
        (["b", np.int64(2)], "O", [2, "b"]),
    ],
)
def test_labels_keep_their_kind_and_come_back_by_their_numbers(labels, kind, order):
    classes, numbers = as_classes(labels)
    assert classes.dtype.kind == kind
    assert classes.tolist() == order
    assert [classes.tolist()[number] for number in numbers] == list(labels)


def test_a_column_of_a_data_frame_is_a_list_of_labels():
    pandas = pytest.importorskip("pandas")
    classes, numbers = as_classes(pandas.Series([2, 1, 2]))
    assert (classes.tolist(), numbers) == ([1, 2], [1, 0, 1])


def test_a_column_is_a_list_of_labels_and_a_table_is_none():
    classes, numbers = as_classes(np.array([[2], [1], [2]]))
    assert (classes.tolist(), numbers) == ([1, 2], [1, 0, 1])
    for table in (np.zeros((3, 2)), np.zeros((3, 1, 1)), np.array(1)):
        with pytest.raises(InputError, match="one label an image, but got an array of shape"):
            as_classes(table)


def test_scalars_of_numpy_are_told_plainly():
    classes, _ = as_classes([np.int64(2), "b"])
    assert type(classes.tolist()[0]) is int


def test_measurements_are_no_classes():
    with pytest.raises(ValueError, match="continuous"):
        as_classes([0.5, 0.25])


def test_classes_that_no_folder_could_tell_apart_are_refused():
    assert names_of(np.array([1, 2])) == ["1", "2"]
    for classes in (["a", "a "], ["e\u0301", "\u00e9"], ["", "a"]):
        with pytest.raises(InputError, match="labels must differ as text, and not be empty"):
            names_of(np.array(classes, dtype=object))
