"""Serve an ONNX file, without torch or vlmsel_auto: MODEL=model.onnx uvicorn serve:app --app-dir examples."""

import json
import math
import os

import numpy as np
from fastapi import FastAPI, HTTPException, UploadFile
from PIL import Image, ImageOps

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by the import of onnxruntime, which tells Microsoft else
from onnxruntime import InferenceSession

session = InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, inputs, answers = (json.loads(about[name]) for name in ("classes", "inputs", "answers"))
app = FastAPI()


def view(image: Image.Image, *, size: int, resize_mode: str, interpolation: str, fill_color: int) -> Image.Image:
    """A square of ``size`` pixels, made as the file's metadata say."""
    how = Image.Resampling[interpolation.upper()]
    if resize_mode == "squash":
        return image.resize((size, size), how)
    side, length, place = (min, int, round) if resize_mode == "shortest" else (max, round, math.floor)
    shaped = image.resize([max(1, length(size * each / side(image.size))) for each in image.size], how)
    square = Image.new("RGB", (size, size), (fill_color,) * 3)
    square.paste(shaped, (place((size - shaped.width) / 2), place((size - shaped.height) / 2)))
    return square


def in_rgb(image: Image.Image) -> Image.Image:
    """Upright and in 8 bits, transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits
        return Image.fromarray(np.rint(np.asarray(image) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper).convert("RGB")
    return image.convert("RGB")


@app.post("/predict")
def predict(file: UploadFile, accuracy: float = 0.0) -> dict[str, object]:
    """Class of an uploaded image, null where it is in doubt and an accuracy is wanted, with all probabilities."""
    least = min((each["threshold"] for each in answers if each["at_least"] >= accuracy), default=math.inf)
    if accuracy and math.isinf(least):
        raise HTTPException(422, "the held-out images do not assure that accuracy")
    try:
        image = in_rgb(Image.open(file.file))
    except Exception as error:  # Pillow's plugins raise almost anything on a damaged file
        raise HTTPException(422, f"no image that can be read: {error}") from error
    pixels = {name: np.asarray(view(image, **asked))[None] for name, asked in inputs.items()}
    (probabilities,), (unlike,) = session.run(["probabilities", "unlike"], pixels)
    doubt = "unlike what this model learned" if unlike > 1 else ""
    if accuracy and not doubt and probabilities.max() < least:
        doubt = "not sure enough"
    return {
        "class": None if accuracy and doubt else classes[probabilities.argmax()],
        "doubt": doubt,
        "probabilities": dict(zip(classes, probabilities.tolist(), strict=True)),
    }
