"""task.toml with words that mean nothing, of the wrong kind, or no TOML at all."""

from functools import partial
from pathlib import Path

from helpers.bad_input.case import Case, good_task, refused


def with_toml(place: Path, *, data: bytes) -> None:
    (good_task(place) / "task.toml").write_bytes(data)


def as_folder(place: Path) -> None:
    (good_task(place) / "task.toml").mkdir()


def unreadable(place: Path) -> None:
    with_toml(place, data=b'domain = "birds"')
    (place / "task/task.toml").chmod(0)


WRONG = (
    ("unknown key", b'metrics = "accuracy"', "unknown key 'metrics'"),
    ("wrong type", b"domain = 3", "domain: expected str, but got 3"),
    ("templates of the wrong type", b'templates = "a photo of a {}"', "templates: expected"),
    ("template without a place for the class", b'templates = ["a photo"]', "one {} for the class"),
    ("template with code", b'templates = ["{0.__class__} {}"]', "one {} for the class"),
    ("prompts for a class that is not there", b'[prompts]\nbird = "a bird"', "prompts .* 'bird'"),
    ("prompt of the wrong type", b"[prompts]\ncat = 3", "prompts.cat: expected str"),
    ("unknown metric", b'metric = "f1"', "metric: expected one of 'accuracy'.*'f1'"),
    ("classes that the folder does not have", b'classes = ["cat", "bird"]', "'dog'"),
    ("class given twice", b'classes = ["cat", "dog", "cat"]', "every class must be named once"),
    ("classes of the wrong type", b"classes = 2", "classes: expected"),
    ("not TOML", b"domain: birds", "cannot be read as TOML"),
    ("not UTF-8", 'domain = "V\xf6gel"'.encode("latin-1"), "UTF-8"),
    ("key given twice", b'domain = "a"\ndomain = "b"', "cannot be read as TOML"),
    ("ten thousand brackets", b"templates = " + b"[" * 10_000, "cannot be read as TOML"),
    ("number of five thousand digits", b"domain = " + b"1" * 5_000, "cannot be read as TOML"),
)
CASES = (
    *(
        refused(Case(room="task.toml", name=name, make=partial(with_toml, data=data), says=says))
        for name, data, says in WRONG
    ),
    refused(Case(room="task.toml", name="a folder of that name", make=as_folder, says="task.toml")),
    refused(Case(room="task.toml", name="without rights", make=unreadable, says="task.toml.*[Pp]ermission")),
)
