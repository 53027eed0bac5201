"""Small webdatasets as CLIP benchmark has them: drawn shapes in tar archives, with names and templates."""

import io
import tarfile

import numpy as np

from helpers.drawings import SHAPES, draw_shape

TEMPLATES = "a drawing of a {c}.\na {c}.\n"


def encoded(shape, rng, *, kind="png", size=48):
    """The bytes of one drawn image."""
    stream = io.BytesIO()
    draw_shape(shape, rng, size=size).save(stream, format={"jpg": "jpeg"}.get(kind, kind), lossless=True)
    return stream.getvalue()


def members(count, *, shapes=SHAPES, seed=0, kind="png", ordered=True, size=48):
    """(name, bytes) of the files of ``count`` samples, sorted by class or in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = number * len(shapes) // count if ordered else number % len(shapes)
        key = f"s{number:07d}"
        image = encoded(shapes[label], rng, kind=kind, size=size)
        found += [(f"{key}.cls", str(label).encode()), (f"{key}.{kind}", image)]
    return found


def archive(files):
    """The bytes of a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def webdataset(*, count=40, shards=2, shapes=SHAPES, seed=0, templates=TEMPLATES, **more):
    """Files of a repository by name: ``test/0.tar``, ..., class names and templates."""
    files = {"classnames.txt": "".join(f"{shape}\n" for shape in shapes).encode()}
    if templates:
        files["zeroshot_classification_templates.txt"] = templates.encode()
    every = members(count, shapes=shapes, seed=seed, **more)
    for shard in range(shards):
        part = every[2 * (shard * count // shards) : 2 * ((shard + 1) * count // shards)]
        files[f"test/{shard}.tar"] = archive(part)
    return files


def serve(hub, repository, **more):
    """Serve a webdataset as data set ``repository`` of a loopback hub."""
    for name, data in webdataset(**more).items():
        hub.add(f"datasets/{repository}", name, data)
