"""The command line: help, exit codes, one JSON object on standard output, commands on real files."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from helpers.cell_world import cell
from helpers.exported_world import export_member
from helpers.loopback_hub import loopback_hub
from helpers.report_world import make_report
from helpers.source_packs import serve_source
from vlmsel_auto.cli.app import app, main
from vlmsel_auto.cli.support import Answer, guarded, make_sink
from vlmsel_auto.errors import InputError, MissingDependency, TaskError, TrialDiverged, TrialUnavailable
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.file import save as save_library
from vlmsel_auto.pipeline.result import RankResult, SearchResult
from vlmsel_auto.reporting.progress import PlainSink
from vlmsel_auto.units import parse_duration

MEMBER = "ViT-Mi-16-64.all-m"


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def command_line(*arguments, timeout=300, **environment):
    return subprocess.run(
        [sys.executable, "-m", "vlmsel_auto", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )


def one_object(text):
    """The only JSON object of ``text``; NaN is no JSON."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def paint(folder, *, count=6, seed=0, side=40):
    """Three classes of noisy colours as DIR/CLASS/*.png."""
    rng = np.random.default_rng(seed)
    for name, colour in {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(-25, 25, (side, side, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


# help


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ((), ["search", "rank", "zoo", "library", "report", "predict", "demo"]),
        (
            ("search",),
            ["--candidates", "--top-k", "--time-budget", "--max-trials", "--method", "--shots", "--seed", "--workdir",
             "--library", "--device", "--storage", "--json", "--quiet", "--no-learn", "--debug",
             "--ensemble", "--price", "--workers", "--ray",
             "inside the work directory"],
        ),
        (("rank",), ["--candidates", "--shots", "--seed", "--library", "--top", "--json"]),
        (
            ("zoo",),
            ["--candidates", "--max-params", "--max-download", "--max-memory", "--max-latency",
             "--image-size", "--licence", "--bandwidth", "--json"],
        ),
        (("report",), ["--open", "--json"]),
        (("predict",), ["--json", "--top", "--output"]),
        (("demo",), ["--workdir", "--json"]),
        (("library",), ["build", "add", "list", "merge", "sources"]),
        (("library", "sources"), ["--json"]),
        (("library", "build"), ["--out", "--leave-out", "--jobs", "--json"]),
    ],
)  # fmt: skip
def test_help_names_every_option(command, options, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    for flag in ("--help", "-h"):
        result = run(*command, flag)
        assert result.exit_code == 0
        assert all(option in result.stdout for option in options), result.stdout


@pytest.mark.parametrize(("given", "wanted"), [(None, "10000"), ("7", "7")])
def test_waiting_threads_do_not_spin_for_long_unless_the_user_says_so(monkeypatch, given, wanted):
    if given is None:
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    else:
        monkeypatch.setenv("GOMP_SPINCOUNT", given)
    monkeypatch.setattr(sys, "argv", ["vlmsel-auto", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ["GOMP_SPINCOUNT"] == wanted


def test_help_is_quick_and_loads_nothing_heavy():
    heavy = ("torch", "numpy", "open_clip", "lightning", "optuna", "matplotlib", "scipy", "sklearn")
    code = f"""
import sys
from vlmsel_auto.cli.app import main
sys.argv = ["vlmsel-auto", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
print([name for name in {heavy!r} if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    before = os.times()
    subprocess.run([sys.executable, "-m", "vlmsel_auto", "--help"], check=True, capture_output=True)
    after = os.times()
    # processor time: the machine that runs the tests may be busy
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.8


@pytest.mark.parametrize("command", ["search", "rank"])
@pytest.mark.parametrize("mistake", ["folder", "candidate"])
def test_a_mistake_is_told_before_torch_is_loaded(command, mistake, tmp_path):
    paint(tmp_path / "task")
    folder, name = (tmp_path / "missing", "mini-zoo") if mistake == "folder" else (tmp_path / "task", "ViT-Mi-8.all")
    code = f"""
import sys
from vlmsel_auto.cli.app import main
sys.argv = ["vlmsel-auto", {command!r}, {str(folder)!r}, "--candidates", {name!r}]
try:
    main()
except SystemExit as end:
    assert end.code == 2, end.code
print([name for name in ("torch", "open_clip", "optuna") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert len(ran.stderr.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["task"]


def test_version():
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("vlmsel-auto ")


@pytest.mark.parametrize(
    "arguments",
    [("search",), ("rank", "--shots", "0", "x"), ("search", "x", "--method", "magic"), ("nothing",), ("predict", "x")],
)
def test_wrong_usage_ends_with_2(arguments):
    assert run(*arguments).exit_code == 2


# exit codes


def ended_with(error, *, as_json=False, debug=False):
    small = typer.Typer()

    @small.command()
    def work():
        with guarded(Answer(as_json=as_json), debug=debug) as answer:
            print("noise from a library")  # noqa: T201 - as a careless library would
            answer.json = {"value": 1.5, "missing": float("nan"), "list": [float("inf"), 2]}
            if error is not None:
                raise error

    return CliRunner().invoke(small, [])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (InputError("wrong, but got 'x'"), 2),
        (TaskError("no images, but got 'x'"), 2),
        (MissingDependency("install vlmsel-auto[parquet]"), 2),
        (PermissionError(13, "Permission denied", "closed/x"), 2),
        (OSError(28, "No space left on device"), 2),
        (KeyboardInterrupt(), 130),
        (RuntimeError("boom"), 1),
        (TrialDiverged("nan"), 1),
        (TrialUnavailable("damaged weights"), 2),
    ],
)
def test_errors_become_exit_codes_and_one_line(error, code):
    result = ended_with(error)
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == (0 if error is None else 1)
    if isinstance(error, InputError):
        assert result.stderr == f"error: {error}\n"


def test_unexpected_error_is_kept_in_the_log_and_shown_with_debug():
    result = ended_with(RuntimeError("boom"))
    log = Path(os.environ["VLMSEL_CACHE"]) / "logs" / "vlmsel-auto.log"
    assert str(log) in result.stderr
    assert "Traceback" in log.read_text("utf-8")
    assert "RuntimeError: boom" in log.read_text("utf-8")
    shown = ended_with(RuntimeError("boom"), debug=True)
    assert shown.exit_code == 1
    assert "Traceback" in shown.stderr


def test_a_log_that_cannot_be_written_stops_nothing_and_is_not_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLMSEL_CACHE", str(tmp_path / "file" / "cache"))  # as below a home that is read-only
    ran = subprocess.run([sys.executable, "-c", NOISY], check=True, capture_output=True, text=True)
    assert one_object(ran.stdout) == {"a": 1}
    result = ended_with(RuntimeError("boom"))
    assert result.exit_code == 1
    assert result.stderr == "error: RuntimeError: boom (for details run again with --debug)\n"


def test_a_command_that_needs_no_home_does_without(monkeypatch):
    for name in ("VLMSEL_CACHE", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a number that has no name, as in a container
    assert ended_with(None, as_json=True).exit_code == 0
    assert ended_with(RuntimeError("boom")).stderr.endswith("(for details run again with --debug)\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_on_a_full_disk_stops_nothing_and_is_not_named():
    log = Path(os.environ["VLMSEL_CACHE"]) / "logs" / "vlmsel-auto.log"
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    result = ended_with(RuntimeError("boom"))
    assert result.exit_code == 1
    assert result.stderr == "error: RuntimeError: boom (for details run again with --debug)\n"


def test_an_input_error_writes_nothing_at_all():
    ended_with(InputError("wrong, but got 'x'"))
    assert not Path(os.environ["VLMSEL_CACHE"]).exists()


def test_json_is_the_only_thing_on_stdout():
    result = ended_with(None, as_json=True)
    assert one_object(result.stdout) == {"value": 1.5, "missing": None, "list": [None, 2]}
    assert "noise from a library" in result.stderr
    assert ended_with(InputError("x, but got 'x'"), as_json=True).stdout == ""


NOISY = """
import os, subprocess, sys, warnings
from vlmsel_auto.cli.support import Answer, guarded
import typer
app = typer.Typer()
@app.command()
def work(slow: bool = False):
    with guarded(Answer(as_json=True)) as answer:
        print("python")
        os.write(1, b"descriptor\\n")
        subprocess.run(["echo", "child"], check=True)
        warnings.warn("a warning of a library")
        if slow:
            import time
            print("READY", file=sys.stderr, flush=True)
            time.sleep(60)
        answer.json = {"a": 1}
app()
"""


def test_json_survives_writers_below_python():
    ran = subprocess.run([sys.executable, "-c", NOISY], check=True, capture_output=True, text=True)
    assert one_object(ran.stdout) == {"a": 1}
    assert [word for word in ("python", "descriptor", "child") if word not in ran.stderr] == []
    assert "a warning of a library" not in ran.stderr
    log = Path(os.environ["VLMSEL_CACHE"]) / "logs" / "vlmsel-auto.log"
    assert "a warning of a library" in log.read_text("utf-8")


CLOSED = """
import os, sys
sys.argv = ["vlmsel-auto", "--version"]
from vlmsel_auto.cli.app import main
try:
    main()
finally:
    file = open("told", "w")
    file.write(f"{file.fileno()} {sys.stdin.read()!r} {sys.stderr.isatty()} {os.get_inheritable(2)}")
    os.write(2, b"what a library writes")
"""


def test_streams_that_the_caller_closed_are_nowhere_and_no_file_takes_their_place(tmp_path):
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", CLOSED]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    number, rest = (tmp_path / "told").read_text().split(maxsplit=1)
    assert int(number) > 2
    assert rest == "'' False True"


ABROAD = """
from vlmsel_auto.cli.support import Answer, guarded, open_streams
import typer
app = typer.Typer()
@app.command()
def work(as_json: bool = False):
    with guarded(Answer(as_json=as_json)) as answer:
        answer.json = {"café": "žlutý kůň"}
    if not as_json:
        print("café, žlutý kůň")
open_streams()
app()
"""


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "caf\\xe9, \\u017elut"),
        ("ascii:surrogateescape", "caf\\xe9, \\u017elut"),
        ("latin-1", "café, \\u017elut"),
    ],
)
def test_what_the_encoding_lacks_is_escaped_and_json_is_json(encoding, shown, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    ran = [
        subprocess.run([sys.executable, "-c", ABROAD, *more], check=True, capture_output=True)
        for more in ((), ("--as-json",))
    ]
    assert ran[0].stdout.decode(encoding.split(":")[0]).startswith(shown)
    assert json.loads(ran[1].stdout.decode("utf-8")) == {"café": "žlutý kůň"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_answer_that_finds_a_full_disk_is_one_line(unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run([sys.executable, "-c", NOISY], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("error: a file cannot be read or written: give rights, free space")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_with_130(number):
    child = subprocess.Popen(
        [sys.executable, "-c", NOISY, "--slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while "READY" not in child.stderr.readline():
            assert child.poll() is None
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "interrupted: the same command begins anew"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("10min", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1h 30m 5s", 5405),
        ("1d", 86400),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "10x", "-5", "0", "nan", "inf", "1h30", "m"])
def test_durations_that_are_none(text):
    with pytest.raises(InputError, match="but got"):
        parse_duration(text)


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_lines_are_plain_off_a_terminal(variable, monkeypatch):
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    for quiet in (False, True):
        with make_sink(quiet=quiet) as sink:
            assert isinstance(sink, PlainSink)


# commands on real files


@pytest.mark.slow
def test_bench_as_json():
    done = run("bench", "--truth", "zeroshot", "--shots", "0", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    rows = {row["ranking"]: row for row in one_object(done.stdout)["rows"]}
    assert rows["average_rank"]["ndcg5"] < rows["dcd"]["ndcg5"] < rows["fused"]["ndcg5"]


def test_unknown_candidate_is_one_line():
    result = run("zoo", "-c", "ViT-Mi-16-64.all-n")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert MEMBER in result.stderr  # the suggestion
    other = run("zoo", "-c", "nope").stderr
    assert "did you mean" not in other
    assert "zoo -c all" in other


@pytest.mark.parametrize(("resumes", "kept"), [(True, "the same command goes on"), (False, "begins anew")])
def test_only_a_command_that_keeps_its_work_promises_to_go_on(resumes, kept, capsys):
    with pytest.raises(typer.Exit), guarded(Answer(), resumes=resumes):
        raise KeyboardInterrupt
    assert kept in capsys.readouterr().err


@pytest.fixture(scope="module")
def sample():
    return make_report()


def test_report_renders_again(tmp_path, sample):
    from vlmsel_auto.reporting.report import save_json

    save_json(sample, tmp_path / "report")
    result = run("report", tmp_path)
    assert result.exit_code == 0, result.output
    assert "ConvNeXt-Mi-64.all-m" in result.stdout
    assert (tmp_path / "report" / "report.html").read_text("utf-8").startswith("<!doctype html>")
    as_json = run("report", tmp_path / "report" / "report.json", "--json")
    assert one_object(as_json.stdout)["best"]["candidate"] == "ConvNeXt-Mi-64.all-m"
    missing = run("report", tmp_path / "nowhere")
    assert missing.exit_code == 2
    assert "but got" in missing.stderr


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A mini-zoo member with its zero-shot head, exported."""
    return export_member(MEMBER, tmp_path_factory.mktemp("export") / "model", classes=("blue", "green", "red"))


def test_predict_as_json_table_and_csv(exported, tmp_path):
    images = paint(tmp_path / "images", count=2)
    (images / "red" / "broken.png").write_bytes(b"no image")
    result = run("predict", exported, images, "--json", "--output", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    found = one_object(result.stdout)["predictions"]
    assert len(found) == 6
    assert all(abs(sum(each["probabilities"].values()) - 1) < 1e-6 for each in found)
    assert all(each["class"] == max(each["probabilities"], key=each["probabilities"].get) for each in found)
    assert all(each["probability"] == each["probabilities"][each["class"]] for each in found)
    assert "broken.png" in result.stderr
    with (tmp_path / "out.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["predicted"] for row in rows if row["predicted"]] == [each["class"] for each in found]
    table = run("predict", exported, images / "red" / "0.png", "--top", "2")
    assert table.stdout.count("%") == 2


def test_predict_writes_rows_while_they_are_made(exported, tmp_path):
    import pandas as pd

    images = paint(tmp_path / "=images", count=2)
    (images / "red" / "broken.png").write_bytes(b"no image")
    (images / "red" / "1.png").rename(images / "red" / os.fsdecode(b"\xff.png"))
    done = run("predict", exported, images, "--output", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "6 images classified, 1 file left out"
    with (tmp_path / "out.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "predicted", "probability", "note", "p_blue", "p_green", "p_red"]
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png"] * 2 + ["0.png", "broken.png", "?.png"]
    left_out = rows.pop(5)
    assert "cannot identify" in left_out["note"] or "image" in left_out["note"]
    assert {left_out[name] for name in ("predicted", "probability", "p_blue", "p_green", "p_red")} == {""}
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in ("blue", "green", "red")}
        assert row["note"] == ""
        assert row["predicted"] == max(shares, key=shares.get)
        assert float(row["probability"]) == max(shares.values())
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    again = run("predict", exported, images, "--output", tmp_path / "out.parquet", "--top", "2", "--batch-size", "2")
    assert again.exit_code == 0, again.output
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame) == ["path", "predicted", "probability", "note", "predicted_2", "probability_2"]
    assert frame.probability.isna().tolist() == [False] * 5 + [True, False]
    best = frame.dropna()
    assert best.predicted.tolist() == [row["predicted"] for row in rows]
    assert np.allclose(best.probability, [float(row["probability"]) for row in rows], atol=1e-5)
    assert (best.probability > best.probability_2).all()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["=images", "out.csv", "out.parquet"]


def test_predict_leaves_rows_without_a_class_where_it_is_not_sure_enough(exported, tmp_path):
    images = paint(tmp_path / "images", count=2)
    (images / "red" / "broken.png").write_bytes(b"no image")
    for name, colour in (("yellow", (220, 220, 20)), ("white", (255, 255, 255))):
        Image.new("RGB", (40, 40), colour).save(images / "red" / f"{name}.png")
    every = one_object(run("predict", exported, images, "--json").stdout)["predictions"]
    sure = {each["path"] for each in every if each["probability"] >= 0.9}
    assert 1 < len(sure) < 7
    for more in ((), ("--top", "2")):
        done = run("predict", exported, images, "--accuracy", "92%", "-o", tmp_path / "out.csv", *more)
        last = f"{len(sure)} images classified, {8 - len(sure)} images without a class, 1 file left out"
        assert done.stderr.splitlines()[-1] == last
        with (tmp_path / "out.csv").open(encoding="utf-8") as stream:
            rows = {row["path"]: row for row in csv.DictReader(stream) if "broken" not in row["path"]}
        assert {path for path, row in rows.items() if row["predicted"]} == sure
        assert all(("not sure enough" in row["note"]) == (path not in sure) for path, row in rows.items())
    told = one_object(run("predict", exported, images, "--accuracy", ".92", "--json").stdout)["predictions"]
    assert [each["class"] is None for each in told] == [bool(each["doubt"]) for each in told]
    assert "not sure enough" in run("predict", exported, images, "--accuracy", "92%").stdout
    for wrong, why in (("95%", "assure 92.0 % at most"), ("120%", "at most"), ("most", "a share is like")):
        refused = run("predict", exported, images, "--accuracy", wrong)
        assert refused.exit_code == 2
        assert why in refused.stderr


def test_predict_to_standard_output_is_csv_alone(exported, tmp_path, monkeypatch, capfd):
    images = paint(tmp_path / "images", count=2)
    (images / "red" / "=1+1.png").write_bytes(b"no image")
    monkeypatch.chdir(images)
    ran = run("predict", exported, "red", "-o", "-", "--top", "1")
    rows = list(csv.reader(capfd.readouterr().out.splitlines()))
    assert rows[0] == ["path", "predicted", "probability", "note"]
    assert [row[0] for row in rows[1:]] == ["red/0.png", "red/1.png", "red/=1+1.png"]
    assert ran.stderr.splitlines()[-1] == "2 images classified, 1 file left out"
    monkeypatch.chdir("red")
    run("predict", exported, *sorted(path.name for path in Path().iterdir()), "-o", "-", "-q")
    rows = list(csv.reader(capfd.readouterr().out.splitlines()))
    assert [row[0] for row in rows[1:]] == ["0.png", "1.png", "./=1+1.png"]


def test_a_reader_that_has_enough_ends_predict_without_a_word(exported, tmp_path):
    command = [sys.executable, "-m", "vlmsel_auto", "predict", exported, paint(tmp_path / "images", count=40)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "-o", "-", "-q", "--batch-size", "1"], **streams) as child:
        assert child.stdout.readline().startswith("path,")
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 141


def test_predict_leaves_nothing_of_what_it_could_not_finish(exported, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no image")
    failed = run("predict", exported, folder, "-o", tmp_path / "out.csv")
    assert failed.exit_code == 2
    assert "The file is no usable image" in failed.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["images"]
    images = paint(tmp_path / "more", count=1)
    for wrong, said in (
        (tmp_path / "out.txt", "FILE.csv, FILE.parquet or -"),
        (images / "red" / "0.png" / "x.csv", "written here"),
    ):
        refused = run("predict", exported, images, "-o", tmp_path / wrong)
        assert refused.exit_code == 2
        assert said in refused.stderr
    both = run("predict", exported, images, "-o", "-", "--json")
    assert both.exit_code == 2
    assert "but got both" in both.stderr


def test_export_writes_a_file_and_says_what_it_changes(tmp_path):
    images = paint(tmp_path / "images", count=3)
    exported = export_member(
        "EffNet-Mi-64.all-m", tmp_path / "model", classes=("blue", "green", "red")
    )  # a small graph
    done = run("export", exported, "--onnx", tmp_path / "model.onnx", "--half", "--images", images)
    assert done.exit_code == 0, done.output
    assert re.search(r"model\.onnx: [\d.]+ kB, weights in half precision", done.stdout)
    assert re.search(r"on 9 images: 9 in the same class, probabilities differ by at most \d\.\de-\d\d", done.stdout)
    assert re.search(r"accuracy on 9 labelled images: model (\S+ %), file \1", done.stdout)
    as_json = run("export", exported, "--onnx", tmp_path / "whole.onnx", "--json")
    told = one_object(as_json.stdout)
    assert told["file"] == str(tmp_path / "whole.onnx")
    assert told["bytes"] == (tmp_path / "whole.onnx").stat().st_size
    assert told["check"]["largest_difference"] < 1e-4
    missing = run("export", exported, "--onnx", tmp_path / "x.onnx", "--images", tmp_path / "nowhere")
    assert missing.exit_code == 2


def test_predict_on_a_file_whose_name_is_no_utf8(exported, tmp_path):
    images = paint(tmp_path / "images", count=1)
    odd = os.fsdecode(os.fsencode(images / "red") + b"/\xff.png")
    (images / "red" / "0.png").rename(odd)
    ran = run("predict", exported, odd, "--json", "--output", tmp_path / "out.csv")
    assert ran.exit_code == 0, ran.stderr
    assert one_object(ran.stdout)["predictions"][0]["path"] == odd
    assert "red" in (tmp_path / "out.csv").read_text("utf-8")
    assert run("predict", exported, odd).exit_code == 0


def test_predict_refuses_what_is_not_there(exported, tmp_path):
    missing = run("predict", exported, tmp_path / "none.png")
    assert missing.exit_code == 2
    foreign = run("predict", tmp_path, paint(tmp_path / "images", count=1))
    assert foreign.exit_code == 2
    assert len(foreign.stderr.splitlines()) == 1


def test_library_from_images_to_table(tmp_path):
    tasks = tmp_path / "tasks"
    paint(tasks / "colours", count=10)
    paint(tasks / "hues", count=10, seed=1)
    for name in ("colours", "hues"):
        (tasks / name / "task.toml").write_text(f'name = "{name}"\n', "utf-8")
    file = tmp_path / "library.safetensors"
    common = ("--images", "4", "--quiet", "--json", "--device", "cpu")
    built = run("library", "build", tasks / "colours", "--out", file, "-c", MEMBER, *common)
    assert built.exit_code == 0, built.output
    assert one_object(built.stdout) == {"library": str(file), "candidates": 1, "tasks": 1, "failures": []}
    added = run("library", "add", file, tasks, *common)
    told = one_object(added.stdout)
    assert (told["tasks"], told["candidates"]) == (2, 1)  # the library's own candidates
    listed = one_object(run("library", "list", "--library", file, "--json").stdout)
    assert [task["name"] for task in listed["tasks"]] == ["colours", "hues"]
    assert listed["candidates"][0]["profile"] is True
    assert "colours" in run("library", "list", "--library", file).stdout
    other, both = tmp_path / "other.safetensors", tmp_path / "both.safetensors"
    save_library(assemble([cell("a", "birds", classes=3)]), other)
    merged = run("library", "merge", file, other, "--out", both, "--json")
    assert one_object(merged.stdout)["tasks"] == 3
    file.write_bytes(file.read_bytes()[:-10])
    assert run("library", "list", "--library", file).exit_code == 2


def test_library_says_which_figures_are_no_accuracies(tmp_path):
    birds, cars = (cell("a", name, classes=classes, probed=0.6) for name, classes in (("birds", 3), ("cars", 2)))
    birds = replace(birds, task=replace(birds.task, metric="balanced_accuracy"))
    file = tmp_path / "library.safetensors"
    save_library(assemble([birds, cars]), file)
    assert "tuned on birds: balanced accuracy, not accuracy" in run("library", "list", "--library", file).stdout
    told = one_object(run("library", "list", "--library", file, "--json").stdout)["tasks"]
    assert [each["metric"] for each in told] == ["balanced_accuracy", "accuracy"]


@pytest.mark.parametrize("width", ["80", "120"])
def test_library_list_cuts_no_name_and_no_figure(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    shown = re.sub(r"\x1b\[[\d;]*m", "", run("library", "list").stdout)
    told = one_object(run("library", "list", "--json").stdout)
    names = [*(each["name"] for each in told["tasks"]), *(each["id"] for each in told["candidates"])]
    assert [name for name in names if name not in shown.split()] == []
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= int(width)
    assert [head for head in ("classes", "zero-shot", "tuned", "parameters") if head not in shown] == []


def test_library_sources_are_brought_once(tmp_path):
    with loopback_hub(tmp_path / "hub") as hub:
        serve_source(hub, "Describable Textures", count=60)
        made = run("library", "sources", "Describable Textures", "Stanford Cars", "--quiet", "--json")
        assert made.exit_code == 0, made.output
        assert "0 of 2 source tasks are here; at most 67.1 MB" in made.stderr
        textures, cars = one_object(made.stdout)["tasks"]
        assert (textures["name"], textures["here"], textures["problem"]) == ("Describable Textures", True, None)
        assert (cars["name"], cars["here"]) == ("Stanford Cars", False)
        assert "no such repository" in cars["problem"]
    assert run("library", "sources", "Describable Textures", "--quiet").exit_code == 0  # it is here
    assert run("library", "sources", "MNIST", "--quiet").exit_code == 3
    odd = run("library", "sources", "cars")
    assert (odd.exit_code, "source images can be had of" in odd.stderr) == (2, True)


def test_a_wrong_folder_is_one_line_and_2(tmp_path):
    (tmp_path / "empty").mkdir()
    for command in (("search", "--workdir", tmp_path / "work"), ("rank",)):
        for folder in ("empty", "missing"):
            result = run(*command, tmp_path / folder)
            assert result.exit_code == 2, result.output
            assert result.stdout == ""
            assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1
            assert "Traceback" not in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["empty"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("task") / "colours", count=12)


def test_rank_as_json_has_the_promised_shape(colours):
    ran = run("rank", colours, "-c", f"{MEMBER},RN-Mi-64.all-m", "--shots", "4", "--json")
    assert ran.exit_code == 0, ran.stderr
    answer = one_object(ran.stdout)
    assert list(answer) == [each.name for each in fields(RankResult)]
    assert answer["templates"] == []  # they are chosen without labels alone
    assert {each["candidate"] for each in answer["ranked"]} == {MEMBER, "RN-Mi-64.all-m"}
    assert all(0 <= each["p_best"] <= 1 for each in answer["ranked"])
    assert [each["score"] for each in answer["ranked"]] == sorted((e["score"] for e in answer["ranked"]), reverse=True)


def test_search_as_json_report_predict(colours, tmp_path):
    start = time.monotonic()
    ran = run(
        "search", colours, "-c", f"{MEMBER},RN-Mi-64.all-m", "--shots", "4", "--method", "probe", "--max-trials", "2",
        "--workdir", tmp_path / "work", "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    answer = one_object(ran.stdout)
    assert list(answer) == [each.name for each in fields(SearchResult)]
    assert {each["worth"] - each["accuracy"] for each in answer["tradeoffs"]} == {0.0}
    assert len(answer["trials"]) == 2
    assert 0 < answer["seconds"] < time.monotonic() - start
    assert (Path(answer["report_dir"]) / "report.html").is_file()
    again = run("report", tmp_path / "work")
    assert again.exit_code == 0, again.output
    assert answer["best"]["candidate"] in again.stdout
    told = run("predict", answer["best"]["model_dir"], colours / "red" / "0.png", "--json")
    assert one_object(told.stdout)["predictions"][0]["class"] in {"red", "green", "blue"}


@pytest.mark.slow
def test_a_budget_of_time_is_what_the_user_waits(tmp_path):
    folder = paint(tmp_path / "paint", count=20)
    began = time.monotonic()
    done = command_line(
        "search",
        folder,
        "--candidates",
        MEMBER,
        "--time-budget",
        "20",
        "--workdir",
        tmp_path / "w",
        "--no-learn",
        "--json",
    )
    waited = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert waited < 23  # 5 % on an idle machine; tests run on busy ones
    assert waited - one_object(done.stdout)["seconds"] < 6  # the loading of torch counts; Python itself does not


# images without labels


def test_rank_takes_names_of_classes_from_a_list_or_a_file(tmp_path):
    heap = tmp_path / "heap"
    heap.mkdir()
    for number, path in enumerate(sorted(paint(tmp_path / "colours").glob("*/*.png"))):
        path.rename(heap / f"{number:02d}.png")
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    common = "rank", heap, "--candidates", MEMBER, "--cache-dir", tmp_path / "cache", "--json", "--quiet"
    for names in ("red, green,blue", tmp_path / "names.txt"):
        answer = run(*common, "--classes", names, "--images", 9)
        assert answer.exit_code == 0, answer.output
        assert [line["candidate"] for line in one_object(answer.stdout)["ranked"]] == [MEMBER]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--classes"),
        (("--classes", "red"), "two classes or more"),
        (("--classes", "red,red,blue"), "more than once"),
        (("--unlabelled",), "--classes"),
    ],
)
def test_names_that_are_missing_or_wrong_are_told_before_any_model_is_loaded(tmp_path, options, message):
    (tmp_path / "heap").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "heap" / "a.png")
    answer = run("rank", tmp_path / "heap", *options)
    assert answer.exit_code == 2
    assert message in " ".join(answer.stderr.split())


def test_folders_that_are_no_classes_are_told(tmp_path):
    paint(tmp_path / "heap", count=2)
    answer = run("search", tmp_path / "heap", "--classes", "warm,cold", "--workdir", tmp_path / "w")
    assert answer.exit_code == 2
    assert "--unlabelled" in answer.stderr
    assert not (tmp_path / "w").exists()
