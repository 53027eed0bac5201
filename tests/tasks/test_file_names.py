"""Names of files: what can be written, what is passed over, what leads out of a folder."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.tasks.file_names import inside, is_ignored, nfc, printable, shown


@given(st.binary(max_size=20))
def test_any_file_name_can_be_written_as_utf_8(raw):
    name = os.fsdecode(raw)
    assert printable(name).encode("utf-8").decode("utf-8") == printable(name)
    assert unicodedata.is_normalized("NFC", nfc(name))


def test_what_can_be_written_stays_and_what_cannot_is_marked():
    assert printable("žába") == "žába"
    assert printable("a\udcffb") == "a\N{REPLACEMENT CHARACTER}b"
    assert nfc("z\N{COMBINING CARON}") == "ž"


@pytest.mark.parametrize("name", [".DS_Store", ".git", "Thumbs.db", "__MACOSX", "desktop.ini"])
def test_files_of_the_operating_system_are_passed_over(name):
    assert is_ignored(name)
    assert not is_ignored(f"x{name}.jpg")


def test_links_that_lead_out_are_outside(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "in.png").touch()
    (tmp_path / "out.png").touch()
    (root / "link.png").symlink_to(tmp_path / "out.png")
    (root / "loop").symlink_to(root / "loop")
    assert inside(root / "in.png", root)
    assert not inside(root / "link.png", root)
    assert not inside(root / ".." / "out.png", root)
    assert not inside(root / "loop" / "x.png", root)


def test_a_message_lists_five_names_and_how_many_there_are():
    assert shown(["a", "b"]) == "'a', 'b'"
    assert shown([*"abcdefg"]) == "'a', 'b', 'c', 'd', 'e', ... (7 in all)"
