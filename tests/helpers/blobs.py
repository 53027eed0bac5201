"""Drawn embeddings of separated classes."""

import numpy as np


def blobs(*, n=60, d=12, classes=4, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = rng.normal(size=(classes, d))
    return centres[labels] + spread * rng.normal(size=(n, d)) + 0.3, labels


def texts_and_images(*, n=60, d=8, classes=3, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(classes, d))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    labels = np.arange(n) % classes
    return texts[labels] + spread * rng.normal(size=(n, d)), labels, texts
