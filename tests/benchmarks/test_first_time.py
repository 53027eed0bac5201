"""A first-time user's way: what it types is what the command line takes, and megabytes are counted once."""

import os
import re

import pytest

from benchmarks.search import first_time
from helpers.command_line import parse


@pytest.mark.parametrize("way", ["pip", "uvx", "pipx"])
def test_the_commands_of_a_way_parse(way):
    known = first_time.ways(package="a.whl", constraints="c.txt", budget="60s", python="python3", uv="uv", pipx="pipx")
    typed = [re.search(r"vlmsel-auto [a-z].*", command) for command in known[way].commands]
    ours = [each[0] for each in typed if each]
    assert [each.split()[1] for each in ours] == ["demo", "predict"]
    for line in ours:
        parse(line)


def test_a_file_of_two_names_counts_once(tmp_path):
    (tmp_path / "a").write_bytes(b"1" * 1_000_000)
    before = first_time.megabytes(tmp_path)
    os.link(tmp_path / "a", tmp_path / "b")
    assert first_time.megabytes(tmp_path) == before == pytest.approx(1.0, abs=0.01)
