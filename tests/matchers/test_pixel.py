from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.fusion import FusedSimilarity
from sdcorr.geometry import Grid, Size
from sdcorr.matchers import _rows, pixel
from sdcorr.matchers.pixel import Pixel, pixel_cells, products_of
from sdcorr.preprocess import fit
from sdcorr.types import FeatureMap, Image

SHAPES = {
    "square": ((7, 7), Size(61, 61), Size(53, 53)),
    "landscape and portrait": ((7, 7), Size(43, 97), Size(89, 31)),
    "even cells": ((8, 8), Size(59, 101), Size(101, 61)),
    "oblong grid": ((3, 5), Size(67, 41), Size(29, 83)),
    "whole pixels a cell": ((6, 6), Size(48, 60), Size(60, 36)),
    "one row": ((1, 6), Size(11, 59), Size(13, 47)),
    "one cell": ((1, 1), Size(11, 17), Size(5, 7)),
    "fewer pixels than cells": ((9, 9), Size(5, 4), Size(4, 5)),
    "about as many pixels as cells": ((9, 9), Size(10, 8), Size(11, 7)),
    "one pixel": ((3, 3), Size(1, 1), Size(1, 1)),
    "one pixel high": ((4, 4), Size(1, 37), Size(41, 1)),
}


def stretched(shape: tuple[int, int], photo: Size) -> Grid:
    return Grid(shape, (photo.width / shape[1], photo.height / shape[0]), (0.0, 0.0), photo)


def random_map(grid: Grid, seed: int, channels: int = 16) -> FeatureMap:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(channels, *grid.shape, generator=generator)
    lengths = torch.rand(grid.shape, generator=generator) * 5 + 0.1  # raw maps are of any length
    return FeatureMap("m", values * lengths, grid)


def whole_pixels(photo: Size, count: int = 20, seed: int = 0) -> Tensor:
    """Some pixels ``(N, 2)``, corners among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(photo.width, (count,), generator=generator)
    y = torch.randint(photo.height, (count,), generator=generator)
    ends = torch.tensor([[0, 0], [photo.width - 1, photo.height - 1]])
    return torch.cat([torch.stack([x, y], dim=1), ends]).double()


def published(feature_map: FeatureMap) -> Tensor:
    """Unit descriptors ``(C, H, W)`` float64: the map upsampled to the size of its photo."""
    values = F.interpolate(
        feature_map.values[None].double(),
        size=tuple(feature_map.grid.image), mode="bilinear", align_corners=False,
    )[0]  # fmt: skip
    return F.normalize(values, dim=0, eps=1e-30)


def pixel_by_pixel(feature_map: FeatureMap) -> Tensor:
    """The same on any grid, cells on padding clamped away, each pixel on its own."""
    grid = feature_map.grid
    cells = grid.inside().reshape(grid.shape).nonzero()
    (top, left), (bottom, right) = cells.amin(0).tolist(), cells.amax(0).tolist()
    values = feature_map.values.double()
    out = torch.zeros(len(values), *grid.image, dtype=torch.float64)
    for y in range(grid.image.height):
        row = (y + 0.5 - grid.offset[1]) / grid.stride[1] - 0.5
        row = min(max(row, top), bottom)
        for x in range(grid.image.width):
            column = (x + 0.5 - grid.offset[0]) / grid.stride[0] - 0.5
            column = min(max(column, left), right)
            for r in {math.floor(row), math.ceil(row)}:
                for c in {math.floor(column), math.ceil(column)}:
                    weight = (1 - abs(row - r)) * (1 - abs(column - c))
                    out[:, y, x] += weight * values[:, r, c]
    return F.normalize(out, dim=0, eps=1e-30)


def nearest_cells(grid: Grid) -> Tensor:
    """The cell of each pixel, row by row: ``(H*W,)``."""
    y, x = torch.meshgrid(*map(torch.arange, grid.image), indexing="ij")
    return grid.cell_of(torch.stack([x, y], dim=-1).reshape(-1, 2).double())


@dataclass(frozen=True)
class Found:
    place: list[float]
    score: float
    margin: float
    peak: float


def find_slowly(
    source: Tensor, target: Tensor, point: Tensor, cells: Tensor, grid: Grid, allowed: Tensor
) -> Found:
    """The first best pixel; margin and peak of cells, each with its best allowed pixel."""
    x, y = point.long().tolist()
    cosines = torch.einsum("c,chw->hw", source[:, y, x], target).flatten()
    cosines = cosines.masked_fill(~allowed, -math.inf)
    # pixels beyond the outermost cells' centres read one descriptor, but for rounding in float64
    best = int((cosines > cosines.max() - 1e-12).int().argmax())
    by_cell: dict[int, float] = {}
    for cell, cosine in zip(cells.tolist(), cosines.tolist(), strict=True):
        if cosine > -math.inf:
            by_cell[cell] = max(by_cell.get(cell, -math.inf), cosine)
    width, home = grid.shape[1], int(cells[best])
    far = [
        value
        for cell, value in by_cell.items()
        if max(abs(cell // width - home // width), abs(cell % width - home % width)) > 2
    ]
    score = cosines[best].item()
    return Found(
        [float(best % grid.image.width), float(best // grid.image.width)],
        score,
        score - max(far) if far else math.inf,
        score - sum(by_cell.values()) / len(by_cell),
    )


def compare(similarity: FusedSimilarity, source: Tensor, target: Tensor, points: Tensor) -> None:
    """Every number of the matches with those of upsampled unit descriptors ``(C, H, W)``."""
    matches = Pixel()(similarity, points)
    grid, home_grid = similarity.target, similarity.source
    cells, home_cells = nearest_cells(grid), nearest_cells(home_grid)
    allowed, home_allowed = (
        torch.ones(len(of)).bool() if mask is None else mask[of]
        for mask, of in (
            (similarity.foreground, cells), (similarity.source_foreground, home_cells)
        )
    )  # fmt: skip
    for index, point in enumerate(points):
        found = find_slowly(source, target, point, cells, grid, allowed)
        assert matches.target[index].tolist() == found.place
        # a score near 1 of float32 values
        assert matches.score[index].item() == pytest.approx(found.score, abs=1e-5)
        assert matches.margin[index].item() == pytest.approx(found.margin, abs=2e-5)
        assert matches.peak[index].item() == pytest.approx(found.peak, abs=2e-5)
        there = torch.tensor(found.place, dtype=torch.float64)
        back = find_slowly(target, source, there, home_cells, home_grid, home_allowed)
        error = (torch.tensor(back.place, dtype=torch.float64) - point).norm().item()
        assert matches.cycle_error[index].item() == pytest.approx(error, abs=1e-6)


def flat_cosines(feature_map: FeatureMap, query: Tensor) -> Tensor:
    """Cosines of one vector with every pixel ``(H, W)``, as the matcher computes them."""
    grid = feature_map.grid
    columns, lines = pixel_cells(grid)
    y = pixel._taps(lines, grid.shape[0], torch.device("cpu"))
    x = pixel._taps(columns, grid.shape[1], torch.device("cpu"))
    query = F.normalize(query[None], dim=1, eps=1e-30)
    values = feature_map.values
    lengths = products_of(values).lengths(y, x)
    return torch.cat([band[0] for _, band in pixel.bands(values, query, lengths, y, x)])


# By hand


def test_the_pixel_between_two_cells_by_hand():
    """Cells (1, 0) and (0, 1), two pixels each: pixel descriptors have angles of 0 to 90 degrees.

    Cells of 2 px have their centres at 0.5 and 2.5 px, so pixel 1 is at a quarter: (0.75, 0.25),
    and pixel 2 is (0.25, 0.75). A source along (1, 3) is found at pixel 2.
    """
    grid = Grid((1, 2), (2.0, 2.0), (0.0, 0.0), Size(2, 4))
    one = Grid((1, 1), (3.0, 3.0), (0.0, 0.0), Size(3, 3))
    source = FeatureMap("s", torch.tensor([2.0, 6.0])[:, None, None], one)
    target = FeatureMap("t", torch.eye(2)[:, None], grid)
    matches = Pixel()(FusedSimilarity(source, target), torch.tensor([[1.0, 2.0]]).double())
    assert matches.target.tolist() == [[2.0, 0.0]]  # and in row 1 alike; the first wins
    assert matches.score.item() == pytest.approx(1.0)
    # the cells' best pixels: (0.75, 0.25) of the left one, cosine 0.6, and (0.25, 0.75)
    assert matches.peak.item() == pytest.approx(1.0 - (0.6 + 1.0) / 2)
    assert matches.margin.item() == math.inf
    assert matches.cycle_error.item() == pytest.approx(math.hypot(1, 2))  # home is pixel (0, 0)
    assert matches.matched.tolist() == [True]


# By reference


@pytest.mark.parametrize("case", SHAPES)
def test_every_number_agrees_with_maps_upsampled_to_the_photos(case):
    shape, source_photo, target_photo = SHAPES[case]
    source = random_map(stretched(shape, source_photo), 0)
    target = random_map(stretched(shape, target_photo), 1)
    compare(
        FusedSimilarity(source, target),
        published(source), published(target), whole_pixels(source_photo),
    )  # fmt: skip


def letterboxed(photo: Size, size: int, cell: int) -> Grid:
    """As the backbones do it."""
    canvas = fit(Image(torch.zeros(*photo, 3, dtype=torch.uint8).numpy()), size, "letterbox")
    return canvas.grid((size // cell, size // cell), cell)


@pytest.mark.parametrize(
    ("source_photo", "target_photo"),
    [(Size(23, 47), Size(61, 29)), (Size(3, 40), Size(40, 3)), (Size(7, 5), Size(31, 33))],
    ids=str,
)
def test_letterboxed_grids_agree_with_a_loop_over_the_photo_s_pixels(source_photo, target_photo):
    source = random_map(letterboxed(source_photo, 96, 8), 2)
    target = random_map(letterboxed(target_photo, 96, 8), 3)
    assert not target.grid.inside().all() or target_photo == Size(31, 33)
    compare(
        FusedSimilarity(source, target),
        pixel_by_pixel(source), pixel_by_pixel(target), whole_pixels(source_photo, 8),
    )  # fmt: skip


def test_cells_on_padding_are_never_read():
    source, target = (
        random_map(letterboxed(photo, 96, 8), seed)
        for seed, photo in enumerate((Size(23, 47), Size(61, 29)))
    )
    points = whole_pixels(source.grid.image)
    other = []
    for one in (source, target):
        values = one.values.clone()
        values[:, ~one.grid.inside().reshape(one.grid.shape)] = 1e6
        other.append(FeatureMap("m", values, one.grid))
    clean, loaded = (Pixel()(FusedSimilarity(*maps), points) for maps in ((source, target), other))
    for name in ("target", "score", "margin", "peak", "cycle_error", "matched"):
        assert torch.equal(getattr(clean, name), getattr(loaded, name))
    assert target.grid.image.contains(clean.target).all()


def test_only_pixels_on_the_foreground_are_matched():
    draw = torch.Generator().manual_seed(0)
    source = random_map(stretched((7, 7), Size(43, 97)), 0)
    target = random_map(stretched((9, 9), Size(61, 47)), 1)
    masks = [torch.rand(one.values[0].numel(), generator=draw) > 0.7 for one in (source, target)]
    similarity = FusedSimilarity(source, target, *masks)
    points = whole_pixels(Size(43, 97))
    compare(similarity, published(source), published(target), points)
    found = Pixel()(similarity, points)
    assert masks[1][target.grid.cell_of(found.target)].all()
    everywhere = Pixel()(FusedSimilarity(source, target), points)
    assert not torch.equal(found.target, everywhere.target)


def test_a_foreground_cell_that_is_no_pixel_s_nearest():
    """A photo of 5 x 4 px under 9 x 9 cells: the pixel that holds the cell's centre stands for it.

    The numbers must be such that they can be written as JSON.
    """
    grid = stretched((9, 9), Size(4, 5))
    held = torch.bincount(nearest_cells(grid), minlength=81) > 0
    cell = int((~held).nonzero()[30])
    foreground = torch.zeros(81, dtype=torch.bool)
    foreground[cell] = True
    one = random_map(grid, 0)
    points = whole_pixels(grid.image)
    matches = Pixel()(FusedSimilarity(one, one, foreground, foreground), points)
    x, y = grid.centers()[cell].tolist()
    assert matches.target.tolist() == [[round(x), round(y)]] * len(points)
    assert torch.isfinite(matches.score).all()
    assert not torch.isnan(matches.peak).any()
    assert not torch.isnan(matches.margin).any()
    assert torch.isfinite(matches.cycle_error).all()


def test_what_all_points_share_is_computed_once(monkeypatch):
    """On the demo's page each click is a call of its own."""
    source, target = (random_map(stretched((6, 7), Size(40, 50)), seed) for seed in (0, 1))
    similarity, points = FusedSimilarity(source, target), torch.tensor([[3.0, 4.0], [30.5, 21.0]])
    plain = Pixel()(similarity, points.double())
    calls = []
    monkeypatch.setattr(pixel, "products_of", lambda one: calls.append(one) or products_of(one))
    prepared = Pixel().prepare(similarity)
    for index in range(2):
        one = Pixel()(prepared, points[index : index + 1].double())
        assert torch.equal(one.target[0], plain.target[index])
        assert one.score[0].item() == pytest.approx(plain.score[index].item(), abs=1e-6)
        assert torch.equal(one.cycle_error[0], plain.cycle_error[index])
    assert len(calls) == 2  # a map each
    assert Pixel().prepare(prepared) is prepared


@pytest.mark.parametrize(("shape", "photo"), [((5, 7), Size(37, 61)), ((9, 9), Size(4, 5))])
def test_lengths_agree_with_a_loop_in_float64(shape, photo):
    one = random_map(stretched(shape, photo), 4, channels=8)
    columns, lines = pixel_cells(one.grid)
    y = pixel._taps(lines, shape[0], torch.device("cpu"))
    x = pixel._taps(columns, shape[1], torch.device("cpu"))
    lengths = products_of(one.values).lengths(y, x)
    assert lengths.shape == tuple(photo)
    values = one.values.double()
    for row in range(photo.height):
        for column in range(photo.width):
            down, along = lines[row].item(), columns[column].item()
            total = torch.zeros(8, dtype=torch.float64)
            for r in {math.floor(down), math.ceil(down)}:
                for c in {math.floor(along), math.ceil(along)}:
                    weight = (1 - abs(down - r)) * (1 - abs(along - c))
                    total += weight * values[:, r, c]
            assert lengths[row, column].item() == pytest.approx(total.norm().item(), rel=1e-5)


# Zero, opposite and equal descriptors


def test_zero_descriptors_are_similar_to_nothing():
    grid = stretched((8, 8), Size(40, 40))
    one = random_map(grid, 0)
    values = one.values.clone()
    values[:, :4, :] = 0  # all that the pixels of rows 0 to 17 read
    half = FeatureMap("half", values, grid)
    cosines = flat_cosines(half, one.values[:, 6, 6])
    assert cosines[:18].eq(0).all()
    assert torch.isfinite(cosines).all()
    points = torch.tensor([[3.0, 3.0], [20.0, 30.0]], dtype=torch.float64)
    from_half = Pixel()(FusedSimilarity(half, one), points)
    assert from_half.score[0].item() == 0
    assert from_half.matched.tolist() == [False, True]
    nothing = FeatureMap("nothing", torch.zeros(16, 8, 8), grid)
    to_nothing = Pixel()(FusedSimilarity(one, nothing), points)
    assert to_nothing.score.tolist() == [0, 0]
    assert to_nothing.matched.tolist() == [False, False]
    for matches in (from_half, to_nothing):
        assert torch.isfinite(matches.peak).all()
        assert torch.isfinite(matches.cycle_error).all()


def test_opposite_neighbours_meet_at_zero():
    """u and -u, nine pixels: pixel 4 lies midway, where the descriptor is zero."""
    vector = torch.tensor([0.6, 0.8, 0.0])
    target = FeatureMap(
        "t", torch.stack([vector, -vector], dim=1)[:, None], stretched((1, 2), Size(1, 9))
    )
    assert flat_cosines(target, vector)[0].tolist() == pytest.approx([1] * 4 + [0] + [-1] * 4)


@pytest.mark.parametrize("channels", [2, 3, 16])
@pytest.mark.parametrize("spread", [0.1, 0.01, 0.001])
def test_cosines_hold_where_neighbours_nearly_cancel(channels, spread):
    """Lengths close to zero between the cells. Computed as published in float32, cosines err by
    up to 1e-3 here; the chosen pixel is the best one to within 1e-3.
    """
    draw = torch.Generator().manual_seed(0)
    grid = stretched((7, 7), Size(199, 331))
    signs = torch.ones(7)
    signs[1::2] = -1
    values = torch.randn(channels, 1, 1, generator=draw) * signs
    values = values + spread * torch.randn(channels, 7, 7, generator=draw)
    target = FeatureMap("t", values, grid)
    exact = published(target)
    for _ in range(10):
        query = torch.randn(channels, generator=draw)
        cosines = flat_cosines(target, query)
        unit = F.normalize(query.double(), dim=0)
        true = torch.einsum("c,chw->hw", unit, exact)
        chosen = true.flatten()[cosines.argmax()]
        assert (true.max() - chosen).item() < 1e-3
        assert (cosines - true).abs().max().item() < 5e-3


def test_ties_go_to_the_first_pixel_row_by_row(monkeypatch):
    one = stretched((1, 1), Size(1, 1))
    source = FeatureMap("s", torch.tensor([1.0, 0.0])[:, None, None], one)
    places = torch.zeros(2, 4, 4)
    places[1] = 1
    for row, column in ((1, 2), (1, 3), (2, 0), (3, 1)):
        places[:, row, column] = torch.tensor([3.0, 0.0])
    target = FeatureMap("t", places, stretched((4, 4), Size(4, 4)))
    for tile in (pixel.TILE, 1):
        monkeypatch.setattr(pixel, "TILE", tile)
        matches = Pixel()(FusedSimilarity(source, target), torch.zeros(1, 2).double())
        assert matches.target.tolist() == [[2.0, 1.0]]


# Properties


def test_a_photo_matches_itself_at_each_whole_pixel():
    """Pixels beyond the outermost cells' centres all read those, and go to the first of them."""
    one = random_map(stretched((5, 7), Size(31, 47)), 0, channels=32)
    y, x = torch.meshgrid(torch.arange(4, 27), torch.arange(4, 43), indexing="ij")
    points = torch.stack([x, y], dim=-1).reshape(-1, 2).double()
    matches = Pixel()(FusedSimilarity(one, one), points)
    assert torch.equal(matches.target, points)
    assert matches.cycle_error.eq(0).all()
    torch.testing.assert_close(matches.score, torch.ones(len(points)))


def test_a_shift_by_whole_cells_shifts_the_pixels():
    wide = random_map(stretched((6, 9), Size(60, 90)), 7, channels=64)
    crop = stretched((6, 7), Size(60, 70))
    left = FeatureMap("left", wide.values[:, :, :7], crop)
    right = FeatureMap("right", wide.values[:, :, 2:], crop)
    points = torch.tensor([[27.0, 13.0], [44.0, 40.0], [58.0, 33.0]], dtype=torch.float64)
    matches = Pixel()(FusedSimilarity(left, right), points)
    assert torch.equal(matches.target, points - torch.tensor([20.0, 0.0]))


def test_a_source_between_pixels_is_read_bilinearly():
    """At (14.25, 9.75), where no cell's centre is near: weights of a quarter and three quarters."""
    source = random_map(stretched((6, 6), Size(31, 47)), 0)
    target = random_map(stretched((6, 6), Size(37, 29)), 1)
    raw = F.interpolate(source.values[None].double(), size=(31, 47), mode="bilinear")[0]
    upper, lower = (0.75 * raw[:, y, 14] + 0.25 * raw[:, y, 15] for y in (9, 10))
    query = F.normalize(0.25 * upper + 0.75 * lower, dim=0)
    cosines = torch.einsum("c,chw->hw", query, published(target)).flatten()
    matches = Pixel()(FusedSimilarity(source, target), torch.tensor([[14.25, 9.75]]).double())
    best = int(cosines.argmax())
    assert matches.target.tolist() == [[best % 29, best // 29]]
    assert matches.score.item() == pytest.approx(cosines[best].item(), abs=1e-5)


@pytest.mark.parametrize("tile", [1, 100, 7777])
def test_bands_and_tiles_do_not_change_the_matches(monkeypatch, tile):
    source = random_map(stretched((7, 7), Size(43, 97)), 0)
    target = random_map(stretched((9, 9), Size(61, 47)), 1)
    draw = torch.Generator().manual_seed(1)
    foreground = torch.rand(81, generator=draw) > 0.5
    similarity = FusedSimilarity(source, target, foreground=foreground)
    points = whole_pixels(Size(43, 97), 12)
    whole = Pixel()(similarity, points)
    monkeypatch.setattr(pixel, "TILE", tile)
    monkeypatch.setattr(_rows, "TILE", tile)
    cut = Pixel()(similarity, points)
    assert torch.equal(whole.target, cut.target)
    for name in ("score", "margin", "peak", "cycle_error"):
        torch.testing.assert_close(getattr(whole, name), getattr(cut, name))


def test_no_points_give_no_matches():
    one = random_map(stretched((5, 5), Size(31, 47)), 0)
    matches = Pixel()(FusedSimilarity(one, one), torch.zeros(0, 2, dtype=torch.float64))
    assert matches.target.shape == (0, 2)
    assert matches.score.shape == matches.cycle_error.shape == (0,)


def test_a_similarity_without_maps_is_refused():
    @dataclass(frozen=True)
    class Rows:
        source: Grid
        target: Grid
        foreground: None = None

        def rows(self, points: Tensor) -> Tensor:
            return torch.zeros(len(points), 25)

        def swap(self) -> Rows:
            return self

    grid = stretched((5, 5), Size(31, 47))
    with pytest.raises(BadRecipe, match="no maps to be upsampled; use another matcher"):
        Pixel()(Rows(grid, grid), torch.zeros(1, 2).double())


LARGE = """
import resource, sys, torch
from sdcorr.fusion import FusedSimilarity
from sdcorr.geometry import Grid, Size
from sdcorr.matchers import pixel
from sdcorr.types import FeatureMap

def peak():
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024

torch.set_num_threads(1)
pixel.TILE = 2**20  # 4 MB
grid = Grid((48, 48), (1500 / 48, 1500 / 48), (0.0, 0.0), Size(1500, 1500))
maps = [FeatureMap("m", torch.randn(256, 48, 48), grid) for _ in range(2)]
torch.einsum("nc,chw->nhw", torch.randn(2, 256), maps[0].values)  # libraries are loaded now
before = peak()
matches = pixel.Pixel()(FusedSimilarity(*maps), torch.randint(1500, (24, 2)).double())
print(peak() - before, len(matches))
"""


def test_a_large_photo_needs_no_map_of_its_size():
    """1500 x 1500 px: one upsampled map of 256 channels would take 2.3 GB, and the similarities of
    all 24 points at once 0.2 GB each time they are touched.
    """
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", LARGE], capture_output=True, text=True, timeout=120, check=True
    )
    grown, count = map(int, done.stdout.split())
    assert count == 24
    assert grown < 0.4e9
