import csv
from pathlib import Path

import numpy as np
import pytest

from vlmsel_auto.errors import LibraryError
from vlmsel_auto.library import published
from vlmsel_auto.library.assemble import merge
from vlmsel_auto.library.file import load, save
from vlmsel_auto.library.verify import verify

LONG = "model,pretrained,dataset,acc1,acc5"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_shipped_figures_are_those_of_the_table():
    with published.open_clip_path().open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    ids = [f"{row['name']}/{row['pretrained']}" for row in rows]
    figures = published.zero_shot(ids)
    assert figures.shape == (121, 35)
    assert np.isfinite(figures).all()
    for k, name in enumerate(published.datasets()):
        assert figures[:, k].tolist() == [float(row[name]) for row in rows]


def test_known_and_unknown_candidates():
    figures = published.zero_shot(["ViT-B-32/openai", "ViT-Mi-8-64.all-l"])
    imagenet = published.datasets().index(published.IMAGENET)
    assert figures[0, imagenet] == 0.6332  # docs/openclip_results.csv
    assert np.isnan(figures[1]).all()
    assert published.zero_shot([]).shape == (0, 35)


def test_retrieval_columns_are_no_classification_figures():
    assert not {"Flickr", "MSCOCO", "WinoGAViL"} & set(published.datasets())
    table = published.import_table(published.open_clip_path(), kind="open_clip")
    assert table.zero_shot.shape == (121, 38)
    assert table.tasks[table.column("MSCOCO")].domain == "image-text matching"
    assert table.candidates[table.row("ViT-B-32/openai")].params == 151_280_000


@pytest.mark.parametrize(
    ("header", "line", "source"),
    [
        (LONG, "BLIP,coco,cars,0.5,0.9", "SWAB"),
        (LONG + ",mean_per_class_recall", "BLIP,coco,cars,0.5,0.9,0.4", "LOVM"),
        (
            "acc1,acc5,dataset,model,pretrained,task,model_fullname",
            "0.5,0.9,cars,BLIP,coco,zeroshot_classification,BLIP coco",
            "CLIP_benchmark",
        ),
        (
            "name,pretrained,params (M),FLOPs (B),Average perf. on 38 datasets,cars",
            "BLIP,coco,10.5,2.25,0.1,0.5",
            "open_clip",
        ),
    ],
)
def test_each_table_is_told_by_its_columns_and_cited(tmp_path, header, line, source):
    table = published.import_table(write(tmp_path / "t.csv", header, line))
    assert table.candidate_ids == ("BLIP/coco",)
    assert table.task_names == ("cars",)
    assert table.zero_shot.tolist() == [[0.5]]
    assert source in table.builds[0].source
    assert table.has_profiles == (False,)
    assert verify(table) == ()


def test_a_rank_table_survives_the_file_and_merges(tmp_path):
    one = published.import_table(write(tmp_path / "a.csv", LONG, "A,x,cars,0.5,1", "B,x,cars,0.25,1"))
    two = published.import_table(write(tmp_path / "b.csv", LONG, "A,x,dogs,0.75,1"))
    save(merge(one, two, conflict="error"), tmp_path / "m.safetensors")
    read = load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(read.zero_shot, [[0.5, 0.75], [0.25, np.nan]])


def test_retrieval_rows_and_empty_accuracies_are_left_out(tmp_path):
    header = "acc1,dataset,model,pretrained,task,model_fullname"
    rows = (
        "0.5,cars,A,x,zeroshot_classification,A x",
        ",cars2,A,x,zeroshot_classification,A x",
        "0.9,coco,A,x,zeroshot_retrieval,A x",
    )
    assert published.import_table(write(tmp_path / "t.csv", header, *rows)).task_names == ("cars",)


def test_bad_tables_are_refused_by_name(tmp_path):
    path = tmp_path / "t.csv"
    for lines, reason in (
        (("a,b", "1,2"), "fit none of the known tables"),
        ((LONG, "A,x,cars,fifty,1"), "must hold numbers, but got 'fifty'"),
        ((LONG, "A,x,cars,50.0,1"), r"must lie in \[0, 1\], but got '50.0'"),
        ((LONG,), "holds no zero-shot accuracy"),
    ):
        with pytest.raises(LibraryError, match=reason) as caught:
            published.import_table(write(path, *lines))
        assert str(path) in str(caught.value)
    with pytest.raises(LibraryError, match="cannot be read as CSV"):
        published.import_table(tmp_path / "none.csv")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LibraryError, match="cannot be read as CSV"):
        published.import_table(path)
    with pytest.raises(LibraryError, match="needs the columns mean_per_class_recall"):
        published.import_table(write(path, LONG, "A,x,cars,0.5,1"), kind="lovm")
