from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdcorr import warping
from sdcorr.errors import BadImage, BadMask
from sdcorr.feature_map import FeatureMap
from sdcorr.flow import Flow, places
from sdcorr.geometry import Grid, Size
from sdcorr.types import Image
from sdcorr.warping import (
    flow_colours,
    object_mask,
    photo_colours,
    position_colours,
    swap_object,
    warp,
)

# sizes prime to the stride; letterboxes, one of a photo thinner than a cell; one cell
GRIDS = {
    "letterbox": Grid((8, 8), (9.0, 9.0), (0.0, -14.0), Size(44, 72)),
    "prime": Grid((7, 4), (7.0, 5.0), (0.0, 0.0), Size(31, 29)),
    "line": Grid((4, 4), (250.0, 250.0), (0.0, -499.5), Size(1, 1000)),
    "column": Grid((5, 5), (10.0, 10.0), (-20.0, 0.0), Size(50, 1)),
    "one cell": Grid((1, 1), (13.0, 11.0), (0.0, 0.0), Size(11, 13)),
    "one pixel": Grid((2, 2), (1.0, 1.0), (-0.5, -0.5), Size(1, 1)),
}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))


def some_photo(size: Size, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def flow_to(
    grid: Grid, target: torch.Tensor, accepted: torch.Tensor | None = None, into: Size | None = None
) -> Flow:
    """Into a photo of the same size if not said. Everything comes back."""
    sure = torch.ones(grid.shape, dtype=torch.bool) if accepted is None else accepted
    height, width = into or grid.image
    one = Grid((1, 1), (float(width), float(height)), (0.0, 0.0), into or grid.image)
    back = FeatureMap("back", torch.zeros(2, 1, 1), one)
    error = torch.zeros(grid.shape).double()
    return Flow(grid, target.reshape(*grid.shape, 2), error, sure, back, math.inf)


def still(grid: Grid) -> Flow:
    return flow_to(grid, places(grid))


def some_flow(grid: Grid, into: Size, sure: float = 0.7) -> Flow:
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(*grid.shape, 2, generator=generator, dtype=torch.float64)
    accepted = torch.rand(grid.shape, generator=generator) < sure
    target = unit * torch.tensor([into.width, into.height]) - 0.5
    return flow_to(grid, target, accepted & grid.inside().reshape(grid.shape), into)


# Warp


@every_grid
def test_a_flow_that_stays_gives_the_photo_itself(grid):
    photo = some_photo(grid.image)
    warped, valid = warp(photo, still(grid))
    assert (warped.dtype, valid.dtype) == (np.uint8, np.bool_)
    assert np.array_equal(warped, photo)
    assert valid.all()


@pytest.mark.parametrize("shift", [(3, -2), (-5, 4), (0, 1)])
def test_whole_pixels_of_shift_are_exact_and_what_left_the_photo_is_not_valid(shift):
    """The photo that is warped is larger than the flow's own, and not of its shape."""
    grid, (dx, dy) = GRIDS["prime"], shift
    photo = some_photo(Size(33, 30))
    flow = flow_to(grid, places(grid) + torch.tensor(shift), into=Size(33, 30))
    warped, valid = warp(photo, flow)
    assert warped.shape == (31, 29, 3)
    expected = np.zeros((31, 29), bool)
    for y in range(31):
        for x in range(29):
            if 0 <= y + dy < 33 and 0 <= x + dx < 30:
                expected[y, x] = True
                assert warped[y, x].tolist() == photo[y + dy, x + dx].tolist()
    assert np.array_equal(valid, expected)


def test_a_photo_warps_onto_its_mirror_image():
    grid = Grid((9, 14), (1.0, 1.0), (0.0, 0.0), Size(9, 14))
    target = places(grid) * torch.tensor([-1.0, 1.0]) + torch.tensor([13.0, 0.0])
    photo = some_photo(grid.image)
    warped, valid = warp(photo, flow_to(grid, target))
    assert np.array_equal(warped, photo[:, ::-1])
    assert valid.all()


def test_photos_may_be_read_only_and_mirrored_arrays():
    grid = GRIDS["prime"]
    photo = some_photo(grid.image)[::-1, ::-1]
    photo.flags.writeable = False
    mask = everything(grid.image)
    mask.flags.writeable = False
    assert np.array_equal(warp(photo, still(grid))[0], photo)
    swapped = swap_object(Image(photo), Image(photo), still(grid), mask[::-1], mask[:, ::-1])
    assert np.array_equal(swapped.pixels, photo)


def place_of(flow: Flow, x: int, y: int, torn: float) -> tuple[float, float, bool]:
    """Where a pixel's match lies, and if it is accepted.

    Bilinear between those cells on the photo that move like the nearest one, but for ``torn`` px.
    """
    grid, (h, w) = flow.grid, flow.grid.shape
    own = places(grid).reshape(h, w, 2)
    inside = grid.inside().reshape(h, w).nonzero()
    (top, left), (bottom, right) = inside[0].tolist(), inside[-1].tolist()
    column = (x + 0.5 - grid.offset[0]) / grid.stride[0] - 0.5
    row = (y + 0.5 - grid.offset[1]) / grid.stride[1] - 0.5
    column, row = min(max(column, left), right), min(max(row, top), bottom)
    moves = flow.target - own
    moved, total, near = torch.zeros(2).double(), 0.0, (round(row), round(column))
    for r in {math.floor(row), math.ceil(row)}:
        for c in {math.floor(column), math.ceil(column)}:
            if math.dist(moves[r, c], moves[near]) <= torn:
                share = (1 - abs(row - r)) * (1 - abs(column - c))
                moved, total = moved + share * moves[r, c], total + share
    moved = moved / total
    sure = bool(flow.accepted[near])
    return x + moved[0].item(), y + moved[1].item(), sure


def shown_at(photo: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear between pixels; beyond them the last one."""
    height, width = photo.shape[:2]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    total = np.zeros(3)
    for row in {math.floor(y), math.ceil(y)}:
        for column in {math.floor(x), math.ceil(x)}:
            total += (1 - abs(y - row)) * (1 - abs(x - column)) * photo[row, column]
    return total


@every_grid
def test_warp_agrees_with_a_loop(grid, monkeypatch):
    monkeypatch.setattr("sdcorr.flow.AT_ONCE", 60)  # in many bands
    into = Size(17, 40)
    photo, flow = some_photo(into), some_flow(grid, into)
    warped, valid = warp(photo, flow)
    seen = np.random.default_rng(1).integers(0, [grid.image.width, grid.image.height], (150, 2))
    for x, y in [(0, 0), (grid.image.width - 1, grid.image.height - 1), *seen.tolist()]:
        px, py, sure = place_of(flow, x, y, torn=2.0)  # a twentieth of 40 px
        # half a level is lost by rounding; float32 places are off by 1e-4 px of 255 levels
        assert np.abs(warped[y, x] - shown_at(photo, px, py)).max() <= 0.5 + 0.05
        on = -0.5 <= px <= into.width - 0.5 and -0.5 <= py <= into.height - 0.5
        assert valid[y, x] == (sure and on)


@every_grid
def test_bands_change_nothing(grid, monkeypatch):
    photo, flow = some_photo(Size(17, 40)), some_flow(grid, Size(17, 40))
    whole = warp(photo, flow), photo_colours(grid.image), flow_colours(flow)
    monkeypatch.setattr("sdcorr.flow.AT_ONCE", 3 * grid.image.width + 1)
    bands = warp(photo, flow), photo_colours(grid.image), flow_colours(flow)
    for one, other in zip([*whole[0], *whole[1:]], [*bands[0], *bands[1:]], strict=True):
        assert np.array_equal(one, other)


# Colours of places

# sRGB (IEC 61966-2-1) to XYZ, white point D65
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", 2009, severity 1.0, for linear RGB
BLIND = {
    "sees all": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
}  # fmt: skip


def lab_of(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """CIELAB of 8-bit sRGB ``(N, 3)`` as somebody sees it."""
    values = rgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = (linear @ seen.T).clip(0, 1) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    light, a, b = 116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])
    return np.stack([light, a, b], axis=1)


def lattice(size: Size, count: int = 6) -> torch.Tensor:
    x = torch.linspace(-0.5, size.width - 0.5, count)
    y = torch.linspace(-0.5, size.height - 0.5, count)
    return torch.cartesian_prod(x, y)


def test_colours_are_those_that_are_promised():
    """Within sRGB everywhere, or else L*, a* and b* would be others."""
    size = Size(60, 100)
    points = lattice(size, 21)
    lab = lab_of(position_colours(points, size), BLIND["sees all"])
    across, down = (points[:, 0] + 0.5) / 100, (points[:, 1] + 0.5) / 60
    # 8 bits are up to half a level off, which is up to 0.8 in b*
    assert np.abs(lab[:, 0] - (34 + 42 * down).numpy()).max() < 0.5
    assert np.abs(lab[:, 1]).max() < 1.0
    assert np.abs(lab[:, 2] - (70 * across - 35).numpy()).max() < 1.0


@pytest.mark.parametrize("seen", BLIND.values(), ids=list(BLIND))
def test_who_cannot_tell_red_from_green_tells_the_places_apart(seen):
    """Those of a lattice of 6 x 6 differ by 8 or more, to anyone; 2.3 is just noticeable."""
    size = Size(60, 100)
    lab = lab_of(position_colours(lattice(size), size), seen)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert apart[~np.eye(36, dtype=bool)].min() > 7.5


def test_places_beyond_the_photo_have_the_colour_of_its_edge():
    size = Size(4, 8)
    colours = position_colours(torch.tensor([[-9.0, 99.0], [-0.5, 3.5]]), size)
    assert colours[0].tolist() == colours[1].tolist()
    assert position_colours(torch.zeros(0, 2), size).shape == (0, 3)


def checked(x: float, y: float, size: Size) -> list[int]:
    """The colour of a place, darker on every other square of a tenth of the longer side."""
    colour = position_colours(torch.tensor([[x, y]]), size)[0]
    side = max(size) / 10
    odd = (int((x + 0.5) // side) + int((y + 0.5) // side)) % 2
    return np.rint(colour * 0.9 if odd else colour).astype(int).tolist()


@every_grid
def test_matches_get_the_colours_of_their_places(grid):
    size = grid.image
    own = photo_colours(size)
    assert own.shape == (*size, 3)
    for x, y in ((0, 0), (size.width // 3, size.height // 2), (size.width - 1, size.height - 1)):
        assert own[y, x].tolist() == checked(x, y, size)
    # float32 moves a place by 1e-4 px, which may round to the next level, or beyond a square
    difference = np.abs(flow_colours(still(grid)).astype(int) - own).max(axis=2)
    assert (difference <= 1).mean() > 0.95
    assert difference.max() < 60


def test_a_match_gives_its_colour_to_the_pixel_that_has_it():
    grid, other = GRIDS["one cell"], Size(17, 40)
    flow = flow_to(grid, torch.tensor([[30.0, 4.0]]).double(), into=other)
    assert flow_colours(flow)[5, 6].tolist() == checked(30, 4, other)


def test_squares_are_as_high_as_wide_and_begin_at_the_corner():
    own = photo_colours(Size(20, 40)).astype(int).sum(axis=2)
    darker = np.diff(own, axis=1)[0] < -20  # where a dark square begins, along the first row
    assert np.flatnonzero(darker).tolist() == [3, 11, 19, 27, 35]
    assert own[3, 0] > own[4, 0] + 10


# Swap


def box(size: Size, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def everything(size: Size) -> np.ndarray:
    return np.ones(size, bool)


@every_grid
def test_an_object_that_stays_where_it_is(grid):
    """Inside, the source's pixels by their share; outside, the target's to the bit."""
    size = grid.image
    source, target = Image(some_photo(size, 1)), Image(some_photo(size, 2))
    before = target.pixels.copy()
    mask = box(size, 0, 0, size.width // 2 + 1, size.height // 2 + 1)
    swapped = swap_object(source, target, still(grid), everything(size), mask)
    share = swapped.replaced[:, :, None]
    assert (share[mask] > 0).all()
    assert (share[~mask] == 0).all()
    expected = np.rint(share * source.pixels + (1 - share) * target.pixels)
    assert np.abs(swapped.pixels - expected).max() <= 1  # where a sum is half a level
    assert np.array_equal(swapped.pixels[~mask], before[~mask])
    assert np.array_equal(target.pixels, before)
    inner = swapped.replaced == 1
    assert inner.any()
    assert np.array_equal(swapped.pixels[inner], source.pixels[inner])


def reference_flow(flow: Flow) -> torch.Tensor:
    """Targets as they are smoothed, solved as one system of equations: few cells, all near."""
    grid = flow.grid
    sure = flow.consistent.flatten().numpy()
    own = places(grid).numpy()
    cells = grid.to_cells(places(grid)).numpy()
    moves = flow.target.reshape(-1, 2).numpy() - own
    known, count = cells[sure], sure.sum()
    mean, centred = known.mean(axis=0), known - known.mean(axis=0)
    spread = centred.T @ centred + warping.STIFFNESS * np.eye(2)
    slope = np.linalg.solve(spread, centred.T @ (moves[sure] - moves[sure].mean(axis=0)))
    expected = moves[sure].mean(axis=0) + (cells - mean) @ slope
    system = np.zeros((count + 1, count + 1))
    system[:count, :count] = -np.linalg.norm(known[:, None] - known[None], axis=2)
    system[:count, :count] += warping.SMOOTHING * np.eye(count)
    system[:count, count] = system[count, :count] = 1
    right = np.vstack([(moves - expected)[sure], np.zeros(2)])
    weights = np.linalg.solve(system, right)
    rest = -np.linalg.norm(cells[:, None] - known[None], axis=2) @ weights[:count] + weights[count]
    return torch.from_numpy(own + expected + rest).reshape(flow.target.shape)


@pytest.mark.parametrize("name", ["prime", "column", "one cell"])
def test_swapping_agrees_with_a_loop(name, monkeypatch):
    """Source and target differ in size; some matches disagree, some lead beyond the object."""
    monkeypatch.setattr("sdcorr.flow.AT_ONCE", 50)
    monkeypatch.setattr(warping, "NEIGHBOURS", 1000)
    grid, into = GRIDS[name], Size(19, 23)
    flow = some_flow(grid, into, sure=0.6 if name != "one cell" else 2.0)
    source, target = Image(some_photo(into, 1)), Image(some_photo(grid.image, 2))
    mask, inner = everything(grid.image), box(into, 4, 3, 20, 15)
    mask[: grid.image.height // 3] = False
    swapped = swap_object(source, target, flow, inner, mask)
    smooth = flow_to(grid, reference_flow(flow), into=into)
    covered = np.argwhere(inner)
    for y, x in np.argwhere(mask):
        px, py, _ = place_of(smooth, x, y, torn=math.inf)
        px, py = min(max(px, -0.5), into.width - 0.5), min(max(py, -0.5), into.height - 0.5)
        column, row = min(max(round(px), 0), 22), min(max(round(py), 0), 18)
        candidates = [(px, py)]
        if not inner[row, column]:  # several may be equally near
            far = np.linalg.norm(covered - [row, column], axis=1)
            candidates = [(c, r) for r, c in covered[far == far.min()].tolist()]
        share = swapped.replaced[y, x]
        off = [
            np.abs(
                share * shown_at(source.pixels, *place)
                + (1 - share) * target.pixels[y, x]
                - swapped.pixels[y, x]
            ).max()
            for place in candidates
        ]
        assert min(off) <= 1.05  # two roundings, and places in float32
    assert np.array_equal(swapped.pixels[~mask], target.pixels[~mask])


def test_matches_that_disagree_do_not_count():
    grid = GRIDS["letterbox"]
    size = grid.image
    source, target = Image(some_photo(size, 1)), Image(some_photo(size, 2))
    sure = torch.rand(grid.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    sure &= grid.inside().reshape(grid.shape)
    shifted = (places(grid) + torch.tensor([2.0, 1.0])).reshape(*grid.shape, 2)
    wild = torch.where(sure[:, :, None], shifted, torch.tensor([0.0, 0.0]).double())
    mask = box(size, 5, 5, 60, 40)
    swapped = swap_object(source, target, flow_to(grid, wild, sure), everything(size), mask)
    inner = swapped.replaced == 1
    there = np.roll(source.pixels, (-1, -2), axis=(0, 1))
    assert inner.sum() > 1000
    assert np.array_equal(swapped.pixels[inner], there[inner])


def test_what_would_show_beyond_the_object_shows_its_edge():
    """By hand: the object is columns 0 to 4; columns 5 to 9 would show what is beside it."""
    grid = Grid((3, 10), (1.0, 1.0), (0.0, 0.0), Size(3, 10))
    pixels = np.repeat(np.arange(0, 200, 20, dtype=np.uint8), 3).reshape(1, 10, 3).repeat(3, 0)
    inner = box(grid.image, 0, 0, 5, 3)
    target = Image(np.full((3, 10, 3), 255, np.uint8))
    swapped = swap_object(Image(pixels), target, still(grid), inner, everything(grid.image))
    assert swapped.pixels[1, :, 0].tolist() == [0, 20, 40, 60, 80, 80, 80, 80, 80, 80]


def test_nothing_agrees():
    grid = GRIDS["prime"]
    photo = Image(some_photo(grid.image))
    none = flow_to(grid, places(grid), torch.zeros(grid.shape, dtype=torch.bool))
    whole = everything(grid.image)
    with pytest.raises(BadMask, match="no place of the two objects is matched the same both ways"):
        swap_object(photo, photo, none, whole, whole)


def test_a_flow_the_other_way_round_is_refused():
    """The usual mistake: to warp A onto B takes the flow from B to A."""
    grid, size = GRIDS["prime"], GRIDS["prime"].image
    flow = flow_to(grid, places(grid), into=Size(17, 40))
    own, other = Image(some_photo(size)), Image(some_photo(Size(17, 40)))
    with pytest.raises(BadImage, match=r"into a photo of \(17, 40\) .* got one of \(31, 29\)"):
        warp(own.pixels, flow)
    with pytest.raises(BadImage, match="leads into"):
        swap_object(own, other, flow, everything(size), everything(Size(17, 40)))
    with pytest.raises(BadImage, match="leads from"):
        swap_object(other, other, flow, everything(Size(17, 40)), everything(Size(17, 40)))


def test_edges_are_feathered_by_hand():
    """150 x 600: over 4 px. The photo's own edge is none."""
    size = Size(150, 600)
    grid = Grid((1, 4), (150.0, 150.0), (0.0, 0.0), size)
    black = Image(np.zeros((*size, 3), np.uint8))
    white = Image(np.full((*size, 3), 255, np.uint8))
    mask = box(size, 0, 0, 100, 150)
    swapped = swap_object(white, black, still(grid), everything(size), mask)
    assert swapped.replaced.dtype == np.float32
    assert swapped.replaced[70, 94:102].tolist() == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    assert swapped.replaced[0, 0] == 1
    assert swapped.pixels[70, 94:102, 0].tolist() == [255, 255, 255, 191, 128, 64, 0, 0]
    thin = box(size, 50, 0, 53, 150)  # narrower than the feather: whole in its middle
    assert swap_object(white, black, still(grid), everything(size), thin).replaced[
        70, 49:54
    ].tolist() == [0, 0.5, 1, 0.5, 0]
    assert (swap_object(white, black, still(grid), everything(size), ~mask | mask).pixels).all()


# The object of cells


def test_the_object_is_the_largest_region_without_holes_by_hand():
    grid = Grid((4, 6), (3.0, 2.0), (0.0, 0.0), Size(8, 18))
    rows = ["##.#..", "#.###.", ".##.#.", "...###"]
    cells = torch.tensor([[one == "#" for one in row] for row in rows])
    expected = ["...#..", "..###.", ".####.", "...###"]
    mask = object_mask(cells.flatten(), grid)
    by_hand = np.array([[one == "#" for one in row] for row in expected])
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, by_hand.repeat(2, axis=0).repeat(3, axis=1))


@every_grid
def test_all_and_no_cells(grid):
    assert object_mask(grid.inside(), grid).all()
    none = object_mask(torch.zeros_like(grid.inside()), grid)
    assert none.shape == grid.image
    assert not none.any()


@every_grid
def test_each_pixel_is_as_its_nearest_cell(grid):
    cells = grid.inside()
    cells[len(cells) // 2 :] = False
    if not cells.any():
        return
    mask = object_mask(cells, grid)
    for x, y in [(0, 0), (grid.image.width - 1, grid.image.height - 1), (5, 3)]:
        x, y = min(x, grid.image.width - 1), min(y, grid.image.height - 1)
        cell = grid.cell_of(torch.tensor([[float(x), float(y)]]))
        assert mask[y, x] == bool(cells[cell])
