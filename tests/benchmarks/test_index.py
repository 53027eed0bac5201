"""benchmarks/index.py: each script says its question, page and result, and the index of the docs is made of that."""

import pytest

from benchmarks import index

DOCS, RESULTS = "docs", "results/x.json,\n    results/y.json"
TOLD = f'"""QUESTION: Is it so?\n\nPAGE: {DOCS}/a.md\nRESULT: {RESULTS}\n"""\n'


@pytest.fixture
def root(tmp_path):
    for name in (f"{DOCS}/a.md", "results/x.json", "results/y.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "benchmarks" / "topic").mkdir(parents=True)
    (tmp_path / "benchmarks" / "topic" / "helper.py").write_text('"""No script."""\n')
    return tmp_path


def write(root, docstring):
    (root / "benchmarks" / "topic" / "one.py").write_text(f'{docstring}\nif __name__ == "__main__":\n    print()\n')


def test_the_index_of_the_docs_is_up_to_date():
    assert index.table() in index.PAGE.read_text("utf-8"), "run python -m benchmarks.index"


def test_a_script_is_a_row(root):
    write(root, TOLD)
    (found,) = index.scripts(root)
    assert found.results == ("results/x.json", "results/y.json")
    assert index.table(root).splitlines()[2:] == ["| Is it so? | [a.md](a.md) | `python -m benchmarks.topic.one` |"]


@pytest.mark.parametrize(
    ("docstring", "said"),
    [
        ('"""What it does."""', "does not begin"),
        (TOLD.replace("PAGE", "SITE"), "does not begin"),
        (TOLD.replace("a.md", "b.md"), "/b.md, which is not there"),
        (TOLD.replace("y.json", "z.json"), "results/z.json, which is not there"),
        (TOLD.replace(RESULTS, "none"), None),
    ],
)
def test_lines_and_files_must_be_there(root, docstring, said):
    write(root, docstring)
    if said is None:
        assert [each.results for each in index.scripts(root)] == [()]
    else:
        with pytest.raises(ValueError, match=said):
            list(index.scripts(root))
