"""Dense histograms of gradients, against slow loops over cells, places and pixels."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorr.backbones.dense_sift import DenseSift, gather, orientation_maps
from sdcorr.errors import BadRecipe
from sdcorr.preprocess import LARGEST, load_image
from sdcorr.recipe import read_recipe
from sdcorr.recipes import find_recipe
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap


def extract(photo: np.ndarray, **changes) -> FeatureMap:
    (maps,) = DenseSift(**changes).build(Runtime()).extract([load_image(photo)])
    return maps["gradients"]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(step: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Grey, brighter by so much from each column to the next."""
    row = 128 + step * (np.arange(width) - width // 2)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)


# The slow reference: a photo (H, W, C) of levels 0..255, float64


def slow_shrink(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """Triangles as wide as the photo is shrunk, one output pixel after another."""
    for axis, count in ((0, height), (1, width)):
        lines = np.moveaxis(photo, axis, 0)
        scale = len(lines) / count
        out = []
        for index in range(count):
            middle = (index + 0.5) * scale
            away = np.abs(np.arange(len(lines)) + 0.5 - middle) / max(scale, 1)
            weights = np.maximum(0, 1 - away)
            out.append(np.tensordot(weights / weights.sum(), lines, axes=1))
        photo = np.moveaxis(np.array(out), 0, axis)
    return photo


def slow_orientations(photo: np.ndarray, count: int, signed: bool) -> np.ndarray:
    """``(H, W, count)``"""
    height, width, channels = photo.shape
    maps, turn = np.zeros((height, width, count)), 2 * math.pi if signed else math.pi
    for y, x in np.ndindex(height, width):
        above, below = photo[max(y - 1, 0), x], photo[min(y + 1, height - 1), x]
        left, right = photo[y, max(x - 1, 0)], photo[y, min(x + 1, width - 1)]
        best = max(
            range(channels), key=lambda c: math.hypot(right[c] - left[c], below[c] - above[c])
        )
        along, down = (right[best] - left[best]) / 2, (below[best] - above[best]) / 2
        if math.hypot(along, down) <= 1e-3:
            continue
        place = (math.atan2(down, along) % turn) / turn * count
        low = math.floor(place)
        maps[y, x, low % count] += math.hypot(along, down) * (low + 1 - place)
        maps[y, x, (low + 1) % count] += math.hypot(along, down) * (place - low)
    return maps


def slow_gather(maps: np.ndarray, x: float, y: float, deviation: float) -> np.ndarray:
    """Of ``(H, W, O)`` around one place: ``(O,)``, one pixel after another; beyond it, nothing."""
    total = np.zeros(maps.shape[2])
    for row, column in np.ndindex(*maps.shape[:2]):
        square = ((row - y) ** 2 + (column - x) ** 2) / deviation**2
        total += math.exp(-square / 2) / (2 * math.pi * deviation**2) * maps[row, column]
    return total


def slow_descriptors(photo: np.ndarray, config: DenseSift) -> np.ndarray:
    """``(C, h, w)`` of a photo that needs no resizing."""
    assert max(photo.shape) == config.size
    values = photo.astype(np.float64)
    if not config.colour:
        values = values @ np.array([[0.299], [0.587], [0.114]])
    height, width, _ = values.shape
    shape = (math.ceil(height / config.stride), math.ceil(width / config.stride))
    parts = []
    for window in config.windows:
        ratio = min(1, 36 / window)
        rows, columns = max(1, round(height * ratio)), max(1, round(width * ratio))
        small = slow_shrink(values, rows, columns)
        side = window * ratio / config.places
        maps = slow_orientations(small, config.orientations, config.signed)
        deviation = max(side / 2, 0.5)
        part = np.zeros((config.places**2 * config.orientations, *shape))
        for row, column in np.ndindex(*shape):
            # centre of the cell in shrunken pixels, the first of which is 0
            y = (row + 0.5) * config.stride * rows / height - 0.5
            x = (column + 0.5) * config.stride * columns / width - 0.5
            steps = [(place - (config.places - 1) / 2) * side for place in range(config.places)]
            histograms = [
                slow_gather(maps, x + along, y + down, deviation)
                for down in steps
                for along in steps
            ]
            joined = np.concatenate(histograms)
            part[:, row, column] = joined / (joined.sum() + config.floor * 255 * config.places**2)
        parts.append(part)
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((23, 31), {}),
        ((31, 23), {"stride": 7}),  # upright
        ((19, 29), {"signed": False}),
        ((19, 29), {"colour": False, "floor": 0.5}),
        ((17, 23), {"places": 3, "orientations": 5, "stride": 4}),
        ((13, 11), {"places": 1, "orientations": 1, "windows": (3.0,)}),
        ((13, 11), {"windows": (3.0, 1.0)}),  # Gaussians narrower than pixels
        ((13, 11), {"places": 2, "stride": 20}),  # a single cell that hangs over
        ((1, 9), {"windows": (8.0, 50.0), "places": 3}),
    ],
    ids=str,
)
def test_each_cell_agrees_with_the_slow_reference(shape, changes):
    """Windows below, at and above the side from which the photo is shrunk."""
    settings = {
        "size": max(shape), "stride": 5, "windows": (10.0, 36.0, 50.0), "places": 4,
        "orientations": 8,
    }  # fmt: skip
    photo, config = noise(*shape), DenseSift(**settings | changes)
    one = extract(photo, **settings | changes)
    expected = slow_descriptors(photo, config)
    assert one.values.shape == expected.shape
    np.testing.assert_allclose(one.values.numpy(), expected, rtol=0, atol=1e-6)
    assert expected.max() > 0.005


# Orientations by hand


def bins_at_the_middle(photo: Tensor, count: int, signed: bool = True) -> list[float]:
    """Of ``(C, H, W)``, with an odd number of rows and columns."""
    maps = orientation_maps(photo, count, signed)
    assert maps.shape == (count, *photo.shape[1:])
    return maps[:, photo.shape[1] // 2, photo.shape[2] // 2].tolist()


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (0, [0.1, 0, 0, 0]),
        (45, [0.05, 0.05, 0, 0]),
        (90, [0, 0.1, 0, 0]),  # downwards
        (180, [0, 0, 0.1, 0]),
        (270, [0, 0, 0, 0.1]),
        (337.5, [0.075, 0, 0, 0.025]),  # the last bin is next to the first
    ],
)
def test_a_ramp_is_in_the_bins_next_to_its_direction(degrees, expected):
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    turn = math.radians(degrees)
    photo = 0.1 * (x * math.cos(turn) + y * math.sin(turn))[None]
    assert bins_at_the_middle(photo, 4) == pytest.approx(expected, abs=1e-6)


def test_inverted_contrast_is_told_apart_only_where_signed():
    photo = 0.1 * torch.arange(5.0).expand(1, 5, 5)
    assert bins_at_the_middle(photo, 4) == pytest.approx([0.1, 0, 0, 0])
    assert bins_at_the_middle(1 - photo, 4) == pytest.approx([0, 0, 0.1, 0], abs=1e-6)
    for one in (photo, 1 - photo):
        assert bins_at_the_middle(one, 4, signed=False) == pytest.approx([0.1, 0, 0, 0], abs=1e-6)
    upright = photo.transpose(1, 2)  # a quarter turn is half of a half turn
    assert bins_at_the_middle(upright, 4, signed=False) == pytest.approx([0, 0, 0.1, 0], abs=1e-6)


def test_the_strongest_channel_counts_and_no_other():
    """Red rises to the right by 0.1, green falls downwards by 0.2, blue is flat."""
    step = torch.arange(5.0)
    photo = torch.stack([0.1 * step.expand(5, 5), 1 - 0.2 * step[:, None].expand(5, 5),
                         torch.full((5, 5), 0.7)])  # fmt: skip
    assert bins_at_the_middle(photo, 4) == pytest.approx([0, 0, 0, 0.2], abs=1e-6)
    assert bins_at_the_middle(photo[[0, 2]], 4) == pytest.approx([0.1, 0, 0, 0], abs=1e-6)


def test_at_the_edge_half_a_difference_is_left():
    """The pixel beyond is that of the edge; an edge of nothing is no gradient."""
    photo = 0.1 * torch.arange(4.0).expand(1, 3, 4)
    found = orientation_maps(photo, 4, signed=True)
    assert found[0, 1].tolist() == pytest.approx([0.05, 0.1, 0.1, 0.05])
    assert found[1:].abs().max() < 1e-6


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_bins_share_the_whole_strength(count, signed):
    photo = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(0))
    found = orientation_maps(photo, count, signed)
    strength = np.linalg.norm(slow_orientations(photo.permute(1, 2, 0).numpy(), 1, True), axis=2)
    np.testing.assert_allclose(found.sum(dim=0).numpy(), strength, atol=1e-6)
    assert (found >= 0).all()


def test_what_rounding_leaves_is_no_gradient():
    """Levels that rise by less than 1/1000 per pixel are flat; by more, they count in full."""
    step = torch.arange(5.0).expand(1, 5, 5)
    assert orientation_maps(0.9e-3 * step, 4, signed=True).eq(0).all()
    assert bins_at_the_middle(1.1e-3 * step, 4) == pytest.approx([1.1e-3, 0, 0, 0])
    diagonal = 0.8e-3 * (step + step.transpose(1, 2))  # each axis less, both together more
    assert bins_at_the_middle(diagonal, 4) == pytest.approx([0.8e-3 / 2**0.5] * 2 + [0, 0])


# Gathering


@pytest.mark.parametrize("deviation", [0.5, 1.0, 1.7, 6.0])
def test_gather_agrees_with_a_slow_loop(deviation):
    """At whole and fractional places, also beyond the photo."""
    maps = torch.rand(2, 6, 9, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.tensor([-1.5, 0.0, 2.25, 5.4]), torch.tensor([-3.0, 3.1, 4.0, 7.75, 11.0])
    found = gather(maps, rows.double(), columns.double(), deviation)
    assert found.shape == (2, 4, 5)
    assert found.dtype == torch.float32
    values = maps.permute(1, 2, 0).double().numpy()
    for (index, row), (other, column) in itertools.product(
        enumerate(rows.tolist()), enumerate(columns.tolist())
    ):
        expected = slow_gather(values, column, row, deviation)
        np.testing.assert_allclose(found[:, index, other].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_gather_by_hand():
    """A weight is 2^(-d^2) of the most, which is the root of ln 2 / pi along each axis."""
    maps = torch.zeros(1, 9, 11)
    maps[0, 4, 5] = math.pi / math.log(2)
    rows, columns = torch.tensor([4.0, 5.0]), torch.tensor([2.0, 3.0, 4.0, 5.0, 5.5])
    found = gather(maps, rows, columns, 1 / math.sqrt(2 * math.log(2)))[0]
    expected = [2**-9, 2**-4, 2**-1, 1, 2**-0.25]
    assert found[0].tolist() == pytest.approx(expected)
    assert found[1].tolist() == pytest.approx([one / 2 for one in expected])


def test_beyond_the_edge_nothing_is_gathered():
    """Of ones: all in the middle, half on an edge, a quarter in a corner; none is made up for."""
    found = gather(torch.ones(1, 31, 41), torch.tensor([-0.5, 15.0]), torch.tensor([20.0, 40.5]), 2)
    assert found[0].tolist() == [pytest.approx([0.5, 0.25]), pytest.approx([1, 0.5])]


# Whole descriptors
# Whole descriptors


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("level", [(1, 1, 1), (127, 127, 127), (31, 127, 210), (255, 254, 77)])
@pytest.mark.parametrize("size", [60, 77, 203])
def test_a_flat_photo_gives_zeros(level, size, colour):
    """However it is resized, and shrunk for large windows."""
    flat = np.full((40, 60, 3), level, np.uint8)
    windows = (16.0, 36.0, 37.0, 50.0, 100.0, 288.0, 1000.0)
    one = extract(flat, size=size, windows=windows, colour=colour, floor=1e-6)
    assert one.values.eq(0).all()


@pytest.mark.parametrize(("step", "total"), [(3, 3 / 6), (1, 1 / 4), (6, 6 / 9)])
def test_the_floor_by_hand(step, total):
    """A floor of 3 grey levels per pixel: of a gradient of g there remains g / (g + 3)."""
    one = extract(ramp(step), size=32, stride=4, windows=(8.0,), places=2, floor=3 / 255)
    inside = one.values[:, 2:4, 3:5]  # (C, 2, 2)
    assert inside.sum(dim=0).flatten().tolist() == pytest.approx([total] * 4, abs=1e-5)
    to_the_right = inside.unflatten(0, (4, 16))[:, 0]
    assert to_the_right.flatten().tolist() == pytest.approx([total / 4] * 16, abs=1e-5)


def test_brightness_changes_nothing_and_contrast_little_above_the_floor():
    grey = cv2.GaussianBlur(noise(48, 64), (0, 0), 1)[:, :, :1].repeat(3, axis=2)
    strong, weak = grey // 4 * 2, grey // 4
    settings = {"size": 64, "stride": 8, "windows": (16.0, 60.0)}

    def values(photo: np.ndarray, floor: float) -> Tensor:
        return extract(photo, floor=floor, **settings).values

    plain = values(strong, 0.02)
    torch.testing.assert_close(values(strong + 90, 0.02), plain, rtol=0, atol=1e-6)
    assert values(weak, 0.02).sum() < 0.9 * plain.sum()
    # half the contrast over half the floor is all the same
    torch.testing.assert_close(values(weak, 0.01), plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(values(weak, 1e-6), values(strong, 1e-6), rtol=0, atol=1e-5)


def test_the_descriptor_of_a_window_adds_up_to_less_than_one(photo):
    one = extract(photo, size=160)
    sums = one.values.unflatten(0, (4, -1)).sum(dim=1)
    assert (sums > 0).all()
    assert (sums < 1).all()


def test_places_are_row_by_row():
    """A white square to the top right of the only cell: place 1 of 4 has the most."""
    photo = np.zeros((16, 16, 3), np.uint8)
    photo[2:6, 10:14] = 255
    one = extract(photo, size=16, stride=16, windows=(16.0,), places=2, orientations=4)
    by_place = one.values[:, 0, 0].unflatten(0, (4, 4)).sum(dim=1)
    assert by_place.argmax().item() == 1
    assert by_place[1] > 5 * by_place[[0, 2, 3]].max()


def test_windows_are_side_by_side():
    """As each of them alone; a large one sees what a small one does not."""
    photo = np.full((64, 64, 3), 40, np.uint8)
    photo[56:60, 4:8] = 200
    settings = {"size": 64, "stride": 8}
    both = extract(photo, windows=(16.0, 120.0), **settings).values
    alone = [extract(photo, windows=(side,), **settings).values for side in (16.0, 120.0)]
    assert torch.equal(both, torch.cat(alone))
    assert alone[0][:, 3, 3].max() < 1e-20  # 11 standard deviations away
    assert alone[1][:, 3, 3].sum() > 0.01


def test_without_colour_red_and_green_may_look_alike():
    """299 of red weigh as 587 of green: (118, 0, 0) is as bright as (0, 60, 0), nearly."""
    photo = np.zeros((32, 32, 3), np.uint8)
    photo[:, :16, 0], photo[:, 16:, 1] = 118, 60
    settings = {"size": 32, "stride": 8, "windows": (16.0,)}
    assert extract(photo, **settings).values.sum(dim=0)[2, 2] > 0.4
    assert extract(photo, colour=False, **settings).values.max() < 0.01


def test_a_shift_by_one_stride_shifts_the_map():
    """Two crops of one scene, away from the left and right border, which windows see."""
    scene = noise(48, 216)
    settings = {"size": 208, "stride": 8, "windows": (16.0, 32.0, 72.0), "orientations": 8}
    left = extract(scene[:, :208], **settings).values
    right = extract(scene[:, 8:], **settings).values
    assert not torch.allclose(left[:, :, 7], right[:, :, 7], atol=1e-2)
    small = left.shape[0] // 3 * 2
    torch.testing.assert_close(left[:small, :, 6:21], right[:small, :, 5:20], rtol=0, atol=1e-6)
    # at half the size, 8 px are 4; places are 27 px away, a Gaussian ends after 6 times 9 px
    torch.testing.assert_close(left[small:, :, 11:15], right[small:, :, 10:14], rtol=0, atol=1e-6)


@pytest.mark.parametrize("windows", [(16.0,), (60.0,)])
def test_a_transposed_photo_gives_the_transposed_map(windows):
    """Places and cells change x for y, and of eight bins each has its mirror image."""
    photo = noise(23, 31)
    settings = {"size": 31, "stride": 4, "places": 3, "orientations": 8, "windows": windows}
    plain = extract(photo, **settings).values.unflatten(0, (3, 3, 8))
    turned = extract(photo.transpose(1, 0, 2), **settings).values.unflatten(0, (3, 3, 8))
    mirrored = turned[:, :, [(2 - number) % 8 for number in range(8)]]
    torch.testing.assert_close(mirrored.permute(1, 0, 2, 4, 3), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("upright", [False, True])
def test_the_grid_covers_the_photo_unpadded(photo, upright):
    photo = np.ascontiguousarray(photo.transpose(1, 0, 2)) if upright else photo
    one = extract(photo, size=480, stride=16, windows=(36.0,))
    shorter = round(480 * 313 / 471)  # 319, no multiple of 16
    shape = (-(-shorter // 16), 30)
    assert one.grid.shape == (shape[::-1] if upright else shape)
    assert one.grid.offset == (0.0, 0.0)
    assert one.grid.image == ((471, 313) if upright else (313, 471))
    _, right, bottom, _ = one.grid.extent
    longer, other = (bottom, right) if upright else (right, bottom)
    assert longer == pytest.approx(470.5)
    assert 312.5 <= other < 312.5 + one.grid.stride[0]


def test_cells_lie_where_the_grid_says():
    """The only edge of a resized photo is strongest in the cells that hold it."""
    photo = np.zeros((300, 450, 3), np.uint8)
    photo[:, 318:] = 255  # between pixels 317 and 318
    one = extract(photo, size=150, stride=4, windows=(8.0,))
    column = one.values.sum(dim=0)[10].argmax().item()
    x = one.grid.centers()[10 * one.grid.shape[1] + column, 0].item()
    assert abs(x - 317.5) <= one.grid.stride[0] / 2 + 1e-9


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, 4 * 16 * 16), ({"windows": (8.0,), "places": 3, "orientations": 5}, 45)],
)
def test_channels(changes, expected):
    config = DenseSift(**{"size": 64, **changes})
    assert config.build(Runtime()).channels == {"gradients": expected}
    assert extract(noise(40, 50), **{"size": 64, **changes}).values.shape[0] == expected


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (3, 5)])
def test_tiny_and_thin_photos(shape):
    one = extract(noise(*shape))
    assert torch.isfinite(one.values).all()
    assert one.grid.inside().any()


# Fields


def refused(changes: dict[str, object], message: str) -> None:
    """In Python, and in a recipe."""
    with pytest.raises(BadRecipe, match=message):
        DenseSift(**changes)
    described = find_recipe("sift").describe()
    plain = {name: list(one) if isinstance(one, tuple) else one for name, one in changes.items()}
    described["groups"][0]["backbone"] = {"kind": "dense_sift"} | plain
    with pytest.raises(BadRecipe, match=message):
        read_recipe(described)


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 0}, {"stride": -1}, {"size": 0}, {"size": LARGEST + 1}, {"floor": 0.0},
        {"floor": -0.02}, {"floor": 0.9e-6}, {"floor": 1.01},
    ],
    ids=str,
)  # fmt: skip
def test_a_stride_size_or_floor_out_of_range_is_refused(changes):
    refused(changes, f"expected stride above 0, size 1 to {LARGEST} px, floor 1e-6 to 1; got ")


@pytest.mark.parametrize(
    "windows", [(), (36.0, 0.0), (0.9,), (36.0, LARGEST + 0.5), (-36.0,)], ids=str
)
def test_windows_out_of_range_are_refused(windows):
    refused({"windows": windows}, f"expected windows of 1 to {LARGEST} px, got ")


@pytest.mark.parametrize("name", ["places", "orientations"])
@pytest.mark.parametrize("count", [0, -1, 65])
def test_places_and_orientations_out_of_range_are_refused(name, count):
    refused({name: count}, f"expected 1 to 64 places and orientations, got .*{count}")


@pytest.mark.parametrize("changes", [{"windows": (math.nan,)}, {"floor": math.inf}], ids=str)
def test_fields_must_be_finite(changes):
    refused(changes, "must be finite")


def test_the_limits_themselves_are_accepted():
    DenseSift(size=LARGEST, windows=(1.0, float(LARGEST)), places=64, orientations=64, floor=1.0)
    DenseSift(size=1, stride=1, windows=(1.0,), places=1, orientations=1, floor=1e-6)


def test_the_smallest_windows_and_floor_are_finite(photo):
    one = extract(photo, size=64, windows=(1.0,), places=64, orientations=1, floor=1e-6)
    assert torch.isfinite(one.values).all()
