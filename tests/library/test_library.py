import dataclasses
import json
import multiprocessing
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library import file, library
from vlmsel_auto.library.library import Build, Cell, CellFailure, Library, SourceCandidate, SourceTask

WIDTHS = {"a": (3, 2), "b": (4,), "c": ()}
BUILD = Build(
    source="vlmsel-auto library build", code_version="0.1.0", settings=(("images", "8"), ("scalar", "margin"))
)


def task(name: str, *, digest: str = "", classes: int = 2) -> SourceTask:
    return SourceTask(
        name=name,
        domain=f"pictures of {name}",
        classes=tuple(f"{name}{k}" for k in range(classes)),
        digest=digest or f"digest-of-{name}",
        n_test=40,
    )


def candidate(name: str, *, sha256: str = "") -> SourceCandidate:
    widths = WIDTHS[name]
    return SourceCandidate(
        id=name,
        arch=f"arch-{name}",
        tag="t",
        params=1000,
        flops=2e6,
        sha256=sha256 or f"sha-of-{name}",
        blocks=tuple(f"block{b}" for b in range(len(widths))),
        widths=widths,
        embed_dim=3 if widths else 0,
    )


def cell(name: str, on: str, *, finished: float = 1.0, zero_shot: float = 0.5, classes: int = 2, **changes) -> Cell:
    rng = np.random.default_rng(len(name) * 31 + sum(map(ord, name + on)))
    widths = WIDTHS[name]
    # float32 and float16 values, so that a file gives them back to the bit
    signature = tuple(rng.normal(size=width).astype(np.float32).astype(np.float64) for width in widths)
    absolute = tuple(np.abs(one) for one in signature)
    made = Cell(
        candidate=candidate(name),
        task=task(on, classes=classes),
        build=BUILD,
        finished=finished,
        zero_shot=zero_shot,
        total=1.5 if widths else np.nan,
        seconds=0.25,
        tuned={"run 0": 0.75},
        signals={"confidence": 0.25},
        evidence={(0, 1, "knn"): 0.5, (1, 1, "knn"): 0.75, (0, 4, "knn"): 0.625, (0, 4, "logme"): -1.5},
        activity=np.array([one.sum() for one in absolute]).astype(np.float32).astype(np.float64),
        signature=signature,
        absolute=absolute,
        class_accuracy=np.linspace(0.25, 0.75, classes),
        class_text=np.ones((classes, 3)) if widths else np.empty((0, 0)),
        predicted=np.arange(4.0 + len(on)) % classes if widths else np.empty(0),
        predicted_on=float(len(on)) if widths else np.nan,
    )
    return dataclasses.replace(made, **changes)


def small() -> Library:
    grid = [cell(m, s, classes=k) for m in "abc" for s, k in (("birds", 3), ("cars", 2))]
    return library.assemble(grid[:-1], failures=[CellFailure(candidate="c", task="cars", reason="out of memory")])


def assert_equal(one: Library, other: Library) -> None:
    for item in dataclasses.fields(Library):
        np.testing.assert_equal(getattr(one, item.name), getattr(other, item.name), err_msg=item.name)


def test_dense_arrays_hold_what_the_cells_said():
    made = small()
    assert made.candidate_ids == ("a", "b", "c")
    assert made.task_names == ("birds", "cars")
    assert made.activity[0].shape == (2, 2)
    assert [one.shape for one in made.signature[0]] == [(2, 3), (2, 2)]
    assert made.class_text[1].shape == (5, 3)
    assert made.class_slices() == (slice(0, 3), slice(3, 5))
    assert made.has_profiles == (True, True, False)
    assert made.evidence_draws.shape == (3, 2, 2, 2, 2)
    assert made.evidence.shape == (3, 2, 2, 2)
    assert made.evidence[0, 0, made.shots.index(1), made.evidence_names.index("knn")] == 0.625
    assert made.evidence[0, 0, made.shots.index(4), made.evidence_names.index("knn")] == 0.625  # of the one draw it has
    assert np.isnan(made.evidence[0, 0, made.shots.index(1), made.evidence_names.index("logme")])
    assert np.isnan(made.zero_shot[2, 1])
    assert made.build[2, 1] == -1
    assert made.cell("c", "cars") is None
    assert made.tuned[0, 0] == 0.75
    kept = made.cell("a", "cars")
    assert kept is not None
    np.testing.assert_equal(
        dataclasses.asdict(kept),
        dataclasses.asdict(cell("a", "cars"))
        | {"norm_activity": np.full(2, np.nan), "class_image": np.full((2, 3), np.nan), "image_sd": np.full(3, np.nan)},
    )


def test_file_round_trip_is_equal_to_the_bit(tmp_path):
    made = small()
    path = tmp_path / "one.safetensors"
    library.save(made, path)
    assert_equal(library.load(path), made)
    assert [one.name for one in tmp_path.iterdir()] == ["one.safetensors"]


def test_cells_give_the_library_back():
    made = small()
    assert_equal(library.assemble(made.cells(), failures=made.failures), made)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), cut=st.integers(0, 6))
def test_merging_parts_in_any_order_gives_the_same_figures(order, cut):
    grid = [cell(m, s, zero_shot=i / 8) for i, (m, s) in enumerate((m, s) for m in "abc" for s in ("birds", "cars"))]
    whole = library.assemble(grid)
    parts = [grid[i] for i in order]
    merged = library.merge(library.assemble(parts[:cut]), library.assemble(parts[cut:]), conflict="error")
    assert_equal(merged.select(whole.candidate_ids).select_tasks(whole.task_names), whole)


def test_merge_with_itself_changes_nothing():
    made = small()
    assert_equal(library.merge(made, made, conflict="error"), made)


@settings(max_examples=25, deadline=None)
@given(left=st.sampled_from(["birds", "cars"]), rows=st.permutations(["a", "b", "c"]))
def test_taking_parts_is_assembling_from_their_cells(left, rows):
    made = small()
    taken = made.leave_out(left).select(rows)
    other = "cars" if left == "birds" else "birds"
    for name in rows:
        assert taken.zero_shot[taken.row(name), 0] == pytest.approx(
            made.zero_shot[made.row(name), made.column(other)], nan_ok=True
        )
        for one, whole in zip(taken.signature[taken.row(name)], made.signature[made.row(name)], strict=True):
            np.testing.assert_array_equal(one[0], whole[made.column(other)])
    assert taken.class_accuracy.shape == (3, 2 if left == "birds" else 3)
    assert taken.task_names == (other,)


def test_unknown_names_are_refused_by_name():
    with pytest.raises(LibraryError, match=r"no such candidate; it has a, b, c, but got 'z'"):
        small().select(["a", "z"])
    with pytest.raises(LibraryError, match=r"no such task.*'z'"):
        small().leave_out("z")


def test_same_cell_from_two_builds_newest_or_error():
    other = dataclasses.replace(BUILD, code_version="0.2.0")
    old = library.assemble([cell("a", "birds", finished=5.0, zero_shot=0.25)])
    new = library.assemble([cell("a", "birds", finished=9.0, zero_shot=0.75, build=other)])
    for merged in (library.merge(old, new), library.merge(new, old)):
        assert merged.zero_shot[0, 0] == 0.75
        assert merged.builds == (other,)
    with pytest.raises(LibraryError, match=r"zero_shot of a on birds differs between builds"):
        library.merge(old, new, conflict="error")


def test_cells_of_other_weights_are_dropped_or_refused():
    old = [cell("a", "birds"), cell("a", "cars")]
    new = [cell("a", "birds", finished=2.0, zero_shot=0.875, candidate=candidate("a", sha256="other"))]
    merged = library.merge(library.assemble(old), library.assemble(new))
    assert merged.task_names == ("birds",)  # figures of other weights say nothing about these
    assert merged.zero_shot[0, 0] == 0.875
    with pytest.raises(LibraryError, match=r"weights differ between cells of the same name.*but got a"):
        library.merge(library.assemble(old), library.assemble(new), conflict="error")


def test_tasks_of_other_content_are_dropped_or_refused():
    old = library.assemble([cell("a", "birds"), cell("b", "birds")])
    new = library.assemble([cell("a", "birds", finished=2.0, task=task("birds", digest="other"))])
    merged = library.merge(old, new)
    assert merged.candidate_ids == ("a",)
    assert merged.tasks[0].digest == "other"
    with pytest.raises(LibraryError, match=r"contents differ.*but got birds"):
        library.merge(old, new, conflict="error")


def test_other_blocks_lose_the_old_profile_but_keep_the_accuracies():
    renamed = dataclasses.replace(candidate("a"), blocks=("stem", "head"))
    old = [cell("a", "birds", zero_shot=0.25), cell("a", "cars", zero_shot=0.375)]
    merged = library.merge(
        library.assemble(old), library.assemble([cell("a", "birds", finished=2.0, candidate=renamed)])
    )
    assert merged.candidates[0].blocks == ("stem", "head")
    assert merged.zero_shot[0, merged.column("cars")] == 0.375
    assert np.isnan(merged.activity[0][merged.column("cars")]).all()
    assert np.isfinite(merged.activity[0][merged.column("birds")]).all()


def test_accuracies_and_profile_of_one_cell_join():
    bare = Cell(
        candidate=SourceCandidate(id="a", arch="arch-a", tag="t"),
        task=task("birds"),
        build=Build(source="a table", code_version=""),
        finished=7.0,
        tuned={"run 1": 0.875},
        probed=0.625,
    )
    merged = library.add(library.assemble([cell("a", "birds")]), [bare], conflict="error")
    assert merged.builds == (BUILD,)  # whoever made the profile
    assert merged.run_names == ("run 0", "run 1")
    assert merged.tuned[0, 0] == (0.75 + 0.875) / 2
    assert merged.probed[0, 0] == 0.625
    assert merged.zero_shot[0, 0] == 0.5
    assert merged.candidates[0].sha256 == "sha-of-a"


def test_a_failure_is_forgotten_once_the_cell_is_there():
    assert library.add(small(), [cell("c", "cars")]).failures == ()
    assert library.add(small(), [cell("a", "cars", finished=3.0)]).failures == small().failures


def test_tuned_runs_are_set_replaced_and_checked():
    made = library.with_tuned(
        small(), run="run 1", source="table.csv", values={("a", "cars"): 0.25, ("z", "cars"): 1.0}
    )
    assert made.run_names == ("run 0", "run 1")
    assert made.tuned[0, 1] == 0.5
    again = library.with_tuned(made, run="run 1", source="table.csv", values={("a", "cars"): 0.75})
    assert again.run_names == ("run 0", "run 1")
    assert again.tuned[0, 1] == 0.75
    with pytest.raises(LibraryError, match=r"must lie in \[0, 1\], but got 1.5"):
        library.with_tuned(made, run="x", source="", values={("a", "cars"): 1.5})


def test_wrong_shape_is_refused():
    with pytest.raises(LibraryError, match=r"activity of a on birds must have shape \(2,\), but got \(5,\)"):
        library.assemble([cell("a", "birds", activity=np.zeros(5))])


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "lib.safetensors"
    library.save(small(), path)
    return path


def rewritten(path: Path, **metadata: str) -> None:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    old = json.loads(data[8 : 8 + size])["__metadata__"]
    save_file(load_file(path), path, metadata={**old, **metadata})


def test_foreign_files_are_refused_by_name_and_reason(tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("not a library")
    foreign = tmp_path / "weights.safetensors"
    save_file({"w": np.zeros(3)}, foreign)
    for path, reason in (
        (text, "not a safetensors file"),
        (foreign, "not a library of vlmsel_auto"),
        (tmp_path, "cannot be read"),
        (tmp_path / "none", "there is no library"),
    ):
        with pytest.raises(LibraryError, match=reason) as caught:
            library.load(path)
        assert str(path) in str(caught.value)


def test_files_of_version_1_are_read_as_knowing_no_predictions(saved):
    """Version 1 had neither the classes that candidates name nor their number of images."""
    data = saved.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    document = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["library"])
    arrays = {name: one for name, one in load_file(saved).items() if not name.startswith("predicted")}
    del document["unlabelled"]
    text = json.dumps(document, sort_keys=True)
    digest = file._content_digest(text, arrays)
    save_file(arrays, saved, metadata={"format": file.FORMAT, "version": "1", "library": text, "sha256": digest})
    read = library.load(saved)
    assert read.predicted.shape == (3, 2, 0)
    assert np.isnan(read.predicted_on).all()
    cells = [dataclasses.replace(one, predicted=np.empty(0), predicted_on=np.nan) for one in small().cells()]
    assert_equal(read, library.assemble(cells, failures=small().failures))
    again = saved.with_name("again.safetensors")
    library.save(read, again)
    assert_equal(library.load(again), read)


def test_newer_and_unknown_versions_are_refused(saved):
    rewritten(saved, version="3")
    with pytest.raises(LibraryError, match="written by a newer vlmsel_auto"):
        library.load(saved)
    rewritten(saved, version="x")
    with pytest.raises(LibraryError, match="unknown version"):
        library.load(saved)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(saved, fraction):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(LibraryError, match=r"lib\.safetensors"):
        library.load(saved)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused_or_harmless(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("flip") / "lib.safetensors"
    library.save(small(), path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        found = library.load(path)
    except LibraryError:
        return
    assert_equal(found, small())  # a flip in padding


def test_a_document_of_another_shape_is_refused_not_crashed_on(saved):
    from vlmsel_auto.library.file import _content_digest

    arrays = load_file(saved)
    for document in ("[]", "{}", "nonsense", '{"candidates": 3}', "null"):
        rewritten(saved, library=document, sha256=_content_digest(document, arrays))
        with pytest.raises(LibraryError, match="damaged"):
            library.load(saved)


def test_verify_finds_what_is_wrong():
    sound = small()
    assert library.verify(sound) == ("c on cars failed: out of memory",)
    assert library.verify(sound, weights={"a": "sha-of-a", "b": "x"}, tasks={"cars": "y", "birds": "digest-of-birds"})[
        :2
    ] == (
        "the weights of b are not those that its cells were made with",
        "the content of task cars is not that which its cells were made with",
    )
    sound.zero_shot[0, 0] = 1.5
    sound.activity[1][0, 0] = -1.0
    sound.signature[0][0][0, 0] = 100.0
    sound.absolute[0][1][1, 0] = np.inf
    text = "\n".join(library.verify(sound))
    for wrong in (
        "zero_shot must lie in [0, 1]",
        "activity of b is negative",
        "a, block block0 exceeds",
        "a, block block1 is not finite",
    ):
        assert wrong in text


def test_user_library_is_shipped_plus_own(tmp_path, monkeypatch):
    path = tmp_path / "own" / "library.safetensors"
    monkeypatch.setenv("VLMSEL_LIBRARY", str(path))
    assert library.user_library_path() == path
    shipped = library.default_library()
    assert library.user_library() is shipped
    library.remember(cells=[cell("a", "birds"), cell("b", "birds")], run_sources={"run 0": "own search"})
    merged = library.user_library()
    assert merged.task_names == (*shipped.task_names, "birds")
    assert merged.zero_shot[merged.row("a"), merged.column("birds")] == 0.5
    assert dict(zip(merged.run_names, merged.run_sources, strict=True))["run 0"] == "own search"


def test_remembering_again_replaces_and_other_content_gets_another_name(tmp_path):
    path = tmp_path / "lib.safetensors"
    assert library.remember(cells=[cell("a", "birds")], path=path) == (path, "birds")
    library.remember(cells=[cell("a", "birds", finished=2.0, zero_shot=0.625)], path=path)
    assert library.load(path).zero_shot.tolist() == [[0.625]]
    other = cell("a", "birds", task=task("birds", digest="0123456789"))
    assert library.remember(cells=[other], path=path)[1] == "birds-01234567"
    assert library.load(path).task_names == ("birds", "birds-01234567")


def test_remember_refuses_several_tasks_and_leaves_a_damaged_library_alone(tmp_path):
    path = tmp_path / "lib.safetensors"
    with pytest.raises(LibraryError, match="exactly one task, but got 2"):
        library.remember(cells=[cell("a", "birds"), cell("a", "cars")], path=path)
    path.write_bytes(b"precious but damaged")
    with pytest.raises(LibraryError, match="not a safetensors file"):
        library.remember(cells=[cell("a", "birds")], path=path)
    assert path.read_bytes() == b"precious but damaged"


def _remember(name: str, path: str) -> None:
    library.remember(cells=[cell("a", name)], path=Path(path))


def test_searches_that_end_at_once_lose_nothing(tmp_path):
    path = tmp_path / "lib.safetensors"
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_remember, args=(f"task{i}", str(path))) for i in range(6)]
    for one in running:
        one.start()
    for one in running:
        one.join(60)
    assert [one.exitcode for one in running] == [0] * 6
    assert sorted(library.load(path).task_names) == [f"task{i}" for i in range(6)]
