import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmsel_auto.tuning.augment import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int = 4, size: int = 16) -> torch.Tensor:
    values = np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(values)


def test_strength_zero_is_the_identity() -> None:
    images = pixels()
    assert augment(images, strength=0.0, generator=generator()) is images


@settings(max_examples=20, deadline=None)
@given(strength=st.floats(0.01, 1.0), seed=st.integers(0, 1000))
def test_shape_type_and_range_stay(strength: float, seed: int) -> None:
    images = pixels()
    changed = augment(images, strength=strength, generator=generator(seed))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    floats = images.permute(0, 3, 1, 2).float() / 255
    as_floats = augment(floats, strength=strength, generator=generator(seed))
    assert as_floats.dtype == torch.float32
    assert 0 <= float(as_floats.min()) <= float(as_floats.max()) <= 1
    back = (as_floats * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(back, changed)  # bytes and floats are the same change


def test_seed_decides_and_images_differ() -> None:
    same = torch.full((2, 16, 16, 3), 90, dtype=torch.uint8)
    same[:, 4:8, 4:12] = 200
    first = augment(same, strength=0.7, generator=generator(3))
    assert torch.equal(first, augment(same, strength=0.7, generator=generator(3)))
    assert not torch.equal(first, augment(same, strength=0.7, generator=generator(4)))
    assert not torch.equal(first[0], first[1])


def test_stronger_changes_more() -> None:
    smooth = torch.linspace(0, 1, 32).expand(16, 3, 32, 32)
    away = [
        float((augment(smooth, strength=strength, generator=generator()) - smooth).abs().mean())
        for strength in (0.05, 0.3, 1.0)
    ]
    assert 0 < away[0] < away[1] < away[2]


def test_no_image_is_mirrored_unless_asked_for() -> None:
    ramp = torch.linspace(0, 1, 32).expand(64, 3, 32, 32)
    kept = augment(ramp, strength=1.0, generator=generator())
    assert bool((kept[..., -4:].mean(dim=(1, 2, 3)) > kept[..., :4].mean(dim=(1, 2, 3))).all())
    flipped = augment(ramp, strength=0.0, generator=generator(), flip=True)
    turned = flipped[..., -1].mean(dim=(1, 2)) < 0.5
    assert 10 < int(turned.sum()) < 54


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range(strength: float) -> None:
    with pytest.raises(ValueError, match=r"strength .* must lie in \[0, 1\], but got"):
        augment(pixels(), strength=strength, generator=generator())


def test_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"but got torch\.uint8 of shape"):
        augment(pixels().permute(0, 3, 1, 2), strength=0.5, generator=generator())
