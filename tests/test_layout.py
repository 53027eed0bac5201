"""The layout that CONTRIBUTING.md promises: tests import no tests, short modules, one table of methods."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from vlmsel_auto.tuning.methods import METHODS

ROOT = Path(__file__).parents[1]
MODULES = sorted(each for room in ("vlmsel_auto", "integrations") for each in (ROOT / room).rglob("*.py"))
LONGEST = 350
THIN = 150
METHOD_NAMES = {each.name for each in METHODS} - {"zero_shot"}  # which also is what a truth is called
METHODS_NAMED_IN = {"vlmsel_auto/tuning/methods.py"}
ABSOLUTE = re.compile(r"(?<![\w.}/:])/(?:work|tmp|home|root|opt|mnt|srv|Users)/")
NOT_READ = (".git", "LICENSE")
BUILT = ("docs/_build/", "docs/gallery/", "docs/reference/generated/")  # left by `make docs`
SHIPPED = (".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cff", ".j2", "")


def relative(path):
    return path.relative_to(ROOT).as_posix()


def test_tests_import_helpers_and_no_other_tests():
    found = [
        f"{relative(path)}: {line}"
        for path in (ROOT / "tests").rglob("*.py")
        for line in re.findall(r"^(?:from|import) (?:tests\b|[\w.]*\btest_\w+).*$", path.read_text(), re.MULTILINE)
    ]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST


def test_an_adapter_is_thin():
    foreign = re.compile(r"^(?:from|import) optuna\b", re.MULTILINE)
    adapters = [each for each in (ROOT / "integrations").glob("*.py") if foreign.search(each.read_text())]
    assert {each.stem for each in adapters} >= {"optuna_prior", "optuna_past"}
    assert [each.name for each in adapters if len(each.read_text().splitlines()) >= THIN] == []


def test_methods_are_named_in_their_table_only():
    assert {"probe", "finetune"} <= METHOD_NAMES
    naming = {
        relative(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in METHOD_NAMES
    }
    assert naming - METHODS_NAMED_IN == set()


def test_prefixes_of_candidates_are_named_by_their_sources_only():
    found = {
        relative(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in {"hf-hub:", "local-dir:"}
    }
    own = {f"vlmsel_auto/models/sources/{name}.py" for name in ("hub_repositories", "local_folders")}
    open_clips = {"vlmsel_auto/models/loaders.py", "vlmsel_auto/cli/answers.py"}  # its names of folders
    assert found == own | open_clips


def test_no_path_of_a_machine_is_named():
    places = ("vlmsel_auto", "integrations", "benchmarks", "docs", "examples", "tools", ".github", ".ci")
    files = [each for place in places for each in (ROOT / place).rglob("*") if each.suffix in SHIPPED]
    files += [each for each in ROOT.iterdir() if each.suffix in SHIPPED and each.name not in NOT_READ]
    found = {
        f"{relative(path)}: {line.strip()}"
        for path in files
        if path.is_file() and not relative(path).startswith(BUILT)
        for line in path.read_text("utf-8").splitlines()
        if ABSOLUTE.search(line)
    }
    assert found == set()


def test_versions_and_settings_of_the_project_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == project["version"]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    named = [each.rsplit(" ", 1)[1] for each in project["classifiers"] if "Python :: 3." in each]
    assert jobs["test"]["strategy"]["matrix"]["python"] == named
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    pinned = {each.replace("_", "-") for each in pinned}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.match(r"[\w-]+", each)[0].lower().replace("_", "-") for each in wanted}
    assert names - pinned == set()
    for path in (*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"):
        assert yaml.safe_load(path.read_text()), path


def test_the_files_that_tests_begin_with_are_there():
    tree = ast.parse((ROOT / "tests" / "conftest.py").read_text())
    (names,) = [each.value for each in tree.body if isinstance(each, ast.Assign) and each.targets[0].id == "LONGEST"]
    longest = ast.literal_eval(names)
    assert len(set(longest)) == len(longest)
    assert [each for each in longest if not (ROOT / each).is_file()] == []
