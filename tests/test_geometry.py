from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.geometry import Grid, Size, whole

WIDE = Grid(shape=(4, 4), stride=(2.0, 2.0), offset=(0.0, -2.0), image=Size(4, 8))
TALL = Grid(shape=(4, 4), stride=(2.0, 2.0), offset=(-2.0, 0.0), image=Size(8, 4))
# 313 x 471 letterboxed to 840: content 558 x 840, 141 rows of padding above, cells of 14
PRIME_SCALE = (471 / 840, 313 / 558)
PRIME = Grid(
    shape=(60, 60),
    stride=(14 * PRIME_SCALE[0], 14 * PRIME_SCALE[1]),
    offset=(0.0, -141 * PRIME_SCALE[1]),
    image=Size(313, 471),
)
PRIME_TALL = Grid((60, 60), PRIME.stride[::-1], PRIME.offset[::-1], Size(471, 313))
# 1 x 1000 letterboxed to 840: one row of content, 419 rows of padding above
STRIP = Grid((60, 60), (14 * 1000 / 840, 14.0), (0.0, -419.0), Size(1, 1000))
POST = Grid((60, 60), STRIP.stride[::-1], STRIP.offset[::-1], Size(1000, 1))
PIXEL = Grid((60, 60), (1 / 60, 1 / 60), (0.0, 0.0), Size(1, 1))
OBLONG = Grid((3, 5), (7.5, 4.25), (1.5, -3.0), Size(11, 37))
ONE_CELL = Grid((1, 1), (313.0, 471.0), (0.0, 0.0), Size(471, 313))
GRIDS = {
    "wide": WIDE,
    "tall": TALL,
    "prime": PRIME,
    "prime_tall": PRIME_TALL,
    "strip": STRIP,
    "post": POST,
    "pixel": PIXEL,
    "oblong": OBLONG,
    "one_cell": ONE_CELL,
}
EVERY_GRID = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


def points_around(grid: Grid, count: int, margin: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    left, right, bottom, top = grid.extent
    low, high = torch.tensor([left, top]), torch.tensor([right, bottom])
    return low + (high - low) * (spread * (1 + 2 * margin) - margin)


def slow_cell_of(grid: Grid, x: float, y: float) -> int:
    inside, (ox, oy), (sx, sy) = grid.inside(), grid.offset, grid.stride
    distances = {}
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            cell = row * grid.shape[1] + column
            if not inside[cell]:
                continue
            left, top = ox + column * sx - 0.5, oy + row * sy - 0.5
            right, bottom = left + sx, top + sy
            away = max(left - x, 0, x - right), max(top - y, 0, y - bottom)
            distances[cell] = away[0] ** 2 + away[1] ** 2
    return min(distances, key=distances.__getitem__)


@EVERY_GRID
def test_to_points_undoes_to_cells(grid: Grid):
    points = points_around(grid, 100)
    torch.testing.assert_close(grid.to_points(grid.to_cells(points)), points)
    torch.testing.assert_close(grid.to_cells(grid.to_points(points)), points)


def test_cells_and_points_by_hand():
    # column 2 of 7.5 px cells from edge 1.5: its middle is 1.5 + 2.5 * 7.5 = 20.25 px from the
    # photo's edge, which lies at -0.5; row 1 of 4.25 px cells from -3: -3 + 1.5 * 4.25 = 3.375
    torch.testing.assert_close(
        OBLONG.to_points(torch.tensor([[2.0, 1.0]])), torch.tensor([[19.75, 2.875]])
    )
    torch.testing.assert_close(
        OBLONG.to_cells(torch.tensor([[19.75, 2.875]])), torch.tensor([[2.0, 1.0]])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conversions_keep_the_dtype(dtype: torch.dtype):
    points = torch.zeros(3, 2, dtype=dtype)
    for convert in (PRIME.to_cells, PRIME.to_points, PRIME.to_unit, PRIME.confine):
        assert convert(points).dtype == dtype


def test_whole_number_points_are_read_like_floats():
    points = torch.tensor([[3, 2], [30, 9]])
    torch.testing.assert_close(
        OBLONG.to_cells(points).double(), OBLONG.to_cells(points.double()), rtol=0, atol=1e-5
    )
    assert PRIME.cell_of(points).tolist() == PRIME.cell_of(points.double()).tolist()


@EVERY_GRID
def test_no_points_give_no_points(grid: Grid):
    none = torch.zeros(0, 2)
    for convert in (grid.to_cells, grid.to_points, grid.to_unit, grid.confine):
        assert convert(none).shape == (0, 2)
    assert grid.cell_of(none).shape == (0,)


def test_unit_frame_puts_edges_at_plus_and_minus_one():
    left, right, bottom, top = OBLONG.extent
    edges = torch.tensor([[left, top], [right, bottom], [(left + right) / 2, top]])
    torch.testing.assert_close(
        OBLONG.to_unit(edges), torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, -1.0]])
    )


@EVERY_GRID
def test_grid_sample_reads_a_ramp_at_the_cell_of_the_point(grid: Grid):
    height, width = grid.shape
    ramp = torch.stack(
        [
            torch.arange(width, dtype=torch.float64).expand(height, width),
            torch.arange(height, dtype=torch.float64)[:, None].expand(height, width),
        ]
    )
    cells = torch.rand(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cells = cells * torch.tensor([width - 1, height - 1])  # between the outermost centres
    unit = grid.to_unit(grid.to_points(cells))
    read = F.grid_sample(ramp[None], unit[None, :, None], align_corners=False)[0, :, :, 0].T
    torch.testing.assert_close(read, cells, rtol=0, atol=1e-9)


def test_centers_by_hand():
    grid = Grid(shape=(2, 3), stride=(4.0, 2.0), offset=(0.0, -1.0), image=Size(3, 12))
    assert grid.centers().tolist() == [
        [1.5, -0.5], [5.5, -0.5], [9.5, -0.5],
        [1.5, 1.5], [5.5, 1.5], [9.5, 1.5],
    ]  # fmt: skip
    assert grid.centers().dtype == torch.float64


def test_center_of_one_cell_is_the_middle_of_the_photo():
    assert ONE_CELL.centers().tolist() == [[156.0, 235.0]]


def test_rows_and_columns_are_not_exchanged():
    swapped = Grid(OBLONG.shape[::-1], OBLONG.stride[::-1], OBLONG.offset[::-1], Size(37, 11))
    centers = OBLONG.centers().reshape(3, 5, 2)
    expected = centers.transpose(0, 1).flip(-1).reshape(-1, 2)
    torch.testing.assert_close(swapped.centers(), expected)
    assert swapped.inside().tolist() == OBLONG.inside().reshape(3, 5).T.flatten().tolist()


def test_inside_of_a_wide_photo_leaves_rows_out():
    assert WIDE.inside().reshape(4, 4).tolist() == [
        [False] * 4,
        [True] * 4,
        [True] * 4,
        [False] * 4,
    ]


def test_inside_of_a_tall_photo_leaves_columns_out():
    assert TALL.inside().reshape(4, 4).tolist() == [[False, True, True, False]] * 4


def test_inside_of_a_square_photo_is_every_cell():
    assert Grid((4, 4), (2.0, 2.0), (0.0, 0.0), Size(8, 8)).inside().all()


def test_inside_of_prime_sides():
    # canvas centres 14 * row + 7 between 141 and 699: rows 10 (147) to 49 (693)
    rows = torch.zeros(60, 60, dtype=torch.bool)
    rows[10:50] = True
    assert torch.equal(PRIME.inside().reshape(60, 60), rows)
    assert torch.equal(PRIME_TALL.inside().reshape(60, 60), rows.T)


def test_a_center_on_the_edge_of_the_photo_is_inside():
    grid = Grid(shape=(1, 5), stride=(2.0, 2.0), offset=(-1.0, 0.0), image=Size(2, 8))
    assert grid.centers()[[0, -1], 0].tolist() == [-0.5, 7.5]
    assert grid.inside().all()


@EVERY_GRID
def test_inside_cells_are_those_whose_center_is_on_the_photo(grid: Grid):
    on_photo = grid.image.contains(grid.centers())
    if on_photo.any():
        assert torch.equal(grid.inside(), on_photo)
    else:
        assert grid in (STRIP, POST)


def test_a_photo_thinner_than_a_cell_keeps_the_nearest_row():
    # cell rows are centred at -419 + 14 * row + 6.5: row 29 at -6.5, row 30 at 7.5; photo at 0
    kept = torch.zeros(60, 60, dtype=torch.bool)
    kept[29] = True
    assert torch.equal(STRIP.inside().reshape(60, 60), kept)
    assert torch.equal(POST.inside().reshape(60, 60), kept.T)


def test_a_photo_of_one_pixel_is_inside_every_cell():
    assert PIXEL.inside().all()
    assert PIXEL.centers().min() > -0.5
    assert PIXEL.centers().max() < 0.5


@EVERY_GRID
def test_cell_of_agrees_with_a_loop_over_cell_rectangles(grid: Grid):
    points = points_around(grid, 12)
    expected = [slow_cell_of(grid, x, y) for x, y in points.tolist()]
    assert grid.cell_of(points).tolist() == expected


@EVERY_GRID
def test_cell_of_a_center_is_its_cell(grid: Grid):
    inside = grid.inside().nonzero()[:, 0]
    assert torch.equal(grid.cell_of(grid.centers()[inside]), inside)


@EVERY_GRID
def test_no_point_falls_on_a_padding_cell(grid: Grid):
    assert grid.inside()[grid.cell_of(points_around(grid, 200, margin=2.0))].all()


def test_confine_by_hand():
    # the inside centres of WIDE span x 0.5 to 6.5 and y 0.5 to 2.5
    points = torch.tensor([[-9.0, -9.0], [100.0, 100.0], [3.0, 1.0], [3.0, -0.5], [7.5, 1.0]])
    expected = torch.tensor([[0.5, 0.5], [6.5, 2.5], [3.0, 1.0], [3.0, 0.5], [6.5, 1.0]])
    torch.testing.assert_close(WIDE.confine(points), expected)


@EVERY_GRID
def test_confine_twice_is_confine_once(grid: Grid):
    once = grid.confine(points_around(grid, 50, margin=1.0))
    torch.testing.assert_close(grid.confine(once), once)


@EVERY_GRID
def test_confine_keeps_inside_centers(grid: Grid):
    centers = grid.centers()[grid.inside()]
    torch.testing.assert_close(grid.confine(centers), centers)


def test_refined_centers_by_hand():
    fine = Grid((1, 2), (4.0, 4.0), (0.0, -2.0), Size(1, 8)).refine(2)
    assert fine.shape == (2, 4)
    assert fine.centers().tolist() == [
        [0.5, -1.5], [2.5, -1.5], [4.5, -1.5], [6.5, -1.5],
        [0.5, 0.5], [2.5, 0.5], [4.5, 0.5], [6.5, 0.5],
    ]  # fmt: skip


@EVERY_GRID
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_refining_keeps_extent_and_photo(grid: Grid, factor: int):
    fine = grid.refine(factor)
    assert fine.extent == pytest.approx(grid.extent)
    assert fine.image == grid.image


@EVERY_GRID
def test_fine_centers_average_to_the_coarse_center(grid: Grid):
    height, width = grid.shape
    fine = grid.refine(3).centers().reshape(height, 3, width, 3, 2).mean(dim=(1, 3))
    torch.testing.assert_close(fine.reshape(-1, 2), grid.centers())


def test_grids_agree_within_the_tolerance():
    moved = dataclasses.replace(WIDE, offset=(0.2, -2.0))  # 0.1 cells of two pixels
    assert WIDE.agrees_with(WIDE, tolerance=0.0)
    assert WIDE.agrees_with(moved, tolerance=0.11)
    assert not WIDE.agrees_with(moved, tolerance=0.09)


def test_grids_whose_strides_drift_apart_disagree():
    # 0.1 px more per cell: 0.35 px, 0.175 cells, at the centre of the fourth
    drifting = dataclasses.replace(WIDE, stride=(2.1, 2.0))
    assert WIDE.agrees_with(drifting, tolerance=0.18)
    assert not WIDE.agrees_with(drifting, tolerance=0.17)


def test_grids_of_other_shapes_or_photos_disagree():
    assert not WIDE.agrees_with(dataclasses.replace(WIDE, shape=(4, 5)), tolerance=99)
    assert not WIDE.agrees_with(dataclasses.replace(WIDE, image=Size(8, 4)), tolerance=99)


def test_extent_by_hand():
    # left 1.5, five columns of 7.5; top -3, three rows of 4.25; edges begin at -0.5
    assert OBLONG.extent == (1.0, 38.5, 9.25, -3.5)
    assert Size(height=3, width=7).extent == (-0.5, 6.5, 2.5, -0.5)


def test_a_grid_that_covers_its_photo_has_its_extent():
    assert ONE_CELL.extent == ONE_CELL.image.extent


@pytest.mark.parametrize(
    ("point", "nearest"),
    [
        ((3.0, 1.0), (3.0, 1.0)),
        ((-0.5, -0.5), (-0.5, -0.5)),
        ((6.5, 2.5), (6.5, 2.5)),
        ((-0.6, 1.0), (-0.5, 1.0)),
        ((3.0, 2.6), (3.0, 2.5)),
        ((99.0, -99.0), (6.5, -0.5)),
        ((2.6, 6.4), (2.6, 2.5)),  # on the photo if height and width were exchanged
        ((torch.inf, -torch.inf), (6.5, -0.5)),
    ],
)
def test_clamp_and_contains_by_hand(point: tuple[float, float], nearest: tuple[float, float]):
    size, points = Size(height=3, width=7), torch.tensor([point])
    assert torch.equal(size.clamp(points), torch.tensor([nearest]))
    assert size.contains(points).tolist() == [point == nearest]


@pytest.mark.parametrize("point", [(torch.nan, 1.0), (1.0, torch.nan), (torch.nan, torch.nan)])
def test_nan_is_on_no_photo(point: tuple[float, float]):
    assert Size(3, 7).contains(torch.tensor([point])).tolist() == [False]


def test_a_photo_contains_none_of_no_points():
    assert Size(3, 7).contains(torch.zeros(0, 2)).shape == (0,)
    assert Size(3, 7).clamp(torch.zeros(0, 2)).shape == (0, 2)


def test_a_photo_of_one_pixel_spans_half_a_pixel_each_way():
    points = torch.tensor([[0.0, 0.0], [0.5, -0.5], [0.51, 0.0], [0.0, 1.0]])
    assert Size(1, 1).contains(points).tolist() == [True, True, False, False]


@pytest.mark.parametrize("size", [Size(3, 7), Size(471, 313), Size(1, 1)])
def test_one_cell_over_the_whole_photo(size: Size):
    grid = whole(size)
    assert grid.shape == (1, 1)
    assert grid.image == size
    assert grid.extent == size.extent
    assert grid.inside().tolist() == [True]
    assert grid.cell_of(points_around(grid, 20, margin=1.0)).tolist() == [0] * 20


def test_the_cell_that_is_the_photo_by_hand():
    assert whole(Size(height=471, width=313)) == ONE_CELL
    assert whole(Size(height=3, width=8)).centers().tolist() == [[3.5, 1.0]]
    assert whole(Size(height=3, width=8)).stride == (8.0, 3.0)
