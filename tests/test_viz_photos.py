"""Pictures of several photos: what is drawn where."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sdcorr.geometry import Grid, Size
from sdcorr.types import Image
from sdcorr.viz import COLOURS, plot_parts, plot_pca

GRID = Grid((2, 3), (10.0, 10.0), (0.0, 0.0), Size(20, 30))
LETTERBOX = Grid((4, 3), (10.0, 10.0), (0.0, -10.0), Size(20, 30))  # rows 0 and 3 lie on padding


def blank(height: int, width: int, level: int = 100) -> Image:
    return Image(np.full((height, width, 3), level, dtype=np.uint8))


def plain_grid(image: Image) -> Grid:
    """Two by two cells over the photo."""
    height, width = image.size
    return Grid((2, 2), (width / 2, height / 2), (0.0, 0.0), image.size)


def pixels(axes) -> np.ndarray:
    (image,) = axes.images
    return np.asarray(image.get_array())


def rendered(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_colours_stand_below_their_photo_on_a_dark_ground():
    image = blank(20, 30)
    colours = np.zeros((4, 3, 4), np.uint8)
    colours[1, 0] = (200, 150, 100, 255)  # the top left cell on the photo
    colours[0] = (255, 0, 0, 255)  # on padding
    above, below = plot_pca([image], [LETTERBOX], [colours]).axes
    np.testing.assert_array_equal(pixels(above), image.pixels)
    expected = np.full((20, 30, 3), 26)
    expected[:10, :10] = (200, 150, 100)
    np.testing.assert_array_equal(pixels(below), expected)
    assert above.get_position().y0 > below.get_position().y1
    for axes in (above, below):
        assert axes.images[0].get_extent() == list(image.size.extent)
        assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 29.5), (19.5, -0.5))


def test_parts_are_coloured_and_the_rest_is_the_photo():
    image = blank(20, 30)
    labels = torch.tensor([1, 1, 0, 2, 8, 0])
    (axes,) = plot_parts([image], [GRID], [labels]).axes
    shown = pixels(axes).astype(float)
    for column, row, part in ((0, 0, 1), (1, 0, 1), (0, 1, 2), (1, 1, 8)):
        place = shown[row * 10 : row * 10 + 10, column * 10 : column * 10 + 10]
        colour = np.array(to_rgb(COLOURS[(part - 1) % 7])) * 255
        assert np.abs(place - (100 + colour) / 2).max() <= 0.5
    assert (shown[:, 20:] == 100).all()


def test_each_part_has_its_number_on_one_of_its_cells():
    """Part 1 is a corner: its middle cell would belong to part 2."""
    grid = Grid((3, 3), (10.0, 10.0), (0.0, 0.0), Size(30, 30))
    labels = torch.tensor([1, 1, 1, 1, 2, 2, 1, 2, 3])
    (axes,) = plot_parts([blank(30, 30)], [grid], [labels]).axes
    places = {text.get_text(): text.xy for text in axes.texts}
    assert sorted(places) == ["1", "2", "3"]
    for name, place in places.items():
        cell = grid.cell_of(torch.tensor([place]))
        assert labels[cell].item() == int(name)
        assert place == tuple(grid.centers()[cell][0].tolist())
    assert places["1"] == (14.5, 4.5)  # its middle is (10.5, 10.5): of two as near, the first
    assert places["3"] == (24.5, 24.5)


BOARD = Grid((6, 8), (10.0, 10.0), (0.0, 0.0), Size(60, 80))
RINGS = [
    [1, 1, 1, 1, 1, 2, 2, 2],
    [1, 3, 3, 3, 1, 2, 0, 0],
    [1, 3, 3, 3, 1, 0, 4, 2],
    [1, 3, 3, 3, 1, 0, 4, 2],
    [1, 1, 1, 1, 1, 0, 0, 2],
    [2, 2, 0, 0, 0, 5, 5, 0],
]


def test_each_region_of_three_cells_has_a_number_on_one_of_its_own():
    """Part 1 is a ring around part 3; 2 is in two places, and in a third of two cells alone."""
    labels = torch.tensor(RINGS).flatten()
    (axes,) = plot_parts([blank(60, 80)], [BOARD], [labels]).axes
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "2", "3", "4", "5"]
    for text in axes.texts:
        cell = BOARD.cell_of(torch.tensor([text.xy]))
        assert labels[cell].item() == int(text.get_text())
    twos = {text.xy for text in axes.texts if text.get_text() == "2"}
    assert twos == {(64.5, 4.5), (74.5, 34.5)}  # nearest to the middle of each


def boxes_of(figure: Figure) -> list[list[np.ndarray]]:
    """Of each photo, the corners of its frame and of its numbers as drawn, x0 y0 x1 y1."""
    pen = FigureCanvasAgg(figure).get_renderer()
    return [
        [np.array(one.get_window_extent(pen).extents) for one in (axes, *axes.texts)]
        for axes in figure.axes
    ]


def test_no_number_is_cut_by_the_edge_or_covers_another():
    """Sixty cells across, six photos in a row: numbers are larger than regions of nine cells."""
    grid = Grid((30, 60), (2.0, 2.0), (0.0, 0.0), Size(60, 120))
    generator = np.random.default_rng(0)
    coarse = [generator.integers(5, 14, (10, 20)) for _ in range(6)]
    labels = [torch.from_numpy(one.repeat(3, axis=0).repeat(3, axis=1).flatten()) for one in coarse]
    figure = plot_parts([blank(60, 120)] * 6, [grid] * 6, labels)
    for frame, *numbers in boxes_of(figure):
        assert len(numbers) >= 20
        for index, one in enumerate(numbers):
            assert (one[:2] >= frame[:2]).all()
            assert (one[2:] <= frame[2:]).all()
            for other in numbers[index + 1 :]:
                over = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
                assert over.min() <= 0


def test_a_number_has_its_place_where_the_photo_is_too_small():
    grid = Grid((1, 1), (1.0, 400.0), (0.0, 0.0), Size(400, 1))
    (frame, number) = boxes_of(plot_parts([blank(400, 1)], [grid], [torch.tensor([128])]))[0]
    assert (number[0] + number[2]) / 2 == pytest.approx((frame[0] + frame[2]) / 2, abs=1)


def test_lines_run_where_parts_meet_and_nowhere_else():
    labels = torch.tensor([[9, 9, 9], [1, 1, 0], [1, 2, 0], [9, 9, 9]]).flatten()  # 9 on padding
    labels = labels * LETTERBOX.inside()
    (axes,) = plot_parts([blank(20, 30)], [LETTERBOX], [labels]).axes
    expected = {
        ((19.5, -0.5), (19.5, 9.5)),
        ((9.5, 9.5), (9.5, 19.5)),
        ((19.5, 9.5), (19.5, 19.5)),
        ((9.5, 9.5), (19.5, 9.5)),
    }
    drawn = [one for one in axes.collections if isinstance(one, LineCollection)]
    assert len(drawn) == 2  # light on dark, for any ground
    for lines in drawn:
        found = {tuple(map(tuple, segment.tolist())) for segment in lines.get_segments()}
        assert found == expected


def test_lines_run_to_the_edges_of_the_photo():
    (axes,) = plot_parts([blank(20, 30)], [GRID], [torch.tensor([1, 1, 1, 2, 2, 2])]).axes
    expected = [[[-0.5, 9.5], [9.5, 9.5]], [[9.5, 9.5], [19.5, 9.5]], [[19.5, 9.5], [29.5, 9.5]]]
    for lines in axes.collections:
        assert [segment.tolist() for segment in lines.get_segments()] == expected


def test_a_photo_without_parts_is_shown_as_it_is():
    image = blank(20, 30)
    (axes,) = plot_parts([image], [GRID], [torch.zeros(6, dtype=torch.int64)]).axes
    np.testing.assert_array_equal(pixels(axes), image.pixels)
    assert not axes.texts


@pytest.mark.parametrize(
    ("count", "lengths"),
    [(1, [1]), (2, [2]), (6, [6]), (7, [4, 3]), (13, [5, 5, 3]), (100, [6] * 16 + [4])],
)
def test_up_to_six_photos_stand_in_a_row(count, lengths):
    image = blank(30, 20)
    colours = np.zeros((2, 2, 4), np.uint8)
    figure = plot_pca([image] * count, [plain_grid(image)] * count, [colours] * count)
    places = [axes.get_position() for axes in figure.axes]
    above, below = places[::2], places[1::2]
    rows = sorted({round(place.y0, 5) for place in above}, reverse=True)
    assert [sum(round(place.y0, 5) == row for place in above) for row in rows] == lengths
    for first, second in zip(above, below, strict=True):
        assert (first.x0, first.x1) == pytest.approx((second.x0, second.x1))
        assert second.y1 < first.y0
    for place in places:
        assert min(place.x0, place.y0) >= 0
        assert max(place.x1, place.y1) <= 1
    width, height = figure.get_size_inches()
    assert width <= 17
    assert height <= 84


SHAPES = [(313, 471), (4, 400), (400, 4), (1, 1), (1, 3000), (2000, 1300)]


@pytest.mark.parametrize(
    ("first", "second"), [*((shape, SHAPES[0]) for shape in SHAPES), *itertools.pairwise(SHAPES)]
)
def test_photos_of_any_shape_are_drawn_without_overlap(first, second):
    images = [blank(*first), blank(*second)]
    grids = [plain_grid(image) for image in images]
    colours = [np.full((2, 2, 4), 255, np.uint8)] * 2
    labels = [torch.tensor([1, 0, 2, 2])] * 2
    for figure in (plot_pca(images, grids, colours), plot_parts(images, grids, labels)):
        rendered(figure)
        boxes = [axes.get_window_extent() for axes in figure.axes]
        for index, box in enumerate(boxes):
            assert box.width > 0
            assert box.height > 0
            for other in boxes[index + 1 :]:
                over = min(box.x1, other.x1) - max(box.x0, other.x0)
                along = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(over, along) <= 0.01


def test_a_large_photo_is_thinned_out_and_not_its_coordinates():
    image = blank(2400, 3600)
    (axes,) = plot_parts([image], [plain_grid(image)], [torch.tensor([1, 0, 0, 2])]).axes
    assert pixels(axes).shape == (800, 1200, 3)
    assert axes.texts[0].xy == (899.5, 599.5)
    assert axes.images[0].get_extent() == list(image.size.extent)


def test_numbers_are_seen_on_any_colour():
    """White with a black rim: both are among the pixels around a number."""
    image = blank(200, 300, level=255)
    grid = Grid((2, 3), (100.0, 100.0), (0.0, 0.0), image.size)
    figure = plot_parts([image], [grid], [torch.ones(6, dtype=torch.int64)])
    shown = rendered(figure).reshape(-1, 3)
    assert (shown.max(axis=1) < 40).sum() > 20
    assert (shown.min(axis=1) > 230).sum() > 20
