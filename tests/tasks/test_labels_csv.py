"""Folders with labels.csv: what is accepted and listed; what stands in a table is there when it is written again."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from helpers.task_folders import fill, listed, strays
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.labels_csv import EMPTY, locate, parse_table

TABLES = {
    "plain": b"path,label\na.png,cat\n",
    "a mark, semicolons, other columns": b"\xef\xbb\xbfnote;File;CLASS\nx, y;a.png;cat\n",
    "quotes and carriage returns": b'path,label\n"a\r.png","cat"\n"b,""c"".png",dog\n',
    "short rows": b"path,label,by\na.png,cat\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_written_as_it_was_read(tmp_path, kind):
    assert parse_table(TABLES[kind], path=tmp_path).encoded() == TABLES[kind]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_any_way(tmp_path, ends):
    table = parse_table(ends.join([b"", b"path;label", b"", b"a, b.png;cat ", b""]), path=tmp_path)
    assert [(table.path(row), table.label(row), table.split(row)) for row in table.rows] == [("a, b.png", "cat", "")]


def test_blanks_belong_to_paths_from_the_root_alone(tmp_path):
    table = parse_table(b"path,label\n./a.png , cat\n b.png ,dog\n", path=tmp_path)
    assert [table.path(row) for row in table.rows] == ["./a.png ", "b.png"]
    assert [table.label(row) for row in table.rows] == ["cat", "dog"]


def test_rows_are_made_and_changed(tmp_path):
    table = parse_table(b"by,label,path,split\nAnn,cat,a.png\n", path=tmp_path)
    assert table.new_row("=1.png", "dog") == ("", "dog", "./=1.png", "")
    assert table.with_label(table.rows[0], "dog") == ("Ann", "dog", "a.png", "")
    assert EMPTY.new_row("a.png", "cat") == ("./a.png", "cat")


@pytest.mark.parametrize("data", [b"path,label\na.png,\n", b"path,label\n./,x\n \t,x\n"])
def test_empty_cells(tmp_path, data):
    with pytest.raises(TaskError, match="needs a path and a label, but got empty cells in rows"):
        parse_table(data, path=tmp_path)


def test_files_are_found_where_their_path_says(tmp_path):
    root = fill(tmp_path / "task", "a.png", "images/a.png", "images/b/c.png", "d.png ").resolve()
    found = {
        "a.png": "images/a.png", "./a.png": "a.png", "b\\c.png": "images/b/c.png", "./d.png ": "d.png ",
        "./a.png ": "a.png", "./b/c.png": None,
    }  # fmt: skip
    for path, place in found.items():
        assert locate(path, root=root) == (None if place is None else root / place)
    assert locate("../../x.png", root=root) == root / "images" / "../../x.png"


def table(root: Path, text: str, *, encoding: str = "utf-8") -> Path:
    (root / "labels.csv").write_text(textwrap.dedent(text), encoding=encoding)
    return root


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("path,label", ","),
        ("File;Class", ";"),
        ("image\tLABEL", "\t"),
        ("class, filename ,x", ","),
        ('"path","label"', ","),
    ],
)
def test_csv_columns_and_separators(tmp_path: Path, header: str, separator: str) -> None:
    fill(tmp_path, "images/1.png", "images/2.png", "top.png")
    swap = header.startswith("class")
    rows = [("1.png", "cat"), ("images/2.png", "dog"), ("top.png", "dog")]
    lines = [separator.join((label, file, "z") if swap else (file, label)) for file, label in rows]
    scan = scan_folder(table(tmp_path, "\n".join([header, *lines, "", ""])))
    assert listed(scan) == {"images/1.png": ("cat", None), "images/2.png": ("dog", None), "top.png": ("dog", None)}


def test_csv_with_splits_numbers_as_labels_byte_order_mark_and_unnamed_files(tmp_path: Path) -> None:
    fill(tmp_path, "images/1.png", "images/sub/2.png", "images/3.png", "images/.hid", "images/.h/x.png")
    table(tmp_path, "image,label,split\n1.png,0,train\nsub/2.png,1,Validation\n", encoding="utf-8-sig")
    scan = scan_folder(tmp_path)
    assert listed(scan) == {"images/1.png": ("0", "train"), "images/sub/2.png": ("1", "val")}
    assert scan.unlabelled == ("images/3.png",)


def test_csv_paths_of_windows_and_repeated_rows(tmp_path: Path) -> None:
    fill(tmp_path, "images/a/1.png", "images/2.png")
    scan = scan_folder(table(tmp_path, "path,label\na\\1.png,x\n2.png,y\nimages/2.png,y\n"))
    assert listed(scan) == {"images/a/1.png": ("x", None), "images/2.png": ("y", None)}
    assert strays(scan) == {"images/2.png": "named more than once in labels.csv"}


def test_csv_paths_from_the_root_and_with_blanks(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "images/1.png", "images/2.png", "3.png ", "4\r.png")
    table(tmp_path, 'path,label\n./1.png,x\n1.png,y\n"./3.png ",x\n"./4\r.png",x\n')
    found = {"1.png": ("x", None), "images/1.png": ("y", None), "3.png ": ("x", None), "4\r.png": ("x", None)}
    assert listed(scan_folder(tmp_path)) == found
    with pytest.raises(TaskError, match=r"begin with ./ must be there\), but got './2.png'"):
        scan_folder(table(tmp_path, "path,label\n./2.png,x\n"))


def test_csv_images_without_a_row_to_any_depth(tmp_path: Path) -> None:
    fill(tmp_path, "images/1.png", "images/2.PNG", "images/odd", "images/b/c/3.jpg", "images/b/notes.txt", "README.md")
    scan = scan_folder(table(tmp_path, "path,label\n1.png,x\n"))
    assert scan.unlabelled == ("images/2.PNG", "images/odd", "images/b/c/3.jpg")


def test_named_classes_keep_their_order(tmp_path: Path) -> None:
    root = table(fill(tmp_path, "1.png", "2.png"), "path,label\n1.png,cat\n2.png,dog\n")
    assert scan_folder(root).classes == ("cat", "dog")
    assert scan_folder(root, classes=["dog", "cat"]).classes == ("dog", "cat")
    (root / "task.toml").write_text('classes = ["emu", "dog", "cat"]')
    assert scan_folder(root).classes == ("emu", "dog", "cat")


def test_csv_beside_labelled_folders(tmp_path: Path) -> None:
    fill(tmp_path, "labelled/a/1.png", "labelled/a/2.png", "labelled/b/3.png", "unlabelled/4.png", "unlabelled/5.png")
    root = table(tmp_path, "path,label\n./labelled/a/1.png,b\n./unlabelled/4.png,a\n")
    found = {"labelled/a/1.png": "b", "unlabelled/4.png": "a", "labelled/a/2.png": "a", "labelled/b/3.png": "b"}
    scan = scan_folder(root)
    assert listed(scan) == {path: (label, None) for path, label in found.items()}
    assert scan.unlabelled == ("unlabelled/5.png",)
    table(root, "path,label,split\nunlabelled/4.png,a,train\n")
    assert len(scan_folder(root).entries) == 1


def test_csv_paths_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "secret.png")
    root = fill(tmp_path / "task", "images/1.png", "images/2.png")
    (root / "images/link.png").symlink_to(tmp_path / "secret.png")
    absolute = root / "images/2.png"
    table(
        root,
        f"path,label\n1.png,x\n{absolute},y\n../secret.png,x\n{tmp_path}/secret.png,y\n/etc/passwd,y\nlink.png,x\n",
    )
    scan = scan_folder(root)
    assert sorted(listed(scan)) == ["images/1.png", "images/2.png"]
    assert len(scan.stray) == 4
    assert {bad.reason for bad in scan.stray} == {"refused: the path leads out of the task folder"}


BAD_TABLES: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "no label": (b"path,colour\n1.png,red\n", "'colour'"),
    "no path": (b"name,label\n1.png,red\n", "'name'"),
    "no header": (b"1.png,cat\n2.png,dog\n", "header line"),
    "empty cell": (b"path,label\n1.png,\n1.png,x\n", "empty cells in rows '1'"),
    "split": (b"path,label,split\n1.png,x,train\n1.png,y,holdout\n", "'holdout'"),
    "gap in split": (b"path,label,split\n1.png,x,train\n1.png,y,\n", "every row"),
    "latin-1": ("path,label\n1.png,\u00e9\n".encode("latin-1"), "UTF-8"),
    "binary": (bytes(range(256)), "UTF-8"),
    "header only": (b"path,label\n", "no image was found"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_csv(tmp_path: Path, kind: str) -> None:
    data, message = BAD_TABLES[kind]
    fill(tmp_path, "images/1.png")
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(TaskError, match=message):
        scan_folder(tmp_path)


def test_csv_naming_missing_files_lists_the_first_and_the_count(tmp_path: Path) -> None:
    fill(tmp_path, "images/1.png")
    rows = "".join(f"gone{k}.png,x\n" for k in range(12))
    with pytest.raises(TaskError, match=r"'gone0.png', .*'gone4.png', \.\.\. \(12 in all\)"):
        scan_folder(table(tmp_path, "path,label\n1.png,y\n" + rows))
    with pytest.raises(TaskError, match="neither in"):
        scan_folder(table(tmp_path, "path,label\n" + "a" * 5000 + ",y\nb\0c,y\n"))
