"""Task folders that are no task."""

from functools import partial
from pathlib import Path

from helpers.bad_input.case import FULL, LOAD, MEMBER, SEARCH, Case, fill, good_task, refused


def small_class(place: Path) -> None:
    fill(good_task(place) / "tiny", count=1, first=900)


def empty_class(place: Path) -> None:
    (good_task(place) / "nothing").mkdir()


def nothing_readable(place: Path) -> None:
    for name in ("cat", "dog"):
        (place / "task" / name).mkdir(parents=True)
        for k in range(3):
            (place / "task" / name / f"{k}.png").write_bytes(b"no picture")


def flat(place: Path) -> None:
    fill(place / "task")


def other_classes_in(place: Path, *, part: str) -> None:
    for k, name in enumerate(("cat", "dog")):
        fill(place / "task/train" / name, first=100 * k)
    fill(place / "task" / part / "bird", first=500)


def composed_twice(place: Path) -> None:
    """One class under two Unicode forms of its name, as copies from a Mac have it: one class, and no error."""
    good_task(place, classes=("caf\u00e9", "cafe\u0301", "dog"))


def only_test(place: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        fill(place / "task/test" / name, first=100 * k)


def copies_only(place: Path) -> None:
    root = good_task(place)
    (root / "same").mkdir()
    for k in range(4):
        (root / "same" / f"{k}.png").write_bytes((root / "cat/0.png").read_bytes())


def unreadable_class(place: Path) -> None:
    (good_task(place) / "cat").chmod(0)


def unreadable_task(place: Path) -> None:
    good_task(place).chmod(0)


WRONG = (
    ("not there", lambda _: None, SEARCH, "the task folder must exist"),
    ("a file", lambda place: (place / "task").write_bytes(b""), SEARCH, "got the file 'task'"),
    ("empty", lambda place: (place / "task").mkdir(), SEARCH, "no image was found"),
    ("link to itself", lambda place: (place / "task").symlink_to("task"), SEARCH, "task"),
    ("name with a NUL", lambda _: None, ("rank", "a\0b", "-c", MEMBER), "'DIR'.*null byte"),
    ("name of 5,000 letters", lambda _: None, ("rank", "a" * 5_000, "-c", MEMBER), "the task folder must exist"),
    ("one class", partial(good_task, classes=("cat",)), SEARCH, "one class only: 'cat'"),
    ("class of one image", small_class, SEARCH, "'tiny' with 1"),
    ("empty class", empty_class, SEARCH, "'nothing' with 0"),
    ("class of copies", copies_only, SEARCH, "different images"),
    ("nothing readable", nothing_readable, SEARCH, "not one file can be decoded"),
    ("images without labels or names", flat, SEARCH, "names of their classes"),
    (
        "class named twice",
        flat,
        (*SEARCH, "--classes", "cat, dog, cat"),
        "every class must be named once, but got 'cat'",
    ),
    ("names of other classes", good_task, (*SEARCH, "--classes", "bird, fish"), "'cat', 'dog'"),
    ("val/ with another class", partial(other_classes_in, part="val"), SEARCH, "class of val .* 'bird'"),
    ("test/ with another class", partial(other_classes_in, part="test"), SEARCH, "class of test .* 'bird'"),
    ("no train/", only_test, SEARCH, "needs train/<class>"),
    ("folder without rights", unreadable_task, SEARCH, "cannot be read; check its rights"),
    ("class without rights", unreadable_class, SEARCH, "cannot be read; check its rights"),
    ("two of each class", partial(good_task, count=2), SEARCH, "three different images"),
    ("work directory in its place", good_task, (*SEARCH[:-1], "task"), "work directory"),
)
CASES = (
    *(
        refused(Case(room="folders", name=name, make=make, arguments=given, says=says))
        for name, make, given, says in WRONG
    ),
    Case(room="folders", name="class under two Unicode forms", make=composed_twice, arguments=LOAD, quiet=True),
    Case(
        room="folders",
        name="images without labels, named",
        make=flat,
        arguments=("search", "task", "-c", MEMBER, "--classes", "cat, dog", *FULL),
        says="no labels",
    ),
)
