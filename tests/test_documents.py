"""README, docs and examples do what they say: Python blocks run, command lines parse, named files are there.

A page's ```python blocks run in order, in one namespace, beside a small task folder named ``photos``. An HTML comment
right above a block changes what the test runs:

    <!-- test: budget=600 becomes budget=5 -->      text of the block is replaced, to take seconds
    <!-- not run: needs a database server -->       the block is only compiled, for the reason given
"""

import re
import runpy
import shlex
import sys
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.exceptions import TyperException

from helpers.command_line import parse
from helpers.drawings import draw_task

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(each.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "docs/guide/*.md", "docs/results/*.md")
    for each in ROOT.glob(pattern)
)
EXAMPLES = {
    "own_study.py": ("2", "ViT-Mi-8-64.all-l,RN-Mi-64.glyph-s,EffNet-Mi-64.all-m"),
    "past_study.py": ("4",),
    "real_zoo.py": ("5", "ViT-Mi-8-64.all-l,RN-Mi-64.glyph-s"),
    "search_folder.py": ("5",),
}  # what follows the folder on the command line
SERVED = {"serve.py"}  # tests/test_serving.py
FOLDERS = "benchmarks|docs|examples|integrations|tests|tools|vlmsel_auto"
ELSEWHERE = {"docs/model_profile.csv", "docs/openclip_results.csv"}  # files of open_clip's repository


@dataclass(frozen=True)
class Block:
    """A fenced block of a page and the comments right above it."""

    line: int
    language: str
    text: str
    comments: tuple[str, ...]


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text()
    for found in re.finditer(r"((?:^<!--(?:(?!-->).)*-->\n+)*)^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        comments = tuple(each.strip() for each in re.findall(r"<!--(.*?)-->", found[1]))
        yield Block(text.count("\n", 0, found.start(3)) + 1, found[2], found[3], comments)


def runnable(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was measured of these images on one page serves the next."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def beside_photos(tmp_path: Path, measured: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a task folder of 48 drawn images."""
    monkeypatch.setenv("VLMSEL_CACHE", str(measured))
    draw_task(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)])
def test_python_of_a_page_runs(page, beside_photos):
    namespace: dict[str, object] = {"__name__": page}
    for block in runnable(page):
        source = "\n" * (block.line - 1) + block.text
        for comment in block.comments:
            if comment.startswith("test: "):
                old, new = comment.removeprefix("test: ").split(" becomes ")
                assert old in source, f"{page}:{block.line} has no {old!r}"
                source = source.replace(old, new)
        code = compile(source, page, "exec")
        if not any(re.match(r"not run: \w", comment) for comment in block.comments):
            exec(code, namespace)  # noqa: S102 - our own page


def test_every_example_is_run():
    assert {each.name for each in (ROOT / "examples").glob("*.py")} - SERVED == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, beside_photos, monkeypatch, capsys):
    script = ROOT / "examples" / name
    monkeypatch.setattr(sys, "argv", [str(script), "photos", *EXAMPLES[name]])
    with warnings.catch_warnings():  # as Python runs a script, but that its libraries are loaded already
        warnings.simplefilter("ignore")
        runpy.run_path(str(script), run_name="__main__")
    shown = capsys.readouterr().out
    assert re.search(r"test \S+, model in|best: \S+, validation", shown), shown


def code_lines(page: str) -> Iterator[str]:
    """Lines of code: fenced, indented by four, or between backticks."""
    text = (ROOT / page).read_text()
    for block in blocks(page):
        yield from block.text.splitlines()
    yield from re.findall(r"^    +(\S.*)$", text, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", text)


def command_lines(page: str, program: str) -> list[str]:
    """Command lines of a program as the page writes them, without comments."""
    found = [re.split(r"\s{2,}|\s+#", line.strip())[0] for line in code_lines(page)]
    return sorted({line for line in found if re.match(rf"{program}(\s|$)", line)})


COMMANDS = [(page, line) for page in PAGES for line in command_lines(page, "vlmsel-auto") if "|" not in line]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}" for page, line in COMMANDS])
def test_command_of_a_page_parses(page, line):
    parse(line)


def test_commands_are_found():
    assert any(line.startswith("vlmsel-auto search photos") for _, line in COMMANDS)
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("line", ["vlmsel-auto serach x", "vlmsel-auto rank x --no-such", "vlmsel-auto rank x y"])
def test_a_wrong_command_does_not_parse(line):
    with pytest.raises((TyperException, AssertionError)):
        parse(line)


def with_what_it_imports(script: Path) -> str:
    """A script's text with that of the modules of benchmarks/ that it imports."""
    text = script.read_text()
    names = re.findall(r"^from (benchmarks[\w.]*) import", text, re.MULTILINE)
    beside = [ROOT / f"{name.replace('.', '/')}.py" for name in names]
    return text + "".join(each.read_text() for each in beside if each.exists())


@pytest.mark.parametrize("page", PAGES)
def test_scripts_of_a_page_take_the_options_it_gives_them(page):
    for line in command_lines(page, "python"):
        words = shlex.split(line)
        if words[1:2] == ["-m"] and words[2].startswith(("benchmarks.", "tools.")):
            source = with_what_it_imports(ROOT / f"{words[2].replace('.', '/')}.py")
            options = [word.split("=")[0] for word in words if word.startswith("--")]
            assert [each for each in options if f'"{each}"' not in source] == [], line


def test_makefile_has_the_targets_that_pages_name():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for page in PAGES for line in command_lines(page, "make") if len(line.split()) > 1}
    assert named - targets == set()


def test_every_library_is_in_the_table_of_libraries_and_every_extra_in_the_readme():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = [*project["dependencies"], *(each for name in extras if name != "dev" for each in extras[name])]
    names = {re.match(r"[\w-]+", each)[0].lower() for each in required}
    table = re.findall(r"[\w-]+", (ROOT / "docs/libraries.md").read_text().lower())
    assert names - set(table) == set()
    readme = set(
        re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| `.*", (ROOT / "README.md").read_text(), re.MULTILINE)))
    )
    assert set(extras) - {"docs"} - readme == set()


def test_files_that_are_named_are_there():
    missing = []
    sources = [each for folder in FOLDERS.split("|") for each in (ROOT / folder).rglob("*.py")]
    for path in (*map(ROOT.joinpath, PAGES), ROOT / "pyproject.toml", ROOT / "Makefile", *sources):
        found = re.findall(rf"(?<![\w/.])(?:{FOLDERS})/[\w./-]*\.(?:py|md|json|csv|png|toml)\b", path.read_text())
        gone = {each for each in found if not (ROOT / each).exists()} - ELSEWHERE
        missing += [f"{path.relative_to(ROOT)}: {each}" for each in sorted(gone) if path != Path(__file__)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(
        r"(?<!`)\[[^\]]+\]\(([^)#\s]+)\)", re.sub(r"^    .*$", "", (ROOT / page).read_text(), flags=re.MULTILINE)
    )
    assert [each for each in targets if "://" not in each and not (ROOT / page).parent.joinpath(each).exists()] == []
