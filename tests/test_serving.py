"""The serving example: a real server on loopback answers as the model does, with neither torch nor vlmsel_auto."""

import http.client
import importlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from fastapi import HTTPException, UploadFile
from PIL import Image

from helpers.drawings import SHAPES, draw_task
from helpers.exported_world import export_member
from helpers.pictures import encoded, picture
from vlmsel_auto.models.onnxfile import export_onnx
from vlmsel_auto.models.prediction import predict
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.decode import decode_image
from vlmsel_auto.tasks.preprocessing import render

EXAMPLES = Path(__file__).parents[1] / "examples"


def post(port: int, image: Path, asked: str = "") -> dict[str, object]:
    body = b"--line\r\nContent-Disposition: form-data; name=file; filename=a.png\r\n\r\n%b\r\n--line--\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=line"}
    connection.request("POST", f"/predict{asked}", body % image.read_bytes(), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    found = json.loads(answer.read())
    connection.close()
    return found


def post_when_ready(server: subprocess.Popen[bytes], port: int, image: Path) -> dict[str, object]:
    for _ in range(600):
        assert server.poll() is None
        try:
            return post(port, image)
        except ConnectionRefusedError:
            time.sleep(0.1)
    pytest.fail("the server does not answer")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder and its ONNX file."""
    root = tmp_path_factory.mktemp("export")
    folder = export_member("EffNet-Mi-64.all-m", root / "model")
    return folder, export_onnx(folder, root / "model.onnx").file


def test_a_server_of_the_file_answers_as_the_model_does(exported: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = exported
    image = draw_task(tmp_path / "task", train=1, test=1) / "test" / "square" / "000.png"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, uvicorn, serve; assert not {'torch', 'vlmsel_auto'} & set(sys.modules); "
        f"uvicorn.run(serve.app, host='127.0.0.1', port={port}, log_level='warning')"
    )
    environment = {**os.environ, "MODEL": str(file), "PYTHONPATH": str(EXAMPLES), "HOME": str(tmp_path / "home")}
    environment.pop("XDG_CACHE_HOME", None)
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as server:
        try:
            found = post_when_ready(server, port, image)
            sure = post(port, image, "?accuracy=0.9")
        finally:
            server.terminate()
    expected = predict(folder, [image])
    shares = found["probabilities"]
    assert tuple(shares) == SHAPES
    assert list(shares.values()) == pytest.approx(expected.probabilities[0].tolist(), abs=1e-4)
    assert (found["class"], found["doubt"]) == (expected.labels[0], "")
    silent = predict(folder, [image], accuracy=0.9)
    assert sure["class"] == silent.labels[0]
    assert (sure["doubt"] == "not sure enough") == bool(silent.doubts[0])
    assert not list((tmp_path / "home").rglob("*onnxruntime*"))  # it tells Microsoft nothing


def example(file: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("MODEL", str(file))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("serve")


def turned(image: Image.Image) -> bytes:
    exif = image.getexif()
    exif[0x0112] = 6
    return encoded(image, exif=exif)


def deep(image: Image.Image, kind: type) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(kind) * 257)


MODES = {
    **{mode: lambda image, mode=mode: encoded(image.convert(mode)) for mode in ("RGB", "L", "P", "1", "LA", "RGBA")},
    "CMYK": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "half transparent": lambda image: encoded(Image.merge("RGBA", (*image.split(), image.convert("L")))),
    "one colour transparent": lambda image: encoded(image.convert("P"), transparency=0),
    "16 bits": lambda image: encoded(deep(image, np.uint16)),
    "32 bits": lambda image: encoded(deep(image, np.int32), "TIFF"),
    "turned": turned,
}


@pytest.mark.parametrize("kind", MODES)
def test_the_example_reads_every_kind_of_image_as_the_model_does(
    kind: str, exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = example(exported[1], monkeypatch)
    data = MODES[kind](picture(40, 30))
    found = np.asarray(serve.in_rgb(Image.open(io.BytesIO(data))))
    assert np.array_equal(found, np.asarray(decode_image(data).image))


def test_the_example_refuses_what_is_no_image(exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    serve = example(exported[1], monkeypatch)
    for data in (b"", b"nonsense", encoded(picture())[:-40]):
        with pytest.raises(HTTPException, match="no image that can be read") as told:
            serve.predict(UploadFile(io.BytesIO(data)))
        assert told.value.status_code == 422


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_the_example_prepares_images_as_the_model_reads_them(
    mode: str, exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = example(exported[1], monkeypatch)
    rng = np.random.default_rng(0)
    for width, height in rng.integers(30, 200, (30, 2)).tolist():
        image = picture(width, height, seed=width)
        asked = ImageView(size=64, resize_mode=mode, interpolation="bicubic", fill_color=9)
        assert np.array_equal(np.asarray(serve.view(image, **asdict(asked))), render(image, asked))
