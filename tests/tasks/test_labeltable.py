"""Tables of labels as cells: whatever stands in one is there when it is written again."""

import pytest

from helpers.task_folders import fill
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.labeltable import EMPTY, locate, parse_table

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
