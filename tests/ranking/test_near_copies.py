"""Near copies are told by how much closer they are than images usually are."""

import numpy as np

from vlmsel_auto.ranking.near_copies import near_copies


def world(*, copies: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """160 images of four classes, and near copies of the first ones."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(4, 16))[np.arange(160) % 4] + rng.normal(size=(160, 16))
    return np.concatenate([images, images[:copies] + 0.05 * rng.normal(size=(copies, 16))]), np.arange(160 + copies) % 8


def test_held_out_images_with_near_copies_are_found_with_their_twins():
    images, sides = world(copies=20)
    sides[160:] = (sides[:20] + 1) % 8
    found = near_copies([images, 3 * images + 5], held_out=np.arange(180), sides=sides)
    assert found.shows
    assert set(found.images) == {*range(20), *range(160, 180)}
    assert (np.abs(found.images - found.twins) == 160).all()


def test_what_is_held_out_together_or_never_learned_from_is_no_copy():
    images, sides = world(copies=20)
    for twins in (sides[:20], -1):
        sides[160:] = twins
        assert not len(near_copies([images], held_out=np.arange(160), sides=sides).images)


def test_a_few_copies_are_a_folder_s_everyday_ones_and_few_images_say_nothing():
    images, sides = world(copies=4)
    sides[160:] = (sides[:4] + 1) % 8
    found = near_copies([images], held_out=np.arange(164), sides=sides)
    assert (len(found.images), found.compared, found.shows) == (8, 164, False)
    assert not near_copies([images[:40]], held_out=np.arange(40), sides=sides[:40]).shows
    assert not near_copies([images], held_out=np.arange(0), sides=sides).shows
