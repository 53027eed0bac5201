"""The index of docs/benchmarks.md, made of what the docstring of each script says: python -m benchmarks.index."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
BY_OTHERS: Final = frozenset(["faults/faults_memory.py", "faults/faults_search.py", "index.py"])  # nobody calls them
_TABLE: Final = re.compile(r"(?<=\n\n)\| question .*?\n(?=\n)", re.DOTALL)
_LINES: Final = re.compile(r"QUESTION: (.+)\n\nPAGE: (docs/\S+\.md)\nRESULT: ([^\s,]+(?:,\s+[^\s,]+)*)\n")


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script and what it says of itself: paths from the root of the repository, results are there."""

    path: str
    question: str
    page: str
    results: tuple[str, ...]

    @property
    def row(self) -> str:
        """Its line of the index."""
        page = self.page.removeprefix("docs/")
        command = self.path.removesuffix(".py").replace("/", ".")
        return f"| {self.question} | [{page}]({page}) | `python -m {command}` |\n"


def script(path: Path, *, root: Path = ROOT) -> Script:
    """Read a script's docstring.

    Args:
        path: of the script.
        root: of the repository.

    Raises:
        ValueError: it lacks the lines QUESTION, PAGE and RESULT, or names a file that is not there.
    """
    name = path.relative_to(root).as_posix()
    told = _LINES.match((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "") + "\n")
    if told is None:
        raise ValueError(f"the docstring of {name} does not begin with the lines QUESTION, PAGE and RESULT")
    results = () if told[3] == "none" else tuple(re.split(r",\s+", told[3]))
    gone = [each for each in (told[2], *results) if not (root / each).is_file()]
    if gone:
        raise ValueError(f"{name} names {', '.join(gone)}, which is not there")
    return Script(path=name, question=told[1], page=told[2], results=results)


def scripts(root: Path = ROOT) -> Iterator[Script]:
    """Yield the scripts of benchmarks/, in the order of their paths."""
    folder = root / "benchmarks"
    for path in sorted(folder.rglob("*.py")):
        called = "\nif __name__ ==" in path.read_text("utf-8")
        if called and path.relative_to(folder).as_posix() not in BY_OTHERS:
            yield script(path, root=root)


def table(root: Path = ROOT) -> str:
    """Return the index in Markdown: one row a script."""
    head = "| question | page | command |\n|---|---|---|\n"
    return head + "".join(each.row for each in scripts(root))


def main() -> None:
    """Write the index into its page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(_TABLE.sub(lambda _: table(), PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
