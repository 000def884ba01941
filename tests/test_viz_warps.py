from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from sdcorr.types import Image
from sdcorr.viz import plot_flow, plot_swap

SHAPES = [(313, 471), (4, 400), (400, 4), (1, 1), (1, 3000), (3000, 1), (2000, 1300)]


def grey(height: int, width: int, level: int = 128) -> Image:
    return Image(np.full((height, width, 3), level, dtype=np.uint8))


def flow_of(source: Image, target: Image, valid: np.ndarray) -> Figure:
    colours = source.pixels + np.uint8(20), target.pixels + np.uint8(40)
    return plot_flow(source, target, colours, target.pixels + np.uint8(60), valid)


def drawn(figure: Figure) -> list[Axes]:
    FigureCanvasAgg(figure).draw()
    return figure.axes


def titles(panels: list[Axes]) -> list[str]:
    return [panel.get_title().replace("\n", " ") for panel in panels]


def layers(panel: Axes) -> list[np.ndarray]:
    return [np.asarray(layer.get_array()) for layer in panel.images]


def outlines(panel: Axes) -> list[ContourSet]:
    return [one for one in panel.collections if isinstance(one, ContourSet)]


def test_four_panels_show_the_flow():
    """Source 30 x 40, target 50 x 20; the right half of the target is not valid."""
    source, target = grey(30, 40), grey(50, 20, level=100)
    valid = np.zeros((50, 20), bool)
    valid[:, :10] = True
    panels = drawn(flow_of(source, target, valid))
    assert titles(panels) == [
        "places of the source", "where the target finds them", "the source, warped",
        "striped: both ways disagree",
    ]  # fmt: skip
    photo, colours = layers(panels[0])
    assert (photo.shape, photo.max()) == ((30, 40, 3), 140)  # 94 + (185 - 94) * 128 / 255
    assert colours.shape == (30, 40, 4)
    assert np.unique(colours.reshape(-1, 4), axis=0).tolist() == [[148, 148, 148, 217]]  # 85 %
    grey_target, found, stripes = layers(panels[1])
    assert (grey_target.max(), found[:, :, :3].max()) == (130, 140)
    warped, opaque = layers(panels[2])
    assert warped.max() == 160
    shown, cover = layers(panels[3])
    assert shown.max() == 100
    for layer in (stripes, opaque, cover):
        assert layer.shape == (650, 260, 4)  # 13 times as large, so that stripes are fine
        assert (layer[:, :130, 3] == 0).all()  # nothing over what is valid
        assert len(np.unique(layer[:, 130:, 0])) == 2  # two greys
    assert (stripes[:, 130:, 3] == 255).all()
    assert (opaque[:, 130:, 3] == 255).all()
    assert sorted(np.unique(cover[:, 130:, 3])) == [110, 255]  # the target shines through


def test_where_nothing_was_asked_there_are_neither_colours_nor_stripes():
    """The upper half of the target was asked for, of it the left half is valid."""
    source, target = grey(30, 40), grey(50, 20, level=100)
    asked, valid = np.zeros((2, 50, 20), bool)
    asked[:25], valid[:, :10] = True, True
    colours = source.pixels + np.uint8(20), target.pixels + np.uint8(40)
    figure = plot_flow(source, target, colours, target.pixels + np.uint8(60), valid, asked)
    panels = drawn(figure)
    assert titles(panels)[3] == "striped: ways disagree; faded: left out"
    assert (layers(panels[0])[1][:, :, 3] == 217).all()
    assert (layers(panels[1])[1][:, :, 3] == np.where(asked, 217, 0)).all()
    for panel, cover in zip(panels[1:], (200, 255, 200), strict=True):
        *_, stripes, faded = layers(panel)
        striped = stripes[::13, ::13, 3] > 0
        assert (striped == (asked & ~valid)).all()
        assert (faded[:, :, 3] == np.where(asked, 0, cover)).all()
        assert np.unique(faded[:, :, :3]).tolist() == [140]


@pytest.mark.parametrize("shape", [(40, 40), (4, 400), (1, 1), (300, 400)])
def test_stripes_are_wider_than_a_dot(shape):
    photo = grey(*shape)
    stripes = layers(flow_of(photo, photo, np.zeros(shape, bool)).axes[2])[1]
    row = stripes[0, :, 0]
    changes = np.flatnonzero(np.diff(row))
    assert np.diff(changes).min() >= 9
    assert 1e-2 <= np.diff(changes).max() / stripes[..., 0].size ** 0.5 <= 4e-2


@pytest.mark.parametrize("shape", [(40, 400), (40, 900), (400, 40), (900, 60), (300, 400)])
def test_flat_and_tall_photos_fill_the_page(shape):
    photo = grey(*shape)
    mask = np.ones(shape, bool)
    for figure in (flow_of(photo, photo, mask), plot_swap(photo, mask, photo, mask, photo.pixels)):
        for panel in figure.axes:
            panel.apply_aspect()
        boxes = [panel.get_position() for panel in figure.axes]  # of the photos themselves
        filled = sum(box.width * box.height for box in boxes)
        assert filled > (0.28 if shape[0] > 5 * shape[1] else 0.5)  # titles are wider than 0.6 in


@pytest.mark.parametrize(
    ("first", "second"), [*((shape, SHAPES[0]) for shape in SHAPES), *itertools.pairwise(SHAPES)]
)
def test_photos_of_every_shape_keep_it_and_lie_on_the_page(first, second):
    source, target = grey(*first), grey(*second)
    figure = flow_of(source, target, np.zeros(second, bool))
    panels = drawn(figure)
    assert [panel.get_xlim() for panel in panels[:2]] == [
        (-0.5, first[1] - 0.5), (-0.5, second[1] - 0.5),
    ]  # fmt: skip
    assert panels[3].get_ylim() == (second[0] - 0.5, -0.5)
    width, height = figure.get_size_inches()
    assert width <= 24  # 16, and titles wider than their photos
    assert 1 <= height <= 11
    boxes = [panel.get_position() for panel in panels]
    for number, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= 1
        assert 0 <= box.y0 < box.y1 <= 1
        for other in boxes[:number]:
            apart = box.x0 >= other.x1 or other.x0 >= box.x1
            assert apart or box.y0 >= other.y1 or other.y0 >= box.y1
    for panel in panels:  # each title above its photo, on the page
        title = panel.title.get_window_extent()
        assert title.x0 >= 0
        assert title.x1 <= figure.bbox.width
        assert title.y1 <= figure.bbox.height


def columns_of(figure: Figure) -> int:
    return len({round(panel.get_position(original=True).x0, 6) for panel in figure.axes})


@pytest.mark.parametrize(
    ("shape", "columns"), [((300, 400), 2), ((400, 300), 4), ((100, 900), 1), ((900, 100), 4)]
)
def test_panels_stand_where_photos_are_largest(shape, columns):
    photo = grey(*shape)
    assert columns_of(flow_of(photo, photo, np.ones(shape, bool))) == columns


def test_large_photos_are_thinned_out_not_their_coordinates():
    photo = grey(1500, 3000)
    panel = drawn(flow_of(photo, photo, np.zeros((1500, 3000), bool)))[2]
    assert [layer.shape[:2] for layer in layers(panel)] == [(600, 1200)] * 2
    assert panel.images[1].get_extent() == [-0.5, 2999.5, 1499.5, -0.5]


def test_three_panels_show_a_swap_and_both_objects():
    """The source's object is columns 10 to 29 of rows 5 to 14, edges at half pixels."""
    source, target, result = grey(30, 40), grey(50, 20), grey(50, 20, 200)
    mask = np.zeros((30, 40), bool)
    mask[5:15, 10:30] = True
    whole = np.ones((50, 20), bool)
    panels = drawn(plot_swap(source, mask, target, whole, result.pixels))
    assert titles(panels) == [
        "source", "target", "target with the source's object",
    ]  # fmt: skip
    assert [layers(panel)[0].max() for panel in panels] == [128, 128, 200]
    assert [len(outlines(panel)) for panel in panels] == [2, 2, 0]
    black, white = outlines(panels[0])
    assert black.get_linewidth()[0] > white.get_linewidth()[0]
    assert black.get_edgecolor()[0].tolist() == [0, 0, 0, 1]
    assert white.get_edgecolor()[0].tolist() == [1, 1, 1, 1]
    edge = np.vstack([path.vertices for path in white.get_paths()])
    assert edge.min(axis=0).tolist() == [9.5, 4.5]
    assert edge.max(axis=0).tolist() == [29.5, 14.5]
    around = np.vstack([path.vertices for path in outlines(panels[1])[0].get_paths()])
    assert around.min(axis=0).tolist() == [-0.5, -0.5]  # closed along the photo's edge
    assert around.max(axis=0).tolist() == [19.5, 49.5]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_in_photos_of_every_shape(shape):
    photo, mask = grey(*shape), np.zeros(shape, bool)
    mask[: shape[0] // 2 + 1, : shape[1] // 2 + 1] = True
    panels = drawn(plot_swap(photo, mask, photo, mask, photo.pixels))
    assert all(path.vertices.size for path in outlines(panels[0])[0].get_paths())
