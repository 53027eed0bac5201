"""A folder in, a Task out: the whole way on real files, good and bad, and nothing left behind when it is refused."""

import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmsel_auto.errors import InputError, TaskError, WorkdirError
from vlmsel_auto.events import Event, Notice, Sink, StageFinished, StageProgress, StageStarted, discard
from vlmsel_auto.records import ImageView, Task
from vlmsel_auto.tasks import split
from vlmsel_auto.tasks import task as loading
from vlmsel_auto.tasks.pixels import PixelStore
from vlmsel_auto.tasks.preprocessing import render
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tuning.data import splits

VIEW = ImageView(size=8)


def picture(seed: int, *, width: int = 12, height: int = 10) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def save(path: Path, image: Image.Image | bytes, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return path


def fill(root: Path, *folders: str, count: int = 10, first: int = 0) -> Path:
    """``count`` different pictures in each folder; no two folders share one."""
    for number, folder in enumerate(folders):
        for k in range(count):
            save(root / folder / f"{k:03d}.png", picture(first + 1_000 * number + k))
    return root


def load(root: Path, workdir: Path | None = None, *, sink: Sink = discard, **options: object) -> Task:
    workdir = workdir or root.parent / "work"
    return load_task(root, TaskOptions(**options), views=[VIEW], workdir=workdir, sink=sink)


def names(task: Task, part: str) -> set[str]:
    return {task.paths[place] for place in getattr(task, part)}


def listed(task: Task) -> dict[str, tuple[bool, str]]:
    return {bad.path: (bad.used, bad.reason) for bad in task.bad_files}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "task"


@pytest.mark.parametrize("seed", [0, 3])
def test_few_shot_trials_learn_from_the_support_set(tmp_path: Path, seed: int) -> None:
    task = load(fill(tmp_path / "set", "a", "b", count=20), shots=5, seed=seed)
    assert splits(task, train_shots=5).train.tolist() == task.support.tolist()
    assert set(splits(task, train_shots=2).train) < set(task.support)
    assert splits(task).train.tolist() == task.train.tolist()


def test_class_folders_become_a_task(root: Path) -> None:
    task = load(fill(root, "big_cat", "dog", "old-fox", count=20), shots=5)
    assert (task.name, task.classes, task.prompts) == (
        "task",
        ("big_cat", "dog", "old-fox"),
        ("big cat", "dog", "old fox"),
    )
    assert (len(task.paths), len(task.train), len(task.val), len(task.test)) == (60, 42, 6, 12)
    assert np.bincount(task.labels[task.support]).tolist() == [5, 5, 5]
    assert names(task, "support") <= names(task, "train")
    assert task.labels.dtype == np.int64
    for place in (0, 25, 59):
        assert task.paths[place].startswith(task.classes[task.labels[place]])
        with Image.open(task.root / task.paths[place]) as image:
            np.testing.assert_array_equal(task.pixels.read(VIEW, np.array([place]))[0], render(image, VIEW))
    assert task.bad_files == ()
    drawn = "no split was given: of each class 20 % were drawn for test, 12.5 % of the rest for validation"
    assert task.notes == (drawn,)
    assert [len(part) for part in task.folds] == [6] * 8
    assert np.array_equal(task.folds[0], task.val)
    assert sorted(np.concatenate(task.folds)) == sorted([*task.train, *task.val])


@pytest.mark.parametrize(("most", "val", "folds"), [(48, 6, 8), (47, 9, 0)])
def test_many_labelled_images_are_not_divided_but_more_of_them_validate(
    root: Path, monkeypatch: pytest.MonkeyPatch, most: int, val: int, folds: int
) -> None:
    monkeypatch.setattr(split, "_MOST_FOLDED", most)
    task = load(fill(root, "a", "b", "c", count=20))  # 12 of them test
    assert (len(task.val), len(task.folds), len(task.test)) == (val, folds, 12)
    assert any(f"{'12.5' if folds else '20'} % of the rest for validation" in note for note in task.notes)


def test_a_given_test_split_is_used_whole_whatever_the_cap(root: Path) -> None:
    fill(root / "train", "a", "b", count=30)
    fill(root / "test", "a", "b", count=25, first=5_000)
    task = load(root, max_train_images=20)
    assert names(task, "test") == {f"test/{label}/{k:03d}.png" for label in "ab" for k in range(25)}
    assert (len(task.train), len(task.val)) == (18, 2)
    assert any("20 of 60 images" in note for note in task.notes)
    assert any("no validation split was given" in note for note in task.notes)


def test_a_larger_test_split_is_drawn_from(root: Path) -> None:
    fill(root / "train", "a", "b", count=6)
    fill(root / "test", "a", count=30, first=5_000)
    fill(root / "test", "b", count=10, first=6_000)
    task = load(root, max_test_images=12)
    assert np.bincount(task.labels[task.test]).tolist() == [9, 3]
    assert "12 of 40 images of the given test split were used (stratified draw)" in task.notes
    assert load(root, max_test_images=12).digest == task.digest
    assert len(load(root).test) == 40


def test_a_given_val_is_kept_and_test_is_drawn_from_train(root: Path) -> None:
    fill(root / "train", "a", "b", count=10)
    fill(root / "validation", "a", "b", count=3, first=5_000)
    task = load(root)
    assert (len(task.train), len(task.val), len(task.test)) == (16, 6, 4)
    assert all(name.startswith("train/") for name in names(task, "test"))
    assert names(task, "val") == {f"validation/{label}/00{k}.png" for label in "ab" for k in range(3)}


def test_three_given_splits_are_taken_as_they_are(root: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        fill(root / part, "a", "b", count=4, first=5_000 * number)
    task = load(root)
    assert [len(one) for one in (task.train, task.val, task.test)] == [8, 8, 8]
    assert task.notes == ()


def test_csv_and_toml_reach_the_task(root: Path) -> None:
    for k in range(12):
        save(root / "images" / f"{k}.png", picture(k))
    rows = "".join(f"{k}.png,{'xy'[k % 2]}\n" for k in range(12))
    save(root / "labels.csv", ("file,label\n" + rows).encode())
    save(
        root / "task.toml",
        b'name="n"\ndomain="d"\nmetric="balanced_accuracy"\ntemplates=["a {}"]\n[prompts]\nx="the x"\n',
    )
    task = load(root)
    assert (task.name, task.domain, task.metric) == ("n", "d", "balanced_accuracy")
    assert (task.prompts, task.templates) == (("the x", "y"), ("a {}",))
    assert np.bincount(task.labels).tolist() == [6, 6]


def test_parquet_gives_the_same_pixels_as_files(root: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    fill(root / "train", "a", "b", count=6)
    fill(root / "test", "a", "b", count=4, first=5_000)
    files = load(root)
    other = tmp_path / "as-parquet"
    other.mkdir()
    columns = {
        "image": [(root / name).read_bytes() for name in files.paths],
        "label": files.labels.tolist(),
        "split": [name.split("/")[0] for name in files.paths],
    }
    parquet.write_table(arrow.table(columns), other / "images.parquet", row_group_size=5)
    (other / "task.json").write_text('{"name": "p", "classes": ["a", "b"], "templates": ["a photo of a {}."]}')
    task = load(other)
    everything = np.arange(20)
    np.testing.assert_array_equal(task.pixels.read(VIEW, everything), files.pixels.read(VIEW, everything))
    assert task.digest == files.digest
    capped = load(other, max_train_images=8)
    assert len(capped.paths) == 16
    for place in (0, 7, 15):
        before = files.pixels.read(VIEW, np.array([int(capped.paths[place].split("/")[1])]))
        np.testing.assert_array_equal(capped.pixels.read(VIEW, np.array([place])), before)


# --- bad files


def test_a_folder_full_of_broken_files(root: Path, tmp_path: Path) -> None:
    fill(root, "a", "b")
    frames = [picture(900 + k) for k in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    png = io.BytesIO()
    picture(901).save(png, format="PNG")
    save(root / "a/half.png", png.getvalue()[:200])
    save(root / "a/empty.jpg", b"")
    save(root / "a/notes.txt", b"these are notes")
    save(root / "a/bomb.png", Image.new("1", (12_000, 12_000)))
    save(root / "a/moving.gif", frames[0], save_all=True, append_images=frames[1:])
    save(root / "a/deep.png", Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600))
    save(root / "b/print.jpg", picture(902).convert("CMYK"))
    save(root / "b/turned.jpg", picture(903), exif=exif)
    save(root / "b/photo.png", picture(904), format="JPEG")
    save(root / "b/CAPITALS.JPEG", picture(905))
    save(root / "README", b"hello")
    os.mkfifo(root / "b/pipe.png")
    (root / "b/away.png").symlink_to(save(tmp_path / "secret.png", picture(906)))
    task = load(root)
    odd = listed(task)
    left_out = {path for path, (used, _) in odd.items() if not used}
    assert left_out == {
        "README", "a/bomb.png", "a/empty.jpg", "a/half.png", "a/notes.txt", "b/away.png", "b/pipe.png",
    }  # fmt: skip
    assert {path for path, (used, _) in odd.items() if used} == {"a/deep.png", "a/moving.gif", "b/print.jpg"}
    assert not left_out & set(task.paths)
    assert {"a/moving.gif", "b/turned.jpg", "b/photo.png", "b/CAPITALS.JPEG"} <= set(task.paths)
    assert len(task.paths) == 26
    assert [bad.used for bad in task.bad_files] == sorted(bad.used for bad in task.bad_files)
    assert all(reason for _, reason in odd.values())


def test_copies_of_test_images_leave_train_and_val_never_test(root: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        fill(root / part, "a", "b", count=5, first=5_000 * number)
    shutil.copy(root / "test/a/000.png", root / "train/a/leak.png")
    with Image.open(root / "test/b/001.png") as image:
        save(root / "val/b/same_pixels.bmp", image.convert("RGB"))
    shutil.copy(root / "val/a/002.png", root / "train/a/from_val.png")
    shutil.copy(root / "train/a/003.png", root / "train/a/twin.png")
    shutil.copy(root / "test/a/004.png", root / "test/a/twin.png")
    task = load(root)
    assert listed(task) == {
        "train/a/leak.png": (False, "same image as test/a/000.png; left out of train"),
        "val/b/same_pixels.bmp": (False, "same image as test/b/001.png; left out of val"),
        "train/a/from_val.png": (False, "same image as val/a/002.png; left out of train"),
    }
    assert (len(task.train), len(task.val), len(task.test)) == (11, 10, 11)


@pytest.mark.parametrize("seed", range(6))
def test_without_a_given_split_copies_land_together(root: Path, seed: int) -> None:
    fill(root, "a", "b", count=6)
    for k in range(3):
        for copy in range(3):
            shutil.copy(root / f"a/00{k}.png", root / f"a/copy{k}{copy}.png")
    task = load(root, seed=seed)
    assert task.bad_files == ()
    for k in range(3):
        group = {f"a/00{k}.png", *(f"a/copy{k}{copy}.png" for copy in range(3))}
        assert sum(bool(group & names(task, part)) for part in ("train", "val", "test")) == 1


def videos(root: Path, *folders: str, each: int = 4) -> Path:
    """Eight videos in each folder, named in the names of their frames."""
    fill(root, *folders, count=8 * each)
    for file in sorted(root.rglob("*.png")):
        file.rename(file.with_name(f"{file.parent.name}{int(file.stem) // each}_{file.name}"))
    return root


def groups_of(task: Task, *parts: str) -> list[set[str]]:
    return [{Path(name).name.split("_")[0] for name in names(task, part)} for part in parts]


@pytest.mark.parametrize("told", ["call", "toml", "csv", "mapping"])
def test_images_that_belong_together_stay_together_however_it_is_told(root: Path, told: str) -> None:
    videos(root, "a", "b")
    rule, options = r"^(\w+)_", {}
    files = {path.relative_to(root).as_posix(): path.name.split("_")[0] for path in sorted(root.rglob("*.png"))}
    if told == "call":
        options = {"groups": rule}
    elif told == "mapping":
        options = {"groups": files}
    elif told == "toml":
        save(root / "task.toml", f"group = '{rule}'".encode())
    else:
        rows = [f"{path},{path[0]},{group}" for path, group in files.items()]
        save(root / "labels.csv", "\n".join(["path,label,group", *rows]).encode())
    task = load(root, **options)
    train, val, test = groups_of(task, "train", "val", "test")
    assert (len(train | val | test), len(train) + len(val) + len(test)) == (16, 16)
    assert len(val) == 2
    assert len(test) in (3, 4)
    held = [{Path(task.paths[place]).name.split("_")[0] for place in fold} for fold in task.folds]
    assert sum(map(len, held)) == len(train | val)
    assert any("groups of images stay together: 16; drawn were" in note for note in task.notes)


def test_the_digest_is_another_one_with_other_groups_and_the_same_with_other_names(root: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        fill(root / part, "a", "b", count=4, first=5_000 * number)  # the splits stay as they are
    mine, other, renamed = (
        {f"train/{label}/00{k}.png": f"{name}{label}{k // of}" for label in "ab" for k in range(4)}
        for name, of in (("x", 2), ("x", 4), ("y", 2))
    )
    digests = [load(root, groups=groups).digest for groups in (None, mine, other, renamed)]
    assert len(set(digests)) == 3
    assert digests[1] == digests[3]


def test_groups_in_several_given_splits_and_classes_of_one_group_are_told(root: Path) -> None:
    videos(root / "train", "a", "b")
    fill(root / "test", "a", "b", count=5, first=9_000)
    told: list[Event] = []
    task = load(root, groups=r"([0-9])[_.]", sink=told.append)  # of both classes; and 0 to 4 in test
    warned = [one.text for one in told if isinstance(one, Notice)]
    assert [text.partition(":")[0] for text in warned] == [
        "groups of images in several of the splits that the folder gives"
    ]
    assert set(warned) <= set(task.notes)
    shutil.rmtree(root / "test")
    told.clear()
    few = load(root / "train", groups=r"(a|b\d)\d*_", sink=told.append)
    assert "'a'" in "".join(one.text for one in told if isinstance(one, Notice))
    assert not any(few.paths[place].startswith("a") for place in np.concatenate(few.folds))
    with pytest.raises(TaskError, match=r"at least one class must have three groups, .*\(--no-test-split\)"):
        load(root / "train", root.parent / "new", groups="parent", needs_val=True)


def test_one_image_under_two_labels_teaches_nothing(root: Path) -> None:
    fill(root, "a", "b", count=5)
    shutil.copy(root / "a/000.png", root / "b/zero.png")
    task = load(root)
    assert listed(task) == {
        "a/000.png": (False, "same image as b/zero.png, but labelled 'a' and not 'b'"),
        "b/zero.png": (False, "same image as a/000.png, but labelled 'b' and not 'a'"),
    }
    assert len(task.paths) == 9


def test_in_a_given_test_split_contradicting_labels_are_only_noted(root: Path) -> None:
    fill(root / "train", "a", "b", count=5)
    fill(root / "test", "a", "b", count=5, first=5_000)
    shutil.copy(root / "test/a/000.png", root / "test/b/zero.png")
    shutil.copy(root / "train/a/000.png", root / "train/b/zero.png")
    task = load(root)
    assert len(task.test) == 11
    assert {path: used for path, (used, _) in listed(task).items()} == {
        "test/a/000.png": True,
        "test/b/zero.png": True,
        "train/a/000.png": False,
        "train/b/zero.png": False,
    }


# --- wrong folders: one error, nothing written


def one_class(root: Path) -> None:
    fill(root, "a")


def small_class(root: Path) -> None:
    fill(root, "a", "b")
    fill(root, "tiny", count=1, first=9_000)


def empty_class(root: Path) -> None:
    fill(root, "a", "b")
    (root / "nothing").mkdir()


def small_after_bad_files(root: Path) -> None:
    fill(root, "a", "b")
    fill(root, "tiny", count=1, first=9_000)
    save(root / "tiny/broken.png", b"\x89PNG broken")


def only_copies(root: Path) -> None:
    fill(root, "a", "b")
    for k in range(4):
        save(root / f"tiny/{k}.png", picture(7))


def nothing_decodes(root: Path) -> None:
    for label in "ab":
        for k in range(3):
            save(root / label / f"{k}.png", b"no picture")


def class_only_in_test(root: Path) -> None:
    fill(root / "train", "a", "b")
    fill(root / "test", "a", "c", first=5_000)


def class_only_in_val(root: Path) -> None:
    fill(root / "train", "a", "b")
    fill(root / "val", "a", "c", first=5_000)


def train_is_all_test(root: Path) -> None:
    fill(root / "train", "a", "b", count=3)
    fill(root / "test", "a", "b", count=3, first=5_000)
    for k in range(3):
        shutil.copy(root / f"train/a/00{k}.png", root / f"test/a/t{k}.png")


def broken_test_split(root: Path) -> None:
    fill(root / "train", "a", "b")
    for label in "ab":
        save(root / f"test/{label}/x.png", b"no picture")


def csv_of_ghosts(root: Path) -> None:
    save(root / "labels.csv", b"path,label\nghost.png,a\n")


def bad_toml(root: Path) -> None:
    fill(root, "a", "b")
    save(root / "task.toml", b"templates = ['no braces']")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (one_class, "one class only: 'a'"),
        (small_class, "'tiny' with 1"),
        (empty_class, "'nothing' with 0"),
        (small_after_bad_files, r"'tiny' with 1 \(left out: 'tiny/broken.png: "),
        (only_copies, "different images .* got 'tiny'"),
        (nothing_decodes, r"no image was found: .*\(6 in all\)"),
        (class_only_in_test, "every class of test needs images in train, but got 'c'"),
        (class_only_in_val, "every class of val needs images in train, but got 'c'"),
        (train_is_all_test, "after copies were left out, but got 'a'"),
        (broken_test_split, "no image of the given test split|with"),
        (csv_of_ghosts, "ghost.png"),
        (bad_toml, "each template must hold"),
        (lambda root: root.mkdir(), "no image was found"),
        (lambda root: save(root, b"file"), "got the file"),
        (lambda _: None, "the task folder must exist"),
    ],
)
def test_a_wrong_folder_gives_one_error_and_leaves_no_image(
    root: Path, tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(root)
    with pytest.raises(TaskError, match=message):
        load(root, tmp_path / "work")
    assert [path for path in tmp_path.glob("work/pixels/*") if path.name != ".lock"] == []


@pytest.mark.parametrize("options", [{"shots": 0}, {"max_train_images": 0}, {"max_test_images": 0}])
def test_numbers_that_make_no_sense(root: Path, tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        load(fill(root, "a", "b", count=2), **options)
    assert not (tmp_path / "work").exists()


def test_the_work_directory_may_lie_inside_the_task_but_not_be_it(root: Path) -> None:
    fill(root, "a", "b")
    with pytest.raises(WorkdirError, match="task folder itself"):
        load(root, root)
    first, second = load(root, root / "work"), load(root, root / "work")
    assert first.classes == second.classes == ("a", "b")
    assert first.digest == second.digest


# --- digest, seed, resume


def test_the_digest_depends_on_content_and_not_on_place_or_time(root: Path, tmp_path: Path) -> None:
    task = load(fill(root, "a", "b"))
    shutil.copytree(root, tmp_path / "elsewhere" / "other name")
    assert load(tmp_path / "elsewhere" / "other name").digest == task.digest
    assert load_task(root, views=[ImageView(size=5)], workdir=tmp_path / "w2").digest == task.digest
    digests = {task.digest, load(root, seed=1).digest, load(root, shots=2).digest}
    save(root / "task.toml", b"templates = ['the {}']")
    digests.add(load(root).digest)
    save(root / "a/000.png", picture(77))
    digests.add(load(root).digest)
    save(root / "b/new.png", picture(78))
    digests.add(load(root).digest)
    assert len(digests) == 6


def test_a_class_of_two_gives_one_to_train_and_one_to_test(root: Path) -> None:
    task = load(fill(root, "a", "b", count=2))
    assert (len(task.train), len(task.val), len(task.test)) == (2, 0, 2)
    assert any("validation split is empty" in note for note in task.notes)


def test_what_needs_validation_refuses_classes_of_two(root: Path, tmp_path: Path) -> None:
    fill(root, "a", "b", count=2)
    with pytest.raises(TaskError, match="three different images"):
        load(root, tmp_path / "work", needs_val=True)


def test_the_second_run_decodes_nothing(root: Path) -> None:
    fill(root, "a", "b")
    events: list[Event] = []
    first = load(root, sink=events.append)
    assert isinstance(events[0], StageStarted)
    assert isinstance(events[-1], StageFinished)
    assert (events[0].total, events[-1].text) == (20, "decoded 20 images")
    done = [event.done for event in events if isinstance(event, StageProgress)]
    assert done == sorted(done)
    assert done[-1] == 20
    events.clear()
    again = load(root, sink=events.append)
    assert isinstance(events[-1], StageFinished)
    assert events[-1].text == "known from an earlier run"
    assert again.digest == first.digest
    assert {event.stage for event in events if not isinstance(event, StageProgress)} == {"images"}


def test_a_changed_file_is_decoded_again_even_if_size_and_time_are_the_same(root: Path) -> None:
    fill(root, "a", "b")
    target = save(root / "a/same.bmp", picture(50))
    before, old = target.stat(), load(root)
    save(target, picture(51))
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert target.stat().st_size == before.st_size
    new = load(root)
    assert new.digest != old.digest
    place = np.array([new.paths.index("a/same.bmp")])
    np.testing.assert_array_equal(new.pixels.read(VIEW, place)[0], render(picture(51), VIEW))


def test_the_cap_leaves_files_unopened_and_keeps_the_classes_in_proportion(root: Path) -> None:
    fill(root, "a", count=40)
    fill(root, "b", count=20, first=5_000)
    task = load(root, max_train_images=30)
    assert np.bincount(task.labels).tolist() == [20, 10]
    assert load(root, max_train_images=30).digest == task.digest
    assert load(root, max_train_images=None).labels.size == 60


KILLED = """
import os, signal, sys
from pathlib import Path
from vlmsel_auto.events import StageProgress
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks import task as loading
from vlmsel_auto.tasks.pixels import PixelStore
from vlmsel_auto.tasks.task import TaskOptions, load_task
from vlmsel_auto.tasks.preprocessing import render
def sink(event):
    if isinstance(event, StageProgress) and event.done >= 30:
        os.kill(os.getpid(), signal.SIGKILL)
load_task(Path(sys.argv[1]), views=[ImageView(size=8)], workdir=Path(sys.argv[2]), sink=sink)
"""


def test_killed_half_way_and_run_again(root: Path, tmp_path: Path) -> None:
    fill(root, "a", "b", count=40)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(root), str(tmp_path / "work")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    task = load(root)
    clean = load(root, tmp_path / "clean")
    assert task.digest == clean.digest
    np.testing.assert_array_equal(task.pixels.read(VIEW, np.arange(80)), clean.pixels.read(VIEW, np.arange(80)))


def test_interrupted_by_ctrl_c_no_image_is_left(root: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, StageProgress) and event.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(fill(root, "a", "b", count=40), sink=interrupt)
    assert [path.name for path in (tmp_path / "work" / "pixels").iterdir()] == [".lock"]


# --- large folders: nothing is decoded before it is used


@pytest.fixture
def large(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as large."""
    monkeypatch.setattr(loading, "_LARGE_BYTES", 1_000)
    return fill(root, "a", "b", count=20)


def test_a_large_folder_is_the_same_task_and_says_what_was_not_screened(large: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    task = load(large, sink=events.append, shots=5)
    assert isinstance(events[-1], StageFinished)
    assert events[-1].text == "looked at 40 images"
    assert not list((tmp_path / "work").rglob("*.u8"))
    assert task.notes[:2] == (
        "more than 1 GiB of images: copies were told by their bytes, and damaged files are found when they are used",
        "the ranking looks at a sample: at most 5 training images of each of the 2 classes",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_LARGE_BYTES", 10**9)
        small = load(large, shots=5)
    assert small.notes == task.notes[2:]
    for name in ("labels", "train", "val", "test", "support"):
        np.testing.assert_array_equal(getattr(task, name), getattr(small, name))
    assert small.digest != task.digest  # of pixels, of bytes
    everything = np.arange(40)
    np.testing.assert_array_equal(task.pixels.read(VIEW, everything), small.pixels.read(VIEW, everything))
    shutil.copytree(large, tmp_path / "elsewhere" / "other name")
    assert load(tmp_path / "elsewhere" / "other name", shots=5).digest == task.digest


def test_of_many_classes_of_a_large_folder_the_support_set_is_smaller(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_MOST_SUPPORT", 14)
    task = load(large, shots=16)
    assert (task.shots, len(task.support)) == (7, 14)
    assert any(note.endswith("at most 7 training images of each of the 2 classes, not 16") for note in task.notes)
    monkeypatch.setattr(loading, "_MOST_SUPPORT", 2)
    assert len(load(large, shots=16).support) == 8
    assert len(load(large, shots=3).support) == 6


def test_in_a_large_folder_copies_and_files_that_are_no_images_are_left_out_at_once(large: Path) -> None:
    shutil.copy(large / "a/000.png", large / "b/copy.png")
    save(large / "a/notes.txt", b"these are notes")
    assert {path: used for path, (used, _) in listed(load(large)).items()} == {
        "a/000.png": False, "b/copy.png": False, "a/notes.txt": False,
    }  # fmt: skip


def test_a_damaged_file_of_a_large_folder_changes_no_split_and_never_mixes_them(large: Path) -> None:
    whole = load(large)
    for place in (whole.train[0], whole.val[-1], whole.test[0]):
        path = large / whole.paths[place]
        path.write_bytes(path.read_bytes()[:-40])
    task = load(large)
    assert task.paths == whole.paths
    assert task.bad_files == ()
    everything = np.arange(40)
    shown = task.pixels.read(VIEW, everything)
    clean = whole.pixels.read(VIEW, everything)
    parts = [*task.folds, task.test]
    for place in everything:
        (part,) = (part for part in parts if place in part)
        same_kind = [one for one in part if task.labels[one] == task.labels[place]]
        assert any((shown[place] == clean[one]).all() for one in same_kind)
    assert [bad.path for bad in task.pixels.found_bad] == sorted(
        whole.paths[place] for place in (whole.train[0], whole.val[-1], whole.test[0])
    )
    assert load(large).digest == task.digest


def test_rows_of_parquet_are_decoded_when_they_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(loading, "_LARGE_BYTES", 1_000)
    fill(root, "a", "b", count=20)
    images = sorted(root.rglob("*.png"))
    columns = {
        "image": [path.read_bytes() for path in images],
        "label": [int(path.parent.name == "b") for path in images],
    }
    table = root.parent / "table"
    table.mkdir()
    parquet.write_table(arrow.table(columns), table / "images.parquet", row_group_size=8)
    (table / "task.json").write_text('{"name": "p", "classes": ["a", "b"], "templates": ["a photo of a {}."]}')
    task = load(table)
    shown = task.pixels.read(VIEW, np.array([35, 10, 12]))
    for row, pixels in zip((35, 10, 12), shown, strict=True):
        with Image.open(images[row]) as image:
            np.testing.assert_array_equal(pixels, render(image, VIEW))
    assert isinstance(task.pixels, PixelStore)
    there = task.pixels._file(VIEW).has(np.arange(40))
    assert np.flatnonzero(there).tolist() == [10, 12, 35]
    capped = load(table, max_train_images=20)
    for place in range(20):
        with Image.open(images[int(capped.paths[place].split("/")[1])]) as image:
            np.testing.assert_array_equal(capped.pixels.read(VIEW, np.array([place]))[0], render(image, VIEW))


def test_folders_that_are_no_part_of_the_task(root: Path) -> None:
    fill(root, "a", "b", "cache")
    assert load_task(root, workdir=root.parent / "work", exclude=(root / "cache",)).classes == ("a", "b")
