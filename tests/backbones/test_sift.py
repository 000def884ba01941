from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sdcorr.backbones.sift import Sift
from sdcorr.errors import BadRecipe
from sdcorr.preprocess import load_image
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap


def extract(photo: np.ndarray, **changes) -> FeatureMap:
    (maps,) = Sift(**changes).build(Runtime()).extract([load_image(photo)])
    return maps["rootsift"]


def test_one_size_equals_opencv_cell_by_cell(photo):
    """At a photo's own size: OpenCV's descriptor at each centre, L1, square root."""
    one = extract(photo, size=471, stride=20, diameters=(6.0,))
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    assert one.grid.shape == (16, 24)
    for cell, (x, y) in enumerate(one.grid.centers().tolist()):
        _, raw = cv2.SIFT_create().compute(grey, [cv2.KeyPoint(x, y, 6.0, 0.0)])
        expected = np.sqrt(raw[0] / max(np.abs(raw[0]).sum(), 1))
        np.testing.assert_allclose(one.descriptors()[cell].numpy(), expected, atol=1e-6)


def test_descriptors_are_unit_per_size_or_zero(photo):
    one = extract(photo)
    for part in one.descriptors().split(128, dim=1):
        norms = part.norm(dim=1)
        assert ((norms - 1).abs().lt(1e-5) | norms.eq(0)).all()


def test_a_flat_photo_gives_zeros():
    assert extract(np.full((40, 60, 3), 127, np.uint8)).values.eq(0).all()


def test_the_grid_covers_the_photo_unpadded(photo):
    one = extract(photo, size=480, stride=8)
    height = round(480 * 313 / 471)  # 319, no multiple of 8
    assert one.grid.shape == (-(-height // 8), 60)
    assert one.grid.offset == (0.0, 0.0)
    _, right, bottom, _ = one.grid.extent
    assert right == pytest.approx(470.5)
    assert bottom >= 312.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (3, 5)])
def test_tiny_and_thin_photos(shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    one = extract(photo)
    assert one.values.shape[0] == 384
    assert torch.isfinite(one.values).all()
    assert one.grid.inside().any()


def test_a_shifted_photo_shifts_the_descriptors():
    scene = np.random.default_rng(0).integers(0, 256, (160, 240, 3), dtype=np.uint8)
    scene = cv2.GaussianBlur(scene, (0, 0), 2)
    left = extract(scene[:, :160], size=160, stride=8, diameters=(6.0,)).values
    right = extract(scene[:, 80:], size=160, stride=8, diameters=(6.0,)).values
    # ten cells apart; away from the borders, which descriptors see
    torch.testing.assert_close(left[:, 6:14, 14:15], right[:, 6:14, 4:5], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "changes", [{"size": 0}, {"stride": -1}, {"diameters": ()}, {"diameters": (0.0,)}]
)
def test_fields_must_be_positive(changes):
    with pytest.raises(BadRecipe, match="must be positive"):
        Sift(**changes)
