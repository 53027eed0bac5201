"""Task folders of files that nobody opens, and what a scan of them says."""

from pathlib import Path

from vlmsel_auto.tasks.scan import Scan


def fill(root: Path, *names: str) -> Path:
    """Small files with the given names; the scan does not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")
    return root


def listed(scan: Scan) -> dict[str, tuple[str, str | None]]:
    return {entry.path: (entry.label, entry.split) for entry in scan.entries}


def strays(scan: Scan) -> dict[str, str]:
    return {bad.path: bad.reason for bad in scan.stray}
