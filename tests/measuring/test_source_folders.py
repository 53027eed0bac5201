"""Source tasks in folders of many."""

import pytest

from helpers.drawings import draw_task
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.measuring.source_folders import source_tasks, task_folders


def test_task_folders_are_found(tmp_path_factory, tmp_path):
    root = tmp_path_factory.mktemp("many")
    tasks = tuple(draw_task(root / "tasks" / name, train=2, test=1) for name in ("one", "two"))
    assert task_folders(root / "tasks") == tasks
    assert task_folders(tasks[0]) == (tasks[0],)  # splits
    for part in ("named", "plain/cats", "plain/dogs", "listed/images", ".cache/x"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "named" / "task.toml").write_text('name = "x"\n')
    (tmp_path / "listed" / "labels.csv").write_text("path,label\n")
    assert [one.name for one in task_folders(tmp_path)] == ["listed", "named", "plain"]
    for name in ("listed", "named", "plain"):
        assert task_folders(tmp_path / name) == (tmp_path / name,)
    assert source_tasks([tasks[0], root / "tasks"]) == tasks
    for wrong in (tmp_path / "none", root / "tasks" / "one" / "test" / "circle"):
        with pytest.raises(LibraryError, match="task"):
            task_folders(wrong)


def test_a_folder_without_a_task_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError, match="no task folder"):
        source_tasks([tmp_path / "empty"])
