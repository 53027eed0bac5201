"""Command lines that ask for what is not there, and files of other runs that are damaged."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from helpers.bad_input.case import FULL, MEMBER, REFUSED, SEARCH, Case, good_task, refused
from helpers.bad_input.weights import exported
from helpers.pictures import encoded, picture
from vlmsel_auto.cache import sealed
from vlmsel_auto.library.places import default_library_path


def file(place: Path, *, name: str, data: bytes = b"nothing of use") -> None:
    good_task(place)
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_bytes(data)


def cut_library(place: Path) -> None:
    file(place, name="library.safetensors", data=default_library_path().read_bytes()[:50_000])


def flipped_library(place: Path) -> None:
    data = bytearray(default_library_path().read_bytes())
    data[-1000] ^= 1
    file(place, name="library.safetensors", data=bytes(data))


def unreadable_library(place: Path) -> None:
    file(place, name="library.safetensors", data=default_library_path().read_bytes())
    (place / "library.safetensors").chmod(0)


def other_search(place: Path) -> None:
    """A work directory as a search of other images leaves it."""
    settings = sealed({"version": 1, "task": "0" * 64, "seed": 0})
    file(place, name="work/search.json", data=json.dumps(settings).encode())


def to_predict(place: Path, *, data: bytes = b"no picture") -> None:
    exported(place / "model")
    (place / "image.png").write_bytes(data)


def head_of_nothing(place: Path) -> None:
    to_predict(place, data=encoded(picture(seed=1)))
    (place / "model/head.safetensors").write_bytes(b"nothing of use")


def with_option(*given: str) -> tuple[str, ...]:
    return (*SEARCH, *given)


LIBRARY = with_option("--library", "library.safetensors")
PREDICT = ("predict", "model", "image.png")
WRONG: tuple[tuple[str, Callable[[Path], object], tuple[str, ...], str], ...] = (
    ("time budget of 0", good_task, with_option("--time-budget", "0"), "above zero, but got '0'"),
    ("negative time budget", good_task, with_option("--time-budget", "-5"), "above zero, but got '-5'"),
    ("time budget of NaN", good_task, with_option("--time-budget", "nan"), "but got 'nan'"),
    ("time budget without end", good_task, with_option("--time-budget", "inf"), "but got 'inf'"),
    ("time budget of words", good_task, with_option("--time-budget", "soon"), "like 90s, 10m, 1h30m.* 'soon'"),
    ("no trials", good_task, with_option("--max-trials", "0"), "'--max-trials'.*greater than or equal to 1"),
    ("price of NaN", good_task, with_option("--price", "nan"), "'--price'"),
    ("negative price", good_task, with_option("--price", "-1"), "--price"),
    ("negative seed", good_task, with_option("--seed", "-1"), "--seed"),
    ("seed beyond 32 bits", good_task, with_option("--seed", "5000000000"), "seed"),
    ("no shots", good_task, with_option("--shots", "0"), "--shots"),
    ("unknown candidate", good_task, ("search", "task", "-c", "ViT-Mi-16-64.all-n", *FULL), f"did you mean {MEMBER}"),
    ("unknown tag", good_task, ("search", "task", "-c", "ViT-B-32/laion2b", *FULL), "did you mean .*laion2b_s34b_b79k"),
    ("no candidate", good_task, ("search", "task", "-c", ",", *FULL), "At least one candidate"),
    ("unknown method", good_task, (*SEARCH[:5], "finetunes", *SEARCH[6:]), "did you mean finetune.*'finetunes'"),
    ("no method", good_task, (*SEARCH[:5], ",", *SEARCH[6:]), "method must be"),
    ("unknown tracker", good_task, with_option("--log", "tensorbord"), "'tensorbord'"),
    ("unknown device", good_task, with_option("--device", "gpu"), "try 'auto' or 'cpu', but got 'gpu'"),
    ("unknown option", good_task, with_option("--epochs", "3"), "No such option: --epochs"),
    ("size of words", good_task, with_option("--max-params", "many"), "like 150M, 1.5G.* 'many'"),
    (
        "limits that leave nobody",
        good_task,
        with_option("--max-params", "1"),
        "--max-params 1.*raise one, or name other candidates",
    ),
    ("class alone", good_task, with_option("--classes", "cat"), "two classes or more"),
    ("work directory that is a file", partial(file, name="work"), SEARCH, "must be a folder"),
    ("work directory below a file", partial(file, name="work"), (*SEARCH[:-1], "work/deeper"), "work"),
    ("work directory with other things", partial(file, name="work/thesis.doc"), SEARCH, "thesis.doc"),
    ("library that is not there", good_task, LIBRARY, "no library at this path"),
    (
        "library that is a folder",
        lambda place: (good_task(place), (place / "library.safetensors").mkdir()),
        LIBRARY,
        "cannot be read",
    ),
    ("library that is something else", partial(file, name="library.safetensors"), LIBRARY, "not a safetensors file"),
    ("library that is cut off", cut_library, LIBRARY, "cut short"),
    ("library with a flipped bit", flipped_library, LIBRARY, "damaged"),
    ("library without rights", unreadable_library, LIBRARY, "cannot be read.*ermission"),
    ("report of nothing", good_task, ("report", "task"), "no report.json here"),
    ("damaged report", partial(file, name="report.json", data=b"{"), ("report", "report.json"), "report.json"),
    (
        "report of brackets",
        partial(file, name="report.json", data=b"[" * 100_000),
        ("report", "report.json"),
        "report.json",
    ),
    (
        "report of the wrong kind",
        partial(file, name="report.json", data=b"[1]"),
        ("report", "report.json"),
        "report.json",
    ),
    (
        "model that is none",
        lambda place: (to_predict(place), (place / "empty").mkdir()),
        ("predict", "empty", "image.png"),
        "Only a folder that vlmsel_auto exported",
    ),
    ("model that is not there", to_predict, ("predict", "nowhere", "image.png"), "vlmsel_auto exported|no such"),
    ("image that is not there", to_predict, ("predict", "model", "gone.png"), "'gone.png'"),
    ("image that is none", to_predict, PREDICT, "The file is no usable image"),
    ("model with a damaged head", head_of_nothing, PREDICT, "classifier is damaged"),
    (
        "predictions into a folder that is a file",
        partial(to_predict, data=encoded(picture(seed=1))),
        (*PREDICT, "--output", "image.png/out.csv"),
        "cannot be written",
    ),
)
CASES = (
    *(
        refused(Case(room="command line", name=name, make=make, arguments=given, says=says))
        for name, make, given, says in WRONG
    ),
    Case(  # whose it is shows once the images were decoded, in it
        room="command line",
        name="work directory of another task",
        make=other_search,
        code=REFUSED,
        says="belongs to a search with other settings .*task",
    ),
)
