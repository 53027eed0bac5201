"""Numbers and events as short text for people: terminal, log lines and report. Pure functions, no colour, no I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from vlmsel_auto import events
from vlmsel_auto.records import TrialResult, TrialSpec
from vlmsel_auto.tuning.methods import label_of
from vlmsel_auto.units import DASH, byte_count, percent

_SHORT = {"learning_rate": "lr", "weight_decay": "decay", "augmentation": "augment"}
_MINUTE, _HOUR = 60, 3600
_BARS = "▁▂▃▄▅▆▇█"


def clean(text: str) -> str:
    """``text`` on one line and without control characters: a file name must not be able to steer a terminal."""
    return "".join(" " if c in "\n\r\t" else c if c.isprintable() else "�" for c in text)


def shorten(label: str, most: int) -> str:
    """``label``, clean, its middle left out where it is long: both ends of a model's name tell models apart."""
    label = clean(label)
    if len(label) <= most:
        return label
    head = (most - 1) // 2
    return f"{label[:head]}…{label[-(most - 1 - head) :]}"


def plural(count: int, noun: str) -> str:
    """``1 image``, ``1,200 images``; nouns in -ss, -tch and -x take -es."""
    ending = "" if count == 1 else "es" if noun.endswith(("ss", "tch", "x")) else "s"
    return f"{count:,} {noun}{ending}"


def quoted(texts: Sequence[str]) -> str:
    """``"one", "two"``, each in the quotation marks that it does not hold."""
    return ", ".join(f"'{one}'" if '"' in one else f'"{one}"' for one in texts)


def duration(seconds: float | None) -> str:
    """Seconds as ``0.4 s``, ``12 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 9.95:  # noqa: PLR2004 - below this one decimal says something
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        minutes, rest = divmod(whole, _MINUTE)
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / _MINUTE), _MINUTE)
    return f"{hours} h {minutes:02d} min"


def clock(seconds: float) -> str:
    """Seconds as ``0:12`` or ``1:02:03``."""
    minutes, rest = divmod(int(max(seconds, 0.0)), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def number(value: float | None, *, digits: int = 2) -> str:
    """``value`` with ``digits`` decimals; unknown as a dash."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def download_text(event: events.DownloadProgress) -> str:
    """How far a download is: ``120 MB of 605 MB, 11.2 MB/s``."""
    of = "" if event.total is None else f" of {byte_count(event.total)}"
    return f"{byte_count(event.done)}{of}" + ("" if event.rate is None else f", {byte_count(event.rate)}/s")


def plan_text(*, download_bytes: int, models: int, cached: int, unknown: int) -> str:
    """What may be downloaded: ``up to 2.1 GB to download for 4 models, 2 lie in the cache``."""
    parts = [f"up to {byte_count(download_bytes)} to download for {plural(models, 'model')}"] if models else []
    parts += [] if models or unknown else ["nothing to download"]
    parts += [f"{cached} {'lies' if cached == 1 else 'lie'} in the cache"] if cached else []
    parts += [f"of {plural(unknown, 'model')} the hub does not tell the size"] if unknown else []
    return ", ".join(parts)


def sparkline(values: Sequence[float], *, width: int) -> str:
    """The last ``width`` finite values as block characters, scaled to their own range."""
    kept = [value for value in values if math.isfinite(value)][-width:] if width > 0 else []
    if not kept:
        return ""
    low, high = min(kept), max(kept)
    if high == low:
        return _BARS[len(_BARS) // 2] * len(kept)
    top = len(_BARS) - 1
    return "".join(_BARS[round(top * (value - low) / (high - low))] for value in kept)


def spec_text(spec: TrialSpec) -> str:
    """Candidate, method and settings of a trial on one line."""
    parts = [f"{_SHORT.get(name, name)} {value:.2g}" for name, value in spec.settings.items()]
    if spec.epochs:
        parts.append(plural(spec.epochs, "epoch"))
    what = f"{clean(spec.candidate)}, {label_of(spec.method)}"
    return f"{what} ({', '.join(parts)})" if parts else what


def outcome(result: TrialResult) -> str:
    """What became of a trial: ``validation 93.4 %, test 92.0 %`` or ``failed: reason``."""
    if result.state == "complete":
        test = "" if result.test is None else f", test {percent(result.test)}"
        return f"validation {percent(result.validation)}{test}"
    reason = clean(result.reason)
    if result.state == "pruned" and not result.out_of_time:
        return reason or result.state  # "pruned after 3 of 9 epochs: ..."
    return f"{result.state}: {reason}" if reason else result.state


def _trial_line(event: events.TrialFinished) -> str:
    result = event.result
    if event.leader is None:
        best = ""
    else:
        best = ", leading" if event.leader.number == result.number else f", leading is trial {event.leader.number}"
    when = "in an earlier run" if event.resumed else f"after {duration(result.seconds)}"
    return (
        f"trial {result.number} {clean(result.spec.candidate)} {label_of(result.spec.method)}: "
        f"{outcome(result)} ({when}{best})"
    )


def _ranking_line(event: events.RankingReady) -> str:
    leaders = ", ".join(
        f"{place} {clean(line.candidate)} (best with {percent(line.p_best, digits=0)})"
        for place, line in enumerate(event.ranking.ranked[:3], start=1)
    )
    count = plural(len(event.ranking.ranked), "candidate")
    return f"ranking {'updated' if event.updated else 'ready'}: {count}; {leaders or 'none could be ranked'}"


def describe(event: events.Event, *, total: int | None = None) -> str:  # noqa: C901, PLR0911 - one case per event type
    """One plain line for any event; ``total`` is the number of steps of a stage in progress, where known."""
    match event:
        case events.StageStarted():
            steps = "" if event.total is None else f" ({plural(event.total, 'step')})"
            return f"{event.stage}: started{steps}{_tail(event.text)}"
        case events.StageProgress():
            return f"{event.stage}: {event.done:,} {'done' if total is None else f'of {total:,}'}{_tail(event.text)}"
        case events.StageFinished():
            return f"{event.stage}: finished in {duration(event.seconds)}{_tail(event.text)}"
        case events.RankingReady():
            return _ranking_line(event)
        case events.TrialStarted():
            return f"trial {event.number} started: {spec_text(event.spec)}{_tail(event.why)}"
        case events.TrialEpoch():
            return (
                f"trial {event.number}: epoch {event.epoch} of {event.epochs}, "
                f"validation {percent(event.validation)}, loss {number(event.loss, digits=3)}"
            )
        case events.TrialFinished():
            return _trial_line(event)
        case events.ReportWritten():
            return f"report written to {clean(str(event.directory))}"
        case events.DownloadProgress():
            end = "" if not event.ended else ", done" if event.done == event.total else ", broken off"
            return f"download of {clean(event.candidate)}: {download_text(event)}{end}"
        case events.Notice():
            prefix = "" if event.level == "info" else f"{event.level}: "
            return f"{prefix}{clean(event.text)}"
    assert_never(event)


def _tail(text: str) -> str:
    return f", {clean(text)}" if text else ""
