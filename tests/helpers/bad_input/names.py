"""Names of files, folders and classes that break a page, a table, a terminal or a file system."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from helpers.bad_input.case import FULL, LOAD, MEMBER, Case, good_task
from helpers.bad_input.weights import exported
from helpers.pictures import encoded, picture

SCRIPT = "<script>alert(1)<"  # a file name holds no "/": the browser would close the element at the end of the page
IMAGE = '"><img src=x onerror=alert(1)>'
FORMULA = "=cmd|' C calc'!A0"
ESCAPE = "\x1b[2J\x1b]0;owned\x07"


def with_class(place: Path, *, name: str | bytes) -> None:
    """A third class of that name, with one broken file in it, which is listed."""
    folder = os.path.join(os.fsencode(good_task(place)), os.fsencode(name))  # noqa: PTH118  bytes
    os.mkdir(folder)  # noqa: PTH102
    for k in range(4):
        write(folder, b"%d.png" % k, encoded(picture(seed=300 + k)))
    write(folder, b"broken.png", b"no picture")


def with_file(place: Path, *, name: str | bytes, data: bytes | None = b"no picture") -> None:
    folder = os.path.join(os.fsencode(good_task(place)), b"cat")  # noqa: PTH118
    write(folder, os.fsencode(name), encoded(picture(seed=400)) if data is None else data)


def write(folder: bytes, name: bytes, data: bytes) -> None:
    with open(os.path.join(folder, name), "wb") as stream:  # noqa: PTH118, PTH123
        stream.write(data)


def with_files(place: Path, *, names: tuple[str, ...]) -> None:
    root = good_task(place)
    for name in names:
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(b"no picture")


def files_in_two_cases(place: Path) -> None:
    cat = good_task(place) / "cat"
    (cat / "a.png").write_bytes(encoded(picture(seed=401)))
    (cat / "A.PNG").write_bytes(encoded(picture(seed=402)))


def deep(place: Path) -> None:
    folder = good_task(place) / "cat" / "/".join("d" * 40)
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(encoded(picture(seed=403)))


def declared(place: Path, *, text: str) -> None:
    (good_task(place) / "task.toml").write_text(text, "utf-8")


def labelled(place: Path, *, label: str) -> None:
    root = place / "task"
    good_task(place)
    (root / "labels.csv").write_text(
        "path,label\n"
        + "".join(f"cat/{k}.png,{label}\n" for k in range(4))
        + "".join(f"dog/{k}.png,dog\n" for k in range(100, 104)),
        "utf-8",
    )


def named_task(place: Path, *, name: str) -> None:
    good_task(place).rename(place / name)


def to_predict(place: Path, *, name: str, classes: tuple[str, ...]) -> None:
    exported(place / "model", classes=classes)
    (place / name).write_bytes(encoded(picture(seed=404)))


TOLD: tuple[tuple[str, Callable[[Path], object], str], ...] = (
    ("file that is not UTF-8", partial(with_file, name=b"\xff\xfe.png"), "left out: cat/�"),
    ("class that is not UTF-8", partial(with_class, name=b"\xff\xfe"), "left out: �.*broken"),
    ("file with a line break", partial(with_file, name="a\nb.png"), "left out: cat/a\nb.png"),
    ("class with a line break", partial(with_class, name="a\nb"), "left out: a\nb/broken"),
    ("file of 255 bytes", partial(with_file, name="x" * 251 + ".png"), "left out: cat/x{251}"),
    ("class of 255 bytes", partial(with_class, name="x" * 255), "left out: x{255}/broken"),
    ("script as a class", partial(with_class, name=SCRIPT), "left out: <script>"),
    ("script as a file", partial(with_file, name=SCRIPT), "left out: cat/<script>"),
    ("attribute as a class", partial(with_class, name=IMAGE), 'left out: "><img'),
    ("formula as a class", partial(with_class, name=FORMULA), "left out: =cmd"),
    ("formula as a file", partial(with_file, name=FORMULA), "left out: cat/=cmd"),
    ("escape sequence as a class", partial(with_class, name=ESCAPE), "left out: .*owned"),
)
HARMLESS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("files that differ in case only", files_in_two_cases),
    ("hidden files of macOS", partial(with_files, names=("cat/._0.png", "cat/.DS_Store", "__MACOSX/cat/._0.png"))),
    ("hidden files of Windows", partial(with_files, names=("cat/Thumbs.db", "desktop.ini", "cat/ehthumbs.db"))),
    ("forty folders deep", deep),
    ("option as a class", partial(good_task, classes=("--help", "-c", "dog"))),
)
SILENT: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("script as a label", partial(labelled, label="</td><script>alert(1)</script>")),
    (
        "script in task.toml",
        partial(declared, text='name = "<script>alert(1)</script>"\ndomain = "<script>alert(1)</script>"\n'),
    ),
    (
        "template language in task.toml",
        partial(declared, text='name = "{{ 7 * 7 }}{% raw %}"\n[prompts]\ncat = "{{ 7 * 7 }}"\n'),
    ),
)
CASES = (
    *(Case(room="names", name=name, make=make, says=says) for name, make, says in TOLD),
    *(Case(room="names", name=name, make=make, quiet=True) for name, make in SILENT),
    *(Case(room="names", name=name, make=make, arguments=LOAD, quiet=True) for name, make in HARMLESS),
    Case(
        room="names",
        name="classes that differ in case only",
        make=partial(good_task, classes=("cat", "Cat", "dog")),
        arguments=LOAD,
        says="case or blanks only .*'Cat' and 'cat'",
    ),
    Case(
        room="names",
        name="script as the task folder",
        make=partial(named_task, name=SCRIPT),
        arguments=("search", SCRIPT, "-c", MEMBER, *FULL),
    ),
    Case(
        room="names",
        name="formula in the table of predictions",
        make=partial(to_predict, name=FORMULA, classes=(FORMULA, "@SUM(A1)", "-1")),
        arguments=("predict", "model", FORMULA, "--output", "out.csv"),
        writes=("out.csv",),
        says="1 image classified",
    ),
    Case(
        room="names",
        name="escape sequence that is predicted",
        make=partial(to_predict, name=f"{ESCAPE}.png", classes=(ESCAPE, "dog")),
        arguments=("predict", "model", f"{ESCAPE}.png"),
        writes=(),
        says="owned",
    ),
)
