"""The site: `make docs` builds it from docs/, docstrings, the command line and examples, warnings being errors.

Examples run as the tests run them, on drawn images; with ``-D plot_gallery=0`` they are only shown.
"""

from __future__ import annotations

import ast
import os
import shutil
import socket
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from sphinx.application import Sphinx  # noqa: E402
from test_documents import EXAMPLES  # noqa: E402

from helpers.drawings import draw_task  # noqa: E402

project = "vlmsel_auto"
author = copyright = "The vlmsel_auto authors"  # noqa: A001 - Sphinx reads this name
release = version = version_of("vlmsel-auto")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinxcontrib.typer",
    "sphinx_gallery.gen_gallery",
    "field_comments",
]
exclude_patterns = ["_build"]
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost)\b"]
linkcheck_timeout = 15
html_theme = "furo"
html_title = "vlmsel_auto"
html_copy_source = html_show_sourcelink = False
myst_heading_anchors = 4
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
suppress_warnings = ["config.cache"]  # functions in the gallery's settings


def _reachable(url: str) -> bool:
    try:
        socket.create_connection((url.split("/")[2], 443), timeout=3).close()
    except OSError:
        return False
    return True


# names of these projects become links; without a network the site is built without them
intersphinx_mapping = {
    name: (url, None)
    for name, url in {
        "python": "https://docs.python.org/3",
        "optuna": "https://optuna.readthedocs.io/en/stable",
        "torch": "https://docs.pytorch.org/docs/stable",
        "lightning": "https://lightning.ai/docs/pytorch/stable",
        "numpy": "https://numpy.org/doc/stable",
        "sklearn": "https://scikit-learn.org/stable",
    }.items()
    if _reachable(url)
}

_WORK = HERE / "_build" / "gallery"
_STAGED = _WORK / "examples"


def _stage_examples() -> None:
    """Copies of the examples whose docstrings begin with a title, as the gallery wants them, and images for them."""
    shutil.rmtree(_WORK, ignore_errors=True)
    _STAGED.mkdir(parents=True)
    head = "Examples\n========\n\nEach of them ran when this site was built, on a small folder of drawn images."
    (_STAGED / "GALLERY_HEADER.rst").write_text(head + "\n", encoding="utf-8")
    for path in sorted((HERE.parent / "examples").glob("*.py")):
        text = path.read_text("utf-8")
        said = ast.get_docstring(ast.parse(text)) or path.stem
        title = said.split("\n")[0].split(":")[0].rstrip(".")
        code = text.split('"""', 2)[2]
        staged = f'"""\n{title}\n{"=" * len(title)}\n\n{said}\n"""{code}'
        (_STAGED / path.name).write_text(staged, encoding="utf-8")
    draw_task(_WORK / "photos")
    os.environ["VLMSEL_CACHE"] = str(_WORK / "cache")
    os.environ["VLMSEL_LIBRARY"] = str(_WORK / "library.safetensors")


def _arguments(_: object, script: dict[str, str]) -> list[str]:
    """What an example finds behind its name on the command line."""
    shutil.rmtree(_STAGED / "vlmsel-photos", ignore_errors=True)  # of the example before: another search
    return [str(_WORK / "photos"), *EXAMPLES[Path(script["src_file"]).name]]


_stage_examples()
sphinx_gallery_conf = {
    "examples_dirs": [str(_STAGED)],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"\.py$",
    "reset_argv": _arguments,
    "reset_modules": (),
    "image_scrapers": (),
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
}


def _edit(_: Sphinx, page: str, text: list[str]) -> None:
    """What examples print names no folder of this machine."""
    if page.startswith("gallery/"):
        text[0] = text[0].replace(f"{_STAGED}/", "")


def _is_inherited_from_sklearn(_: Sphinx, __: str, ___: str, subject: object, *____: object) -> bool | None:
    """Members that scikit-learn describes: their descriptions refer to labels of its own site."""
    return True if str(getattr(subject, "__module__", "")).startswith("sklearn.") else None


def setup(app: Sphinx) -> None:
    """What no setting says."""
    app.connect("source-read", _edit)
    app.connect("autodoc-skip-member", _is_inherited_from_sklearn)
