"""Sinks: plain lines, the live screen on a real pseudo-terminal, never raising, never slow."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from helpers.report_world import make_ranking, make_trial
from vlmsel_auto.events import (
    DownloadProgress,
    Notice,
    RankingReady,
    StageFinished,
    StageProgress,
    StageStarted,
    TrialEpoch,
    TrialFinished,
    TrialStarted,
)
from vlmsel_auto.records import Budget
from vlmsel_auto.reporting.board import Board, remaining, status, update
from vlmsel_auto.reporting.formatting import clean, clock, describe, duration, number, plan_text, plural, sparkline
from vlmsel_auto.reporting.live_screen import chosen_rows, render
from vlmsel_auto.reporting.progress import PlainSink, RichSink


def spec(candidate="ViT-Mi-8-64.all-l"):
    return make_trial(0, candidate, method="finetune").spec


def result(number, validation=0.9, state="complete", candidate="ViT-Mi-8-64.all-l"):
    known = {"validation": validation, "test": validation - 0.02} if state == "complete" else {}
    trial = make_trial(number, candidate, state=state, method="finetune", **known)
    return replace(trial, seconds=12.0, reason="" if state == "complete" else "ran out of memory")


def ranking(count=20):
    return make_ranking([f"candidate-{place:02d}" for place in range(count)])


def story(trials=6):
    yield StageStarted(stage="images", total=100)
    yield StageProgress(stage="images", done=50)
    yield StageFinished(stage="images", seconds=1.5, text="100 read")
    yield Notice(text="3 files were left out", level="warning")
    yield RankingReady(ranking=ranking())
    yield StageStarted(stage="trials", total=trials)
    leader = None
    for number_ in range(trials):
        yield TrialStarted(number=number_, spec=spec(f"candidate-{number_:02d}"), why=f"predicted rank {number_ + 1}")
        for epoch in range(1, 4):
            yield TrialEpoch(number=number_, epoch=epoch, epochs=4, validation=0.5 + 0.1 * epoch, loss=1.0 / epoch)
        state = "failed" if number_ == 2 else "complete"
        finished = result(number_, 0.8 + 0.01 * number_, state, f"candidate-{number_:02d}")
        leader = finished if state == "complete" else leader
        yield TrialFinished(result=finished, leader=leader)
        yield StageProgress(stage="trials", done=number_ + 1)
    yield RankingReady(ranking=ranking(), updated=True)


def board(events, *, at=10.0, budget=None):
    made = Board(started=0.0, budget=Budget() if budget is None else budget)
    for index, event in enumerate(events):
        update(made, event, at * index / 50)
    return made


def drawn(made, *, width=80, height=24, now=20.0):
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    console.print(render(made, now=now, width=width, height=height))
    return console.file.getvalue().splitlines()


# plain lines


def test_plain_sink_writes_one_line_an_event_with_the_time():
    ticks = iter(float(tick) for tick in range(0, 10_000, 10))
    stream = io.StringIO()
    sink = PlainSink(stream=stream, now=lambda: next(ticks))
    events = list(story(2))
    with sink as opened:
        assert opened is sink
        for event in events:
            sink(event)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(events)
    assert all(re.match(r"\[ *\d+:\d\d(:\d\d)?\] \S", line) for line in lines)
    assert "images: started (100 steps)" in lines[0]
    assert describe(StageStarted(stage="images", total=1)) == "images: started (1 step)"
    assert "images: 50 of 100" in lines[1]
    assert "warning: 3 files were left out" in lines[3]
    assert "trial 1 candidate-01 fine-tuning: validation 81.0 %, test 79.0 % (after 12 s, leading)" in (
        stream.getvalue()
    )


def test_plain_sink_thins_out_fast_progress_but_never_the_last_epoch():
    now = [0.0]
    stream = io.StringIO()
    sink = PlainSink(stream=stream, now=lambda: now[0])
    for done in range(1100):
        now[0] += 0.01
        sink(StageProgress(stage="images", done=done))
        sink(TrialEpoch(number=1, epoch=done + 1, epochs=1100, validation=0.5, loss=1.0))
    lines = stream.getvalue().splitlines()
    assert sum("images" in line for line in lines) == 2  # in eleven seconds, one each five
    assert 10 <= sum("epoch" in line for line in lines) <= 12
    assert "epoch 1100 of 1100" in lines[-1]


def download(done, *, candidate="ViT-B-32/openai", ended=False, rate=11.2e6):
    return DownloadProgress(candidate=candidate, done=done, total=605_000_000, rate=rate, ended=ended)


def test_plain_sink_tells_a_download_every_five_seconds_and_its_end():
    now = [0.0]
    stream = io.StringIO()
    sink = PlainSink(stream=stream, now=lambda: now[0])
    for quarter in range(44):
        now[0] += 0.25
        sink(download(quarter * 4_000_000))
    sink(download(605_000_000, ended=True))
    sink(download(1_000_000, candidate="RN50/openai", ended=True))
    lines = [line.split("] ")[1] for line in stream.getvalue().splitlines()]
    assert len(lines) == 4
    assert lines[0] == "download of ViT-B-32/openai: 76.0 MB of 605 MB, 11.2 MB/s"
    assert lines[2] == "download of ViT-B-32/openai: 605 MB of 605 MB, 11.2 MB/s, done"
    assert lines[3] == "download of RN50/openai: 1.00 MB of 605 MB, 11.2 MB/s, broken off"


def test_screen_shows_a_download_until_it_ends():
    made = board([*story(), download(0, rate=None), download(121_000_000)])
    (line,) = [line for line in drawn(made, width=100) if "download" in line]
    assert "121 MB of 605 MB, 11.2 MB/s  ViT-B-32/openai" in line
    assert not any("download" in line for line in drawn(made, height=2))
    update(made, download(300_000_000, ended=True), 11.0)
    assert not any("download" in line for line in drawn(made))


def test_plain_sink_breaks_a_silence_with_what_is_being_done():
    stream = io.StringIO()
    with PlainSink(stream=stream, budget=Budget(seconds=600), silence=0.2) as sink:
        for event in story(2):
            sink(event)
        sink(TrialStarted(number=2, spec=spec("candidate-07")))
        sink(TrialEpoch(number=2, epoch=1, epochs=4, validation=0.6, loss=1.0))
        time.sleep(1.0)
    told = [line.split("] ")[1] for line in stream.getvalue().splitlines() if "runs for" in line]
    assert 2 <= len(told) <= 5
    assert re.fullmatch(
        r"trial 2 of candidate-07 by fine-tuning runs for 0\.\d s, epoch 1 of 4 done, about \d\.\d s left; "
        r"(10 min 00 s|9 min 59 s) of the budget left; leading: candidate-01, fine-tuning: validation 81.0 %; "
        r"the best of 20 with 25 %",
        told[0],
    )


def test_status_names_the_stage_while_no_trial_runs():
    made = Board(started=0.0)
    assert status(made, 1.0) == "getting ready for 1.0 s"
    update(made, StageStarted(stage="screenings", total=20), 1.0)
    update(made, StageProgress(stage="screenings", done=5, text="RN50/openai"), 11.0)
    assert status(made, 21.0) == "screenings for 20 s, 5 of 20, RN50/openai, about 1:00 left"
    update(made, StageFinished(stage="screenings", seconds=80.0), 81.0)
    assert status(made, 82.0) == ""


def test_a_trial_without_epochs_shows_none():
    made = board([TrialStarted(number=0, spec=replace(spec(), epochs=0))])
    assert not any("epoch" in line for line in drawn(made))


def test_quiet_sink_tells_warnings_and_errors_only():
    stream = io.StringIO()
    sink = PlainSink(stream=stream, quiet=True)
    for event in [*story(), Notice(text="hello"), Notice(text="bad", level="error")]:
        sink(event)
    assert [line.split("] ")[1] for line in stream.getvalue().splitlines()] == [
        "warning: 3 files were left out",
        "error: bad",
    ]


class Broken(io.StringIO):
    def write(self, text):
        raise OSError("disk full")


def test_sinks_never_raise():
    PlainSink(stream=Broken())(Notice(text="x"))
    sink = RichSink(console=Console(file=Broken(), force_terminal=True, width=80, height=24))
    with sink:
        for event in story():
            sink(event)
    with RichSink(console=Console(file=io.StringIO(), force_terminal=True)) as other:
        other("not an event")


# the screen


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 12), (20, 5), (200, 60), (10, 2), (1, 1)])
@pytest.mark.parametrize("upto", [1, 2, 5, 8, 20, 100])
def test_screen_fits_every_window(width, height, upto):
    lines = drawn(board(list(story())[:upto], budget=Budget(seconds=60, trials=10)), width=width, height=height)
    assert len(lines) <= max(height, 1)
    assert all(len(line) <= width for line in lines)


def test_only_trials_promise_a_report():
    exporting, tuning = StageStarted(stage="export"), TrialStarted(number=0, spec=spec())
    assert drawn(board([exporting]))[-1].strip() == "20 s so far"
    assert drawn(board([tuning]))[-1].strip() == "20 s so far; Ctrl+C ends with a report"


def test_screen_shows_ranking_trials_running_and_budget():
    events = [*list(story(5))[:-1], TrialStarted(number=5, spec=spec("candidate-07"), why="sampled"),
              TrialEpoch(number=5, epoch=1, epochs=4, validation=0.61, loss=1.0),
              TrialEpoch(number=5, epoch=2, epochs=4, validation=0.64, loss=0.9)]  # fmt: skip
    text = "\n".join(drawn(board(events, budget=Budget(seconds=60, trials=10)), width=100, height=40))
    assert "Ranking of 20 candidates" in text
    assert "5 trials finished, 1 failed" in text
    assert re.search(r"★ 4 +candidate-04", text)
    assert "trial 5  candidate-07  fine-tuning, sampled" in text
    assert re.search(r"epoch 2/4  ▁█ 64.0 %, best 64.0 %  \d+ s, about \d+ s left", text)
    assert re.search(r"leading +candidate-04, fine-tuning: validation 84.0 %; the best of 20 with 10 %", text)
    assert "20 s of 1 min 00 s, 40 s left, 5 of 10 trials" in text


def test_best_trial_stays_on_the_screen_when_older_ones_scroll():
    trials = [result(0, 0.99), *(result(number_, 0.5) for number_ in range(1, 30))]
    rows = chosen_rows(trials, trials[0], 5)
    assert [row.number for row in rows] == [0, 26, 27, 28, 29]
    assert chosen_rows(trials, trials[0], 0) == []


def test_trials_count_as_steps_of_their_stage():
    events = [StageStarted(stage="trials", total=4), *(TrialFinished(result=result(n)) for n in range(3))]
    assert board(events).stages["trials"].done == 3


def test_a_resumed_trial_is_not_listed_twice():
    made = board([TrialFinished(result=result(3), resumed=True), TrialFinished(result=result(3))])
    assert len(made.trials) == 1


def test_remaining_time_follows_the_recent_pace():
    made = Board(started=0.0)
    update(made, StageStarted(stage="images", total=200), 0.0)
    line = made.stages["images"]
    assert remaining(line, 5.0) is None
    update(made, StageProgress(stage="images", done=50), 10.0)
    assert remaining(line, 10.0) == pytest.approx(30.0)
    for done in range(51, 101):
        update(made, StageProgress(stage="images", done=done), 10.0 + (done - 50))  # slower: one a second
    assert remaining(line, 60.0) == pytest.approx(100.0, rel=0.05)
    update(made, StageStarted(stage="library", total=None), 0.0)
    assert remaining(made.stages["library"], 5.0) is None


def test_many_events_cost_little():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    with RichSink(console=console) as sink:
        start = time.process_time()
        for done in range(20_000):
            sink(StageProgress(stage="images", done=done))
        spent = time.process_time() - start
    assert spent < 2.0  # 0.1 ms an event, drawing in the other thread included


def test_sink_takes_events_from_several_threads():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    with RichSink(console=console) as sink:
        threads = [threading.Thread(target=lambda: [sink(event) for event in story(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "\x1b[?25h" in console.file.getvalue()


SCRIPT = """
import sys, time
from vlmsel_auto.events import *
from vlmsel_auto.reporting.progress import RichSink
try:
    with RichSink() as sink:
        sink(StageStarted(stage="images", total=100))
        for done in range(1000):
            sink(StageProgress(stage="images", done=done % 100))
            print("READY", flush=True) if done == 3 else None
            time.sleep(0.05)
except KeyboardInterrupt:
    print("INTERRUPTED", flush=True)
    sys.exit(130)
"""


def read_until(descriptor, wanted, seconds=60.0):
    text = b""
    end = time.monotonic() + seconds
    while wanted not in text and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                text += os.read(descriptor, 65536)
            except OSError:  # the other end is closed
                break
    return text


def test_ctrl_c_leaves_a_clean_terminal():
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    try:
        shown = read_until(leader, b"READY") + read_until(leader, b"left")
        child.send_signal(signal.SIGINT)
        after = read_until(leader, b"INTERRUPTED")
        assert child.wait(30) == 130
    finally:
        child.kill()
        os.close(leader)
    assert b"images" in shown
    assert b"\x1b[?25l" in shown  # cursor hidden
    assert b"\x1b[?25h" in after  # and shown again
    assert b"Traceback" not in after
    assert after.index(b"\x1b[?25h") < after.index(b"INTERRUPTED")


# formatting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.97, "10 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3600, "1 h 00 min"),
     (3900, "1 h 05 min"), (None, "-"), (float("nan"), "-"), (-1.0, "0.0 s")],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_small_words():
    assert clock(12) == "0:12"
    assert clock(3723) == "1:02:03"
    assert number(-0.001) == "0.00"
    assert number(-0.5) == "-0.50"
    assert [plural(1, "class"), plural(2, "class"), plural(1200, "image")] == ["1 class", "2 classes", "1,200 images"]
    assert [plural(3, "epoch"), plural(2, "batch")] == ["3 epochs", "2 batches"]


def test_a_plan_of_downloads_is_one_line():
    whole = plan_text(download_bytes=2_100_000_000, models=4, cached=2, unknown=1)
    assert whole == (
        "up to 2.10 GB to download for 4 models, 2 lie in the cache, of 1 model the hub does not tell the size"
    )
    assert plan_text(download_bytes=0, models=0, cached=1, unknown=0) == "nothing to download, 1 lies in the cache"
    assert plan_text(download_bytes=0, models=0, cached=0, unknown=3) == "of 3 models the hub does not tell the size"


def test_sparkline_spans_its_own_range():
    assert sparkline([0.0, 0.5, 1.0], width=10) == "▁▅█"
    assert sparkline([0.3, 0.3], width=10) == "▅▅"
    assert sparkline([0.0, 1.0, 0.5, 1.0], width=2) == "▁█"
    assert sparkline([float("nan")], width=5) == ""
    assert sparkline([1.0], width=0) == ""


@given(st.text())
def test_cleaned_text_cannot_steer_a_terminal(text):
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert "\n" not in cleaned
    assert clean(cleaned) == cleaned


def test_every_event_has_one_line():
    events = list(story())
    assert all("\n" not in describe(event) and describe(event) for event in events)
    assert "trial 2 candidate-02 fine-tuning: failed: ran out of memory" in "".join(map(describe, events))
    pruned = replace(result(1, state="pruned"), reason="pruned after 1 of 4 epochs: others were better")
    assert "fine-tuning: pruned after 1 of 4 epochs: others were better (" in describe(TrialFinished(result=pruned))
    assert "in an earlier run" in describe(TrialFinished(result=result(1), resumed=True))
    assert describe(RankingReady(ranking=ranking(0))).endswith("none could be ranked")


def test_plain_sink_defaults_to_standard_error(capsys):
    PlainSink()(Notice(text="to stderr"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "to stderr" in captured.err


def test_module_is_light():
    heavy = "[m for m in ('torch', 'matplotlib') if m in sys.modules]"
    code = f"import sys; from vlmsel_auto.reporting import progress; print({heavy})"
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert ran.stdout.strip() == "[]"
