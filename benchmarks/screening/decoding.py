"""Decoding photos of 12 megapixels: speed beside bare Pillow, memory, disk, and how soon a large folder is a task.

    python -m benchmarks.screening.decoding  # 200 photos, a folder of 50,000 entries: a few minutes, 1 GB of disk
    python -m benchmarks.screening.decoding --quick    # 20 photos, 50,000 entries

Photos are random smooth pictures with noise, JPEG of quality 88, 4000 x 3000. "bare Pillow" opens and loads them on all
cores and keeps nothing; "decoded in full" renders the view from all pixels, as was done before JPEGs were decoded at a
part of their size; "view" is what a task does when a model first reads images: decode, resize, keep on disk.

The folder of 50,000 entries is made of hard links to these photos, in ten classes: every entry costs its look-ups and
header, but copies are told by the file that they are, so the time does not include reading bytes of files of the same
size; that is measured apart ("identify"), on the photos padded to one size. The first look reads the support set, whose
entries are links as well; decoding them costs what other files would, but for the disk: all files are in the cache.

Quality: pixels of each view against those from the full-size image, and embeddings and accuracy of mini-zoo models on
drawings and on crops of scikit-learn's two photos, both enlarged to 12 megapixels.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from vlmsel_auto.cache import Json
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.records import ImageView
from vlmsel_auto.tasks.decode import decode_image
from vlmsel_auto.tasks.identity import by_bytes, pixel_digest
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tasks.views import read_view, render, render_all

RESULT: Final = Path(__file__).parents[1] / "results" / "decoding.json"
WIDTH, HEIGHT = 4_000, 3_000
ENTRIES: Final = 50_000
CLASSES: Final = 10
VIEWS: Final = (64, 224, 384)
MODELS: Final = ("ViT-Mi-8-64.all-l", "RN-Mi-64.glyph-s", "EffNet-Mi-64.all-m")


def photo(seed: int) -> bytes:
    """A JPEG of 12 megapixels."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    large = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-8, 9, (HEIGHT, WIDTH, 1), dtype=np.int16)
    return jpeg(Image.fromarray((large + noise).clip(0, 255).astype(np.uint8)))


def jpeg(image: Image.Image) -> bytes:
    """The image as a file."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=88)
    return stream.getvalue()


def bare(path: Path) -> None:
    """Open and load, as anyone would."""
    with Image.open(path) as image:
        image.load()


def in_full(path: Path, *, view: ImageView) -> None:
    """Render a view from all pixels."""
    render(decode_image(path).image, view)


def identified(path: Path, *, view: ImageView) -> None:
    """What a folder of up to 1 GiB costs an image: a digest of all pixels, and a view."""
    data = path.read_bytes()
    decoded = decode_image(data)
    pixel_digest(decoded.image)
    list(render_all(data, decoded, [view]))


def speeds(paths: Sequence[Path], *, rounds: int) -> dict[str, Json]:
    """Images a second on all cores, and processor milliseconds an image, of each way.

    The ways take turns, and the best round of each counts: others use the machine too.
    """
    ways: dict[str, Callable[[Path], object]] = {"bare Pillow": bare}
    for size in VIEWS:
        view = ImageView(size=size)
        ways[f"decoded in full, {size} pixels"] = partial(in_full, view=view)
        ways[f"view of {size} pixels"] = partial(read_view, view=view)
    ways["digest of all pixels and a view of 224 pixels"] = partial(identified, view=ImageView(size=224))
    rates, costs = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, math.inf)
    share = len(paths) // rounds
    for number in range(rounds):
        for name, work in ways.items():
            began, used = time.perf_counter(), time.process_time()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(work, paths[number * share : (number + 1) * share]))
            rates[name] = max(rates[name], share / (time.perf_counter() - began))
            costs[name] = min(costs[name], 1_000 * (time.process_time() - used) / share)
    return {
        name: {"images a second": round(rates[name], 1), "processor ms an image": round(costs[name])} for name in ways
    }


def linked(photos: Sequence[Path], root: Path, *, entries: int) -> Path:
    """A task folder of hard links; every class has photos of its own."""
    for number in range(CLASSES):
        (root / f"class {number}").mkdir(parents=True)
    for entry in range(entries):
        number = entry % CLASSES
        own = photos[number::CLASSES]
        (root / f"class {number}" / f"{entry:05d}.jpg").hardlink_to(own[entry // CLASSES % len(own)])
    return root


def large_folder(root: Path, work: Path) -> dict[str, Json]:
    """Runs in a process of its own: seconds to the task, to the pixels of the first look; memory; bytes on disk."""
    before = _peak()
    began = time.perf_counter()
    task = load_task(root, workdir=work)
    loaded = time.perf_counter() - began
    view = ImageView(size=224)
    task.pixels.read(view, task.support)
    looked = time.perf_counter() - began
    again = time.perf_counter()
    known = load_task(root, workdir=work)
    known.pixels.read(view, known.support)
    return {
        "entries": sum(1 for path in root.rglob("*.jpg")),
        "images of the task": len(task.paths),
        "images of the first look": len(task.support),
        "seconds to the task": round(loaded, 1),
        "seconds to the pixels of the first look": round(looked, 1),
        "seconds of both, second run": round(time.perf_counter() - again, 1),
        "peak MB before": round(before),
        "peak MB": round(_peak()),
        "MB on disk": round(sum(path.stat().st_blocks * 512 for path in work.rglob("*")) / 1e6),
    }


def _peak() -> float:
    """Most MB of this process so far (Linux; getrusage would count the parent's)."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def identify(photos: Sequence[Path], folder: Path) -> dict[str, Json]:
    """Files a second where every one has a size of its own, and where all have the same size."""
    folder.mkdir()
    most = max(path.stat().st_size for path in photos)
    same = []
    for path in photos:
        same.append(folder / path.name)
        same[-1].write_bytes(path.read_bytes().ljust(most, b"\0"))

    def speed(paths: Sequence[Path]) -> int:
        began = time.perf_counter()
        by_bytes(paths, progress=lambda _: None)
        return round(len(paths) / (time.perf_counter() - began))

    return {"files a second": speed(photos), "files a second, all of one size": speed(same)}


def drawings(count: int, rng: np.random.Generator) -> Iterator[tuple[Image.Image, int]]:
    """Circles, squares and triangles on a pale ground, drawn small and enlarged."""
    for number in range(count):
        image = Image.new("RGB", (80, 60), tuple(int(v) for v in rng.integers(180, 256, size=3)))
        pen, colour = ImageDraw.Draw(image), tuple(int(v) for v in rng.integers(0, 140, size=3))
        half = int(rng.integers(10, 18))
        x, y = int(rng.integers(half, 80 - half)), int(rng.integers(half, 60 - half))
        box = (x - half, y - half, x + half, y + half)
        if number % 3 == 0:
            pen.ellipse(box, fill=colour)
        elif number % 3 == 1:
            pen.rectangle(box, fill=colour)
        else:
            pen.polygon(((x, y - half), (x - half, y + half), (x + half, y + half)), fill=colour)
        yield image.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST), number % 3


def crops(count: int, rng: np.random.Generator) -> Iterator[tuple[Image.Image, int]]:
    """Random crops of a Chinese temple and of a flower, enlarged."""
    photos = [Image.fromarray(each) for each in load_sample_images().images]
    for number in range(count):
        source = photos[number % 2]
        width = int(rng.integers(200, 400))
        height = width * 3 // 4
        left, top = int(rng.integers(0, source.width - width)), int(rng.integers(0, source.height - height))
        box = (left, top, left + width, top + height)
        yield source.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box), number % 2


Views = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def both(data: bytes, view: ImageView) -> Views:
    """The view from all pixels, and as it is read."""
    return render(decode_image(data).image, view), read_view(data, view)[0]


def quality(count: int) -> dict[str, Json]:
    """What decoding at a part of the size changes in pixels, embeddings and zero-shot accuracy."""
    sets = {
        "drawings": (drawings, ("circle", "square", "triangle")),
        "photos": (crops, ("temple", "flower")),
    }
    candidates = [resolve(name)[0] for name in MODELS]
    found: dict[str, Json] = {}
    for name, (make, classes) in sets.items():
        files = [(jpeg(image), label) for image, label in make(count, np.random.default_rng(0))]
        labels = np.array([label for _, label in files])
        rows: dict[str, Json] = {}
        for size in VIEWS:
            pairs = [both(data, ImageView(size=size)) for data, _ in files]
            gaps = np.abs(np.stack([full.astype(np.int16) - part for full, part in pairs]))
            rows[f"pixels, {size}"] = {"mean": round(float(gaps.mean()), 3), "p99": float(np.percentile(gaps, 99))}
        for candidate in candidates:
            model = zoo.load(candidate)
            pairs = [both(data, candidate.view) for data, _ in files]
            full, part = (
                model.embed(model.normalise(np.stack(each))).detach().numpy() for each in zip(*pairs, strict=True)
            )
            texts = model.text_features(classes, ["a photo of a {}."]).numpy()
            cosines = (full * part).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(part, axis=1)
            rows[candidate.id] = {
                "smallest cosine": round(float(cosines.min()), 5),
                "zero-shot accuracy, decoded in full": round(float(((full @ texts.T).argmax(1) == labels).mean()), 4),
                "zero-shot accuracy": round(float(((part @ texts.T).argmax(1) == labels).mean()), 4),
                "images whose class changes": int(((full @ texts.T).argmax(1) != (part @ texts.T).argmax(1)).sum()),
            }
        found[name] = rows
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer photos; prints, writes nothing unless --output")
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    parser.add_argument("--folder", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(large_folder(*args.folder)))
        return
    count, timed, rounds, compared = (20, 16, 2, 4) if args.quick else (200, 96, 8, 40)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        photos = [root / f"{seed:03d}.jpg" for seed in range(count)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for path, data in zip(photos, pool.map(photo, range(count)), strict=True):
                path.write_bytes(data)
        linked(photos, root / "task", entries=ENTRIES)
        command = [sys.executable, __file__, "--folder", str(root / "task"), str(root / "work")]
        folder = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603
        found: dict[str, Json] = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Pillow {PIL.__version__}",
            "photos": {
                "different": count,
                "mean MB": round(sum(path.stat().st_size for path in photos) / count / 1e6, 2),
            },
            "speed": speeds(photos[:timed], rounds=rounds),
            "identify": identify(photos, root / "same"),
            "folder of links": folder,
            "quality": quality(compared),
        }
    text = json.dumps(found, indent=1)
    print(text)
    output = args.output or (None if args.quick else RESULT)
    if output is not None:
        output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
