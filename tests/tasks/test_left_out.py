"""Lines on files that were left out."""

from vlmsel_auto.records import BadFile
from vlmsel_auto.tasks.left_out import a_copy, left_out_notes


def test_counts_and_the_first_names():
    copies = [a_copy(f"{number}.png", of="a.png") for number in range(7)]
    others = [BadFile(path="x.txt", reason="empty file"), BadFile(path="y.png", reason="CMYK image", used=True)]
    assert left_out_notes([*others, *copies]) == (
        "files left out, cannot be used: 1: 'x.txt: empty file'",
        "files left out, copies of other images: 7: '0.png', '1.png', '2.png', '3.png', '4.png', ... (7 in all)",
    )
    assert left_out_notes(others[1:]) == ()


def test_a_copy_says_of_what():
    found = a_copy("b\udcff.png", of="a.png", more="; left out of train")
    reason = "same image as a.png; left out of train"
    assert found == BadFile(path="b\ufffd.png", reason=reason, copy_of="a.png")
    assert left_out_notes([BadFile(path="x.png", reason="same image as before")]) == (
        "files left out, cannot be used: 1: 'x.png: same image as before'",
    )


def test_two_rows_of_one_image_are_no_copies():
    found = a_copy("images/a.png", of="images/a.png", more=", but labelled 'x' and not 'y'")
    reason = "named more than once in labels.csv, but labelled 'x' and not 'y'"
    assert found == BadFile(path="images/a.png", reason=reason)
