"""``vlmsel-auto zoo``: what is known of candidates before any is loaded, and which would be loaded first."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmsel_auto.cli.options import Asked, Candidates, Device, answering, asking
from vlmsel_auto.cli.support import Answer, say
from vlmsel_auto.pipeline.request import TaskRequest


@asking(TaskRequest, only={"limits"})
@answering(tells=False)
def zoo(
    *,
    candidates: Candidates = [],  # noqa: B006 - typer copies defaults
    match: Annotated[str, typer.Option(metavar="TEXT", help="Only ids that contain TEXT.")] = "",
    asked: Asked,
    bandwidth: Annotated[
        str, typer.Option(metavar="BYTES", help="What a download is expected to bring in a second.")
    ] = "10MB",
    device: Device = "auto",
    answer: Answer,
) -> None:
    """List candidates with costs on this machine, licence and published accuracies; first what would be loaded first.

    Nothing is downloaded. Without -c it is the mini zoo that is listed.
    """
    from vlmsel_auto.events import Notice
    from vlmsel_auto.models.candidates import resolve
    from vlmsel_auto.units import parse_bytes

    limits = asked.read()["limits"]
    speed = parse_bytes(bandwidth)
    found = resolve(
        candidates or ["mini-zoo"],
        sink=lambda event: say(f"note: {event.text}") if isinstance(event, Notice) else None,
    )

    from vlmsel_auto.cli.listing import list_candidates, listing_json, print_listing
    from vlmsel_auto.models.hub import cache_dir
    from vlmsel_auto.models.machine import measure  # after what can be refused at once: measuring loads torch

    listing = list_candidates(
        [candidate for candidate in found if match.lower() in candidate.id.lower()],
        limits=limits,
        machine=measure(device, cache=cache_dir()),
        bandwidth=speed,
    )
    answer.json = listing_json(listing)
    if not answer.as_json:
        print_listing(listing)
