"""Which candidates a search is about: those that were named, or what suits this machine, less what limits keep out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.models.automatic import automatic
from vlmsel_auto.models.candidates import resolve_usable
from vlmsel_auto.models.download import sizes
from vlmsel_auto.models.facts import Facts, facts_of
from vlmsel_auto.models.hub import cache_dir, is_reachable
from vlmsel_auto.models.limits import Limits, within
from vlmsel_auto.models.machine import Machine, embedding_seconds, measure
from vlmsel_auto.pipeline.request import TaskRequest, is_auto
from vlmsel_auto.pipeline.workdir import EarlierChoice
from vlmsel_auto.records import Candidate
from vlmsel_auto.reporting.formatting import plan_text, plural
from vlmsel_auto.units import milliseconds

_DOUBT: Final = 2.5  # of a latency that was predicted before anything was timed
_NAMED: Final = 3  # candidates that a notice names


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """What a search chooses from."""

    candidates: Sequence[Candidate]
    failures: Mapping[str, str] = field(default_factory=dict)  # named, but not to be had or kept out by a limit -> why
    machine: Machine | None = None  # this one, as measured; None: nobody needed to, it counts as an ordinary one
    downloads: Mapping[str, int] = field(default_factory=dict)  # bytes still to come, as the hub told, by candidate


def choose(request: TaskRequest, *, sink: Sink, earlier: EarlierChoice | None = None) -> Chosen:
    """Find the candidates, and say in a line what was chosen and what was left out.

    Args:
        request: names them, and says what they may take, where they will run and whether a hub may be asked.
        sink: takes notices.
        earlier: what an earlier run of the same search chose. "auto" keeps it, and limits are not applied anew: free
            memory and disk, and speed, are other ones now, but the trials are of those who were in then.

    Raises:
        CandidateError: a name is unknown, or the limits keep everyone out.
        InputError: there is no such device.
    """
    if is_auto(request.candidates) and earlier is None:
        return _automatic(request, sink=sink)
    names = earlier.candidates if earlier is not None and is_auto(request.candidates) else request.candidates
    found, unusable = resolve_usable(names, sink=sink)
    for one in unusable:
        sink(Notice(text=f"{one.id} cannot be used: {one.reason}", level="warning"))
    failures = {one.id: one.reason for one in unusable}
    needs_machine = request.limits != Limits() or any(one.path is None for one in found)
    machine = measure(request.device, cache=cache_dir()) if needs_machine else None
    if earlier is not None:
        kept = tuple(one for one in found if one.id not in earlier.left_out)
        return Chosen(candidates=kept, failures=failures | dict(earlier.left_out), machine=machine)
    chosen = Chosen(candidates=found, failures=failures, machine=machine)
    return chosen if machine is None else _within_limits(chosen, machine, request, reachable=None, sink=sink)


def _automatic(request: TaskRequest, *, sink: Sink) -> Chosen:
    """What suits this machine."""
    machine, reachable = measure(request.device, cache=cache_dir()), not request.offline and is_reachable()
    choice = automatic(machine=machine, reachable=reachable, offline=request.offline)
    sink(Notice(text=choice.line))
    chosen = Chosen(candidates=choice.candidates, machine=machine)
    return _within_limits(chosen, machine, request, reachable=reachable, sink=sink)


def _within_limits(
    chosen: Chosen, machine: Machine, request: TaskRequest, *, reachable: bool | None, sink: Sink
) -> Chosen:
    """Those that the limits leave; ``reachable``: whether the hub answers, None: nobody asked yet."""
    found, limits = chosen.candidates, request.limits
    downloads = _downloads(found, reachable=reachable, offline=request.offline)
    facts = [facts_of(one, download_bytes=downloads.get(one.id)) for one in found]
    kept, excluded = within(facts, limits=replace(limits, max_latency=None), machine=machine)
    out = {one.candidate: one.reason for one in excluded} | _far_too_slow(kept, limits, machine)
    if out:
        named = "; ".join(f"{name}: {reason}" for name, reason in list(out.items())[:_NAMED])
        more = "; ..." if len(out) > _NAMED else ""
        sink(Notice(text=f"{plural(len(out), 'candidate')} kept out by limits: {named}{more}"))
        found = tuple(one for one in found if one.id not in out)
        if not found:
            raise CandidateError(f"the limits leave no candidate: raise one, or name others, but got {named}{more}")
    _tell_downloads(found, downloads, sink=sink)
    return replace(chosen, candidates=found, failures={**chosen.failures, **out}, downloads=downloads)


def _downloads(found: Sequence[Candidate], *, reachable: bool | None, offline: bool) -> dict[str, int]:
    """Bytes that each candidate would still download, as far as its cache and a hub that answers tell."""
    here = sizes(found, ask=False)
    if offline or all(one.id in here for one in found):
        return here
    return sizes(found) if (is_reachable() if reachable is None else reachable) else here


def _tell_downloads(found: Sequence[Candidate], downloads: Mapping[str, int], *, sink: Sink) -> None:
    """The plan in gigabytes before the first byte; nothing where there is no such candidate, or no hub tells."""
    remote = [one.id for one in found if one.path is None]
    wanted = [downloads[name] for name in remote if downloads.get(name)]
    unknown = sum(name not in downloads for name in remote)
    cached = len(remote) - len(wanted) - unknown
    if wanted or cached:
        text = plan_text(download_bytes=sum(wanted), models=len(wanted), cached=cached, unknown=unknown)
        sink(Notice(text=f"{text}{'; a model is downloaded when it is screened' if wanted else ''}"))


def _far_too_slow(kept: Sequence[Facts], limits: Limits, machine: Machine) -> dict[str, str]:
    """Whose predicted latency is beyond all doubt; who is near the limit is judged once somebody was timed."""
    most = limits.max_latency
    slow = {}
    for facts in kept:
        seconds = embedding_seconds(facts, images=1, machine=machine)
        if most is not None and seconds is not None and seconds > _DOUBT * most:
            slow[facts.candidate] = (
                f"{milliseconds(seconds)} an image, as predicted, are far above --max-latency {milliseconds(most)}"
            )
    return slow
