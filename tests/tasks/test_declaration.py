"""What task.toml may say."""

import textwrap
from pathlib import Path

import pytest

from helpers.task_folders import fill
from vlmsel_auto.errors import TaskError
from vlmsel_auto.tasks.imagefolder import scan_folder
from vlmsel_auto.tasks.scan import Scan


def declared(root: Path, text: str) -> Scan:
    fill(root, "big_cat/1.png", "dog/1.png")
    (root / "task.toml").write_text(textwrap.dedent(text), encoding="utf-8")
    return scan_folder(root)


def test_task_toml(tmp_path: Path) -> None:
    scan = declared(
        tmp_path,
        """
        name = "pets"
        domain = "photos of pets"
        metric = "balanced_accuracy"
        templates = ["a photo of a {}.", "{}"]
        [prompts]
        big_cat = "lion"
        """,
    )
    told = scan.declaration
    assert (told.name, told.domain, told.metric) == ("pets", "photos of pets", "balanced_accuracy")
    assert (told.templates, told.prompts) == (("a photo of a {}.", "{}"), (("big_cat", "lion"),))
    assert scan.stray == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam = 'x'", "unknown key 'nam'"),
        ("name = 3", r"name: expected str, but got 3"),
        ("domain = ''", "must not be empty, but got nothing for 'domain'"),
        ("metric = 'f1'", "metric: expected one of 'accuracy', 'balanced_accuracy', 'macro_f1', but got 'f1'"),
        ("metric = 1", "metric: expected one of"),
        ("templates = 'a {}'", "templates: expected"),
        ("templates = []", "list of one or more strings"),
        ("templates = ['a', 3]", r"templates\[1\]: expected str"),
        ("templates = ['a photo']", r"one \{\}"),
        ("templates = ['{} {}']", r"one \{\}"),
        ("templates = ['{} {name}']", r"one \{\}"),
        ("prompts = 'x'", "prompts: expected"),
        ("[prompts]\ndog = 4", "prompts.dog: expected str"),
        ("[prompts]\ndog = ' '", "nothing for 'dog'"),
        ("[prompts]\nbird = 'b'", "'bird'"),
        ("group = 'x'", 'group in .*task.toml must be "parent" or a regular expression'),
        ("group = 3", "group: expected str, but got 3"),
        ("name = ", "cannot be read as TOML"),
    ],
)
def test_bad_task_toml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        declared(tmp_path, text)


def test_task_toml_in_another_encoding(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "task.toml").write_bytes('name = "\u00e9"'.encode("latin-1"))
    with pytest.raises(TaskError, match="UTF-8"):
        scan_folder(tmp_path)
