"""Source tasks of every kind at once; each kind has a file of its own."""

import pytest

from helpers.drawings import draw_task
from helpers.loopback_hub import loopback_hub
from helpers.webdatasets import serve, write
from vlmsel_auto.errors import LibraryError
from vlmsel_auto.measuring.source_tasks import source_tasks
from vlmsel_auto.tasks.task import load_task


def test_folders_webdatasets_and_saved_data_sets_become_task_folders(tmp_path):
    datasets = pytest.importorskip("datasets")
    plain, local = draw_task(tmp_path / "plain"), write(tmp_path / "local", count=30)
    files = sorted(plain.rglob("*.png"))
    rows = {"image": [str(file) for file in files], "label": [file.parent.name for file in files]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    with loopback_hub(tmp_path / "hub") as hub:
        serve(hub, "clip-benchmark/wds_vtab-shapes", count=60)
        found = source_tasks(
            [plain, local, tmp_path / "saved", plain], hub_tasks=["wds/vtab/shapes"], images=24, into=tmp_path / "into"
        )
    assert found[0] == plain
    names = [load_task(folder, workdir=tmp_path / "work").name for folder in found]
    assert sorted(names) == ["local", "plain", "saved", "vtab-shapes"]


def test_a_folder_without_a_task_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError, match="no task folder"):
        source_tasks([tmp_path / "empty"], images=24, into=tmp_path)
