"""labels.csv that spreadsheets, scripts and strangers write."""

from functools import partial
from pathlib import Path

from helpers.bad_input.case import LOAD, Case, fill, refused

GOOD = "0.png,cat\n1.png,cat\n2.png,cat\n3.png,dog\n4.png,dog\n5.png,dog\n"


def with_table(place: Path, *, data: bytes) -> None:
    root = place / "task"
    fill(root / "images", count=6)
    (place / "secret.png").write_bytes((root / "images/0.png").read_bytes())
    (root / "labels.csv").write_bytes(data.replace(b"PLACE", str(place).encode()))


def of(text: str, *, encoding: str = "utf-8") -> partial[None]:
    return partial(with_table, data=text.encode(encoding))


def unreadable(place: Path) -> None:
    of("path,label\n" + GOOD)(place)
    (place / "task/labels.csv").chmod(0)


SILENT = (
    ("byte-order mark", of("path,label\n" + GOOD, encoding="utf-8-sig")),
    ("semicolons", of("path;label\n" + GOOD.replace(",", ";"))),
    ("line ends of Windows", of(("path,label\n" + GOOD).replace("\n", "\r\n"))),
    ("empty lines and blanks", of("\npath , label\n\n" + GOOD.replace(",", " , ") + "\n,\n")),
)
TOLD = (
    (
        "path that climbs out",
        of("path,label\n" + GOOD + "../../secret.png,cat\n"),
        "left out: ../../secret.png: refused",
    ),
    ("absolute path", of("path,label\n" + GOOD + "PLACE/secret.png,cat\n"), "left out: .*secret.png: refused"),
    ("file of the system", of("path,label\n" + GOOD + "/etc/passwd,cat\n"), "left out: /etc/passwd: refused"),
    ("one image with two labels", of("path,label\n" + GOOD + "2.png,dog\n"), "left out: images/2.png: .*label"),
    ("one image twice", of("path,label\n" + GOOD + "2.png,cat\n"), "images/2.png: named more than once"),
    ("image without a row", of("path,label\n" + GOOD.replace("2.png,cat\n", "")), "files without a label: 1;"),
)
WRONG = (
    ("missing column", of("path,colour\n" + GOOD), "column of .*label.*'colour'"),
    ("no header", of(GOOD), "header line"),
    ("header twice", of("path,label,label\n0.png,cat,dog\n1.png,dog,cat\n"), "label.*(twice|once)"),
    ("empty", of(""), "an empty file"),
    ("header alone", of("path,label\n"), "no image was found"),
    ("gap", of("path,label\n" + GOOD + "1.png,\n"), "rows '7'"),
    ("unknown split", of("path,label,split\n0.png,cat,train\n1.png,dog,holdout\n"), "'holdout'"),
    ("images that are not there", of("path,label\n" + GOOD + "gone.png,cat\n"), "'gone.png'"),
    ("NUL in a path", of("path,label\n" + GOOD + "a\0b,cat\n"), "neither in"),
    ("Latin-1", of("path,label\n" + GOOD.replace("cat", "chat fatigu\xe9"), encoding="latin-1"), "UTF-8"),
    ("UTF-16, as Excel has it", of("path\tlabel\n" + GOOD.replace(",", "\t"), encoding="utf-16"), "UTF-8"),
    ("field without an end", of('path,label\n"' + "x" * 200_000), "cannot be read as CSV"),
    ("one class", of("path,label\n" + GOOD.replace("dog", "cat")), "one class only: 'cat'"),
    ("without rights", unreadable, "labels.csv.*[Pp]ermission"),
)
CASES = (
    *(Case(room="tables", name=name, make=make, arguments=LOAD, quiet=True) for name, make in SILENT),
    *(Case(room="tables", name=name, make=make, arguments=LOAD, says=says) for name, make, says in TOLD),
    *(refused(Case(room="tables", name=name, make=make, says=says)) for name, make, says in WRONG),
)
