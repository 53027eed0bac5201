"""The command line of scripts that measure task folders once, and keep on record what they measured of each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from vlmsel_auto.recordjson import decode, encode

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the command line said."""

    targets: tuple[Path, ...]  # task folders by name; the first alone where it is to be quick
    records: Path
    quick: bool
    write: Path | None

    @property
    def scratch(self) -> Path:
        """Folder for images and embeddings."""
        return self.records / "tasks"

    def kept(self, kind: type[R], measure: Callable[[Path], list[R]]) -> list[R]:
        """What is on record of all targets; one that is not on record is measured first."""
        found: list[R] = []
        for target in self.targets:
            file = self.records / f"{target.name}.json"
            if not file.is_file():
                file.write_text(json.dumps([encode(each) for each in measure(target)], indent=1) + "\n", "utf-8")
            found += [decode(kind, each) for each in json.loads(file.read_text("utf-8"))]
        return found

    def finish(self, content: object) -> None:
        """Write the figures where they are wanted."""
        if self.write is not None:
            self.write.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def read_command_line(about: str | None, *, quick: str) -> Told:
    """Read the command line, make the folder of records and give torch one thread; ``quick``: what --quick leaves."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--records", type=Path, required=True, help="folder; what is there is not made again")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help=quick)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.records.mkdir(parents=True, exist_ok=True)
    only = set(args.only.split(",")) - {""}
    targets = sorted(each for each in args.targets.iterdir() if each.is_dir() and (not only or each.name in only))
    return Told(
        targets=tuple(targets[:1] if args.quick else targets), records=args.records, quick=args.quick, write=args.write
    )
