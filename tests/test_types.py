from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorr.errors import NotFinite, SdcorrError
from sdcorr.geometry import Grid, Size
from sdcorr.types import Encoding, FeatureMap, Image, Matches

PLAIN = Grid((2, 3), (4.0, 4.0), (0.0, 0.0), Size(8, 12))
# rows 1 to 3 of five and all seven columns lie on the photo
LETTERBOX = Grid((5, 7), (6.75, 6.5), (0.0, -7.0), Size(20, 47))
PILLARBOX = Grid((7, 5), (6.5, 6.75), (-7.0, 0.0), Size(47, 20))
STRIP = Grid((4, 6), (10.0, 14.0), (0.0, -28.0), Size(1, 60))
ONE_CELL = Grid((1, 1), (9.0, 5.0), (0.0, 0.0), Size(5, 9))
GRIDS = pytest.mark.parametrize(
    "grid",
    [PLAIN, LETTERBOX, PILLARBOX, STRIP, ONE_CELL],
    ids=["plain", "letterbox", "pillarbox", "strip", "one_cell"],
)


def random_map(grid: Grid, channels: int = 3) -> FeatureMap:
    generator = torch.Generator().manual_seed(0)
    return FeatureMap("layer", torch.randn(channels, *grid.shape, generator=generator), grid)


def points_on(grid: Grid, count: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    left, right, bottom, top = grid.image.extent
    low, high = torch.tensor([left, top]), torch.tensor([right, bottom])
    return low + (high - low) * torch.rand(count, 2, generator=generator, dtype=torch.float64)


def slow_sample(features: FeatureMap, x: float, y: float) -> Tensor:
    grid = features.grid
    cells = grid.inside().reshape(grid.shape).nonzero()
    (top, left), (bottom, right) = cells.min(0).values.tolist(), cells.max(0).values.tolist()
    column, row = grid.to_cells(torch.tensor([[x, y]], dtype=torch.float64))[0].tolist()
    column, row = min(max(column, left), right), min(max(row, top), bottom)
    total = torch.zeros(len(features.values), dtype=torch.float64)
    for r in {math.floor(row), math.ceil(row)}:
        for c in {math.floor(column), math.ceil(column)}:
            weight = (1 - abs(row - r)) * (1 - abs(column - c))
            total += weight * features.values[:, r, c]
    return total


def photo(height: int = 24, width: int = 32) -> Image:
    return Image(np.full((height, width, 3), 90, np.uint8))


def three_matches(**changes: object) -> Matches:
    numbers = torch.arange(3, dtype=torch.float64)
    values: dict[str, object] = {
        "source": torch.stack([numbers, numbers + 10], dim=1),
        "target": torch.stack([numbers + 20, numbers + 1], dim=1),
        "score": numbers / 10,
        "margin": numbers + 100,
        "cycle_error": numbers + 200,
        "peak": numbers + 300,
        "matched": torch.tensor([True, False, True]),
    }
    return Matches(**(values | changes))


def test_size_of_an_image_is_height_then_width():
    image = Image(np.zeros((2, 5, 3), np.uint8))
    assert image.size == Size(height=2, width=5)
    assert Encoding(image, {}, {}, {}).size == Size(height=2, width=5)


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 2, 4), (2, 3), (1, 4, 2, 3)])
def test_values_of_another_shape_than_the_grid_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"'layer11': expected \(C, h, w\) .* = \(2, 3\), got"):
        FeatureMap("layer11", torch.zeros(shape), PLAIN)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_value_that_is_not_finite_names_the_map(poison: float, dtype: str):
    values = torch.zeros(2, 2, 3, dtype=getattr(torch, dtype))
    values[1, 0, 2] = poison
    with pytest.raises(NotFinite, match="'layer11' is not finite"):
        FeatureMap("layer11", values, PLAIN)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_values_become_float32(dtype: torch.dtype):
    values = torch.tensor([0.25, -3.0, 0.0, 8.0, 1.5, 2.0], dtype=dtype).reshape(1, 2, 3)
    features = FeatureMap("layer", values, PLAIN)
    assert features.values.dtype == torch.float32
    assert features.values.flatten().tolist() == [0.25, -3.0, 0.0, 8.0, 1.5, 2.0]


def test_descriptors_go_row_by_row():
    values = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[10, 20, 30], [40, 50, 60]]])
    assert FeatureMap("layer", values, PLAIN).descriptors().tolist() == [
        [1, 10], [2, 20], [3, 30],
        [4, 40], [5, 50], [6, 60],
    ]  # fmt: skip


def test_sample_between_two_cells_by_hand():
    values = torch.tensor([[[0.0, 8.0, 16.0], [100.0, 108.0, 116.0]]])
    # centres at x 1.5, 5.5, 9.5 and y 1.5, 5.5: (2.5, 1.5) is a quarter of the way to 8
    points = torch.tensor([[2.5, 1.5], [1.5, 4.5], [9.5, 5.5], [3.5, 3.5]])
    sampled = FeatureMap("layer", values, PLAIN).sample(points)
    torch.testing.assert_close(sampled, torch.tensor([[2.0], [75.0], [116.0], [54.0]]))


@GRIDS
def test_sample_agrees_with_a_slow_bilinear_loop(grid: Grid):
    features, points = random_map(grid), points_on(grid)
    expected = torch.stack([slow_sample(features, x, y) for x, y in points.tolist()]).float()
    # coordinates pass through float32: 1e-7 of a few cells, on values of a few units
    torch.testing.assert_close(features.sample(points), expected, rtol=0, atol=1e-5)


@GRIDS
def test_sample_at_inside_centers_gives_their_descriptors(grid: Grid):
    features, inside = random_map(grid), grid.inside()
    sampled = features.sample(grid.centers()[inside])
    # as above: the weight of a neighbour is at most a rounding error
    torch.testing.assert_close(sampled, features.descriptors()[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [LETTERBOX, PILLARBOX, STRIP])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sample_never_mixes_in_padding(grid: Grid, dtype: torch.dtype):
    values = (~grid.inside()).reshape(1, *grid.shape) * 1000.0
    left, right, bottom, top = grid.image.extent
    edges = torch.tensor([[left, top], [right, top], [left, bottom], [right, bottom]])
    points = torch.cat([points_on(grid), edges, edges * 3 - 50]).to(dtype)
    # rounding to float32 lets a millionth of a neighbour through
    assert FeatureMap("layer", values, grid).sample(points).abs().max() < 1e-2


@GRIDS
def test_sample_of_no_points(grid: Grid):
    assert random_map(grid, channels=3).sample(torch.zeros(0, 2)).shape == (0, 3)


def test_sample_of_whole_number_points_is_that_of_floats():
    features, points = random_map(LETTERBOX), torch.tensor([[30, 11], [4, 2]])
    torch.testing.assert_close(features.sample(points), features.sample(points.double()))


def test_length_is_the_number_of_matches():
    assert len(three_matches()) == 3


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([1, 1]), [1, 1]),
        (torch.tensor([False, False, False]), []),
        (torch.tensor([], dtype=torch.int64), []),
    ],
    ids=["mask", "indices", "repeated", "empty_mask", "empty_indices"],
)
def test_select_takes_the_same_entries_of_every_field(keep: Tensor, kept: list[int]):
    source_image, target_image = photo(), photo(10, 20)
    matches = three_matches(
        names=("nose", "tail", "ear"),
        confidence=torch.tensor([0.5, 0.6, 0.7]),
        source_image=source_image,
        target_image=target_image,
    )
    chosen = matches.select(keep)
    assert len(chosen) == len(kept)
    assert chosen.names == tuple(("nose", "tail", "ear")[index] for index in kept)
    for name in (
        "source", "target", "score", "margin", "cycle_error", "peak", "matched", "confidence",
    ):  # fmt: skip
        assert getattr(chosen, name).tolist() == [getattr(matches, name).tolist()[i] for i in kept]
    assert chosen.source_image is source_image
    assert chosen.target_image is target_image


def test_select_without_names_or_confidence_makes_none_up():
    chosen = three_matches().select(torch.tensor([1]))
    assert chosen.names is None
    assert chosen.confidence is None
    assert chosen.source.tolist() == [[1.0, 11.0]]


def test_a_notebook_shows_a_png():
    picture = three_matches(source_image=photo(), target_image=photo(10, 20))._repr_png_()
    assert picture is not None
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("present", [(), ("source_image",), ("target_image",)])
def test_without_both_photos_there_is_no_picture(present: tuple[str, ...]):
    matches = three_matches(**{name: photo() for name in present})
    assert matches._repr_png_() is None
    with pytest.raises(SdcorrError, match="photo"):
        matches.plot()
