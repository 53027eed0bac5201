"""``vlmsel-auto library``: source tasks and what the candidates do on them."""

from __future__ import annotations

import typer

__all__ = ["library_app"]

library_app = typer.Typer(
    help="Source tasks that rankings learn from: build, add, list, show, merge, export, verify, import.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
