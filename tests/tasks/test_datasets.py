"""Data sets in memory as task folders: whatever they are given as, the same images and labels come out."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from helpers.drawings import draw_shape, draw_task
from vlmsel_auto.errors import InputError
from vlmsel_auto.tasks.datasets import write_dataset
from vlmsel_auto.tasks.task import TaskOptions, load_task

SHAPES = ("circle", "square")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [(draw_shape(shape, rng).convert("RGB"), shape) for shape in SHAPES for _ in range(6)]


class Named(torch.utils.data.Dataset):
    """Images with labels as numbers that ``classes`` names."""

    classes = SHAPES

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        image, shape = self.pictures[index]
        return np.array(image), torch.tensor(SHAPES.index(shape))


FORMS = {
    "pairs": list,
    "numbers with names": Named,
    "a subset": lambda pictures: torch.utils.data.Subset(Named(pictures), range(len(pictures))),
}


def loaded(data, tmp_path):
    folder = write_dataset(data, folder=tmp_path / "task")
    return load_task(folder, TaskOptions(draw_test=False, needs_val=True), workdir=tmp_path / "w")


@pytest.mark.parametrize("form", FORMS)
def test_images_and_labels_are_the_same_in_every_form(pictures, tmp_path, form):
    task = loaded(FORMS[form](pictures), tmp_path)
    assert task.classes == SHAPES
    assert [SHAPES[label] for label in task.labels] == [shape for _, shape in pictures]
    for path, (image, _) in zip(task.paths, pictures, strict=True):
        with Image.open(tmp_path / "task" / path) as written:
            assert np.array_equal(np.asarray(written.convert("RGB")), np.asarray(image))


def test_torchvisions_folders_give_the_task_that_the_folder_gives(tmp_path):
    folder = draw_task(tmp_path / "shapes") / "train"
    task = loaded(ImageFolder(str(folder)), tmp_path)
    assert task.classes == tuple(sorted(each.name for each in folder.iterdir()))
    assert len(task.labels) == len(list(folder.glob("*/*")))


def test_a_data_set_for_each_split(pictures, tmp_path):
    task = loaded({"train": pictures[::2], "validation": pictures[1::4], "test": pictures[3::4]}, tmp_path)
    assert (len(task.train), len(task.val), len(task.test)) == (6, 3, 3)


def test_files_are_linked_and_keep_their_bytes(tmp_path):
    folder = draw_task(tmp_path / "shapes") / "train"
    files = sorted(folder.glob("*/*"))
    write_dataset([(file, file.parent.name) for file in files], folder=tmp_path / "task")
    assert all((tmp_path / "task" / "images" / f"{n:07d}{f.suffix}").samefile(f) for n, f in enumerate(files))


def test_images_without_a_label_are_there_and_have_none(pictures, tmp_path):
    data = [(image, None if number % 3 == 0 else shape) for number, (image, shape) in enumerate(pictures)]
    write_dataset(data, folder=tmp_path / "task")
    assert len(list((tmp_path / "task" / "images").iterdir())) == len(pictures)
    assert len((tmp_path / "task" / "labels.csv").read_text().splitlines()) == 1 + 8


def test_images_without_any_label_are_a_task_of_named_classes(pictures, tmp_path):
    folder = write_dataset([(image, None) for image, _ in pictures], folder=tmp_path / "task")
    assert sorted(each.suffix for each in folder.iterdir()) == [".png"] * len(pictures) + [".toml"]
    task = load_task(folder, TaskOptions(classes=SHAPES), workdir=tmp_path / "w")
    assert not task.is_labelled
    assert len(task.paths) == len(pictures)


def test_an_earlier_data_set_is_replaced_and_half_of_one_is_none(pictures, tmp_path):
    write_dataset(pictures, folder=tmp_path / "task")
    write_dataset(pictures[:3], folder=tmp_path / "task")
    assert len(list((tmp_path / "task" / "images").iterdir())) == 3
    with pytest.raises(InputError, match="image 1 must be a path"):
        write_dataset([pictures[0], (7, "circle")], folder=tmp_path / "task")
    assert not (tmp_path / "task").exists()


def test_groups_are_one_an_image(pictures, tmp_path):
    data = {"train": pictures, "test": [(image.rotate(90), shape) for image, shape in pictures]}
    folder = write_dataset(data, folder=tmp_path / "task", groups=[k // 3 for k in range(12)] + [None] * 12)
    lines = (folder / "labels.csv").read_text().splitlines()
    assert [lines[0], lines[1], lines[12], lines[24]] == [
        "path,label,split,group",
        "0000000.png,circle,train,0",
        "0000011.png,square,train,3",
        "0000023.png,square,test,",
    ]
    assert "stay together" in load_task(folder, workdir=tmp_path / "work").notes[0]
    for groups, got in ([1, 2], "2 groups"), ("parent", "str"):
        with pytest.raises(InputError, match=rf"must be one an image \(24\), but got {got}"):
            write_dataset(data, folder=tmp_path / "task", groups=groups)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least one image, but got none"),
        ({"trian": [("a", "b")]}, "splits must be train, val and test, but got 'trian'"),
        ([(Image.new("RGB", (4, 4)), "x"), "b.png"], "item 1 must be a pair of image and label, but got str"),
        (iter([("a.png", "x")]), "must have a length.*but got list_iterator"),
        ([(torch.randn(3, 4, 4), "x")], "image 0 must be a path"),
        ([(np.zeros((4, 4, 3), np.uint8), 1.5)], "the label of item 0 must be a text or a whole number, but got 1.5"),
        ([(np.zeros((4, 4, 3), np.uint8), np.eye(2)[0])], r"a whole number, but got ndarray of \(2,\)"),
        ([(np.zeros((4, 4, 3), np.uint8), torch.tensor([0, 1]))], r"a whole number, but got Tensor of \(2,\)"),
        (
            [(np.zeros((4, 4, 3), np.uint8), " ")],
            "label of item 0 must not be empty; None stands for none, but got ' '",
        ),
    ],
)
def test_other_forms_are_refused(data, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_dataset(data, folder=tmp_path / "task")


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    class Wrong(Named):
        def __getitem__(self, index):
            return super().__getitem__(index)[0], 2

    with pytest.raises(InputError, match="label of item 0 must be one of 2 classes, but got 2"):
        write_dataset(Wrong([(Image.new("RGB", (4, 4)), "circle")]), folder=tmp_path / "task")
