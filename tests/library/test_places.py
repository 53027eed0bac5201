import multiprocessing
from pathlib import Path

import pytest

from helpers.cell_world import cell, task
from vlmsel_auto.errors import InputError, LibraryError
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library, remember, user_library, user_library_path


def test_user_library_is_shipped_plus_own(tmp_path, monkeypatch):
    path = tmp_path / "own" / "library.safetensors"
    monkeypatch.setenv("VLMSEL_LIBRARY", str(path))
    assert user_library_path() == path
    shipped = default_library()
    assert user_library() is shipped
    remember([cell("a", "birds"), cell("b", "birds")], run_sources={"run 0": "own search"})
    merged = user_library()
    assert merged.task_names == (*shipped.task_names, "birds")
    assert merged.zero_shot[merged.row("a"), merged.column("birds")] == 0.5
    assert dict(zip(merged.run_names, merged.run_sources, strict=True))["run 0"] == "own search"


def test_a_place_that_cannot_be_reached_holds_no_library(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMSEL_LIBRARY", str(tmp_path / ("x" * 300) / "own"))  # as a home that a service may not enter
    assert user_library() is default_library()
    with pytest.raises(LibraryError, match="cannot be written"):
        remember([cell("a", "birds")])


def test_who_has_no_home_is_told_what_to_set(monkeypatch):
    for name in ("VLMSEL_LIBRARY", "HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a number that has no name, as in a container
    with pytest.raises(InputError, match="set HOME or VLMSEL_LIBRARY"):
        user_library()


def test_remembering_again_replaces_and_other_content_gets_another_name(tmp_path):
    path = tmp_path / "lib.safetensors"
    assert remember([cell("a", "birds")], path=path) == (path, "birds")
    remember([cell("a", "birds", finished=2.0, zero_shot=0.625)], path=path)
    assert load(path).zero_shot.tolist() == [[0.625]]
    other = cell("a", "birds", task=task("birds", digest="0123456789"))
    assert remember([other], path=path)[1] == "birds-01234567"
    both = load(path)
    assert both.task_names == ("birds", "birds-01234567")
    # another split of the folder is no stranger to it, whichever was searched first
    assert both.leave_out(name="birds", digest="fedcba").task_names == ()
    assert both.leave_out(name="bird").task_names == both.task_names
    assert both.leave_out(name="moved", digest="0123456789").task_names == ("birds",)


def test_a_damaged_library_is_left_alone(tmp_path):
    path = tmp_path / "lib.safetensors"
    path.write_bytes(b"precious but damaged")
    with pytest.raises(LibraryError, match="not a safetensors file"):
        remember([cell("a", "birds")], path=path)
    assert path.read_bytes() == b"precious but damaged"


def test_cells_of_several_tasks_are_added_and_no_task_of_that_name_is_lost(tmp_path):
    path = tmp_path / "lib.safetensors"
    remember([cell("a", "birds")], path=path)
    other = cell("b", "birds", task=task("birds", digest="0123456789"))
    assert remember([other, cell("b", "cars")], path=path) == (path, "birds-01234567")
    assert load(path).task_names == ("birds", "birds-01234567", "cars")
    assert load(path).cell("a", "birds") is not None


def _remember(name: str, path: str) -> None:
    remember([cell("a", name)], path=Path(path))


def test_searches_that_end_at_once_lose_nothing(tmp_path):
    path = tmp_path / "lib.safetensors"
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_remember, args=(f"task{i}", str(path))) for i in range(6)]
    for one in running:
        one.start()
    for one in running:
        one.join(60)
    assert [one.exitcode for one in running] == [0] * 6
    assert sorted(load(path).task_names) == [f"task{i}" for i in range(6)]
