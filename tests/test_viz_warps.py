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
    assert [panel.get_title() for panel in panels] == [
        "places of the source", "where the target finds them", "the source, warped",
        "striped: both ways disagree",
    ]  # fmt: skip
    photo, colours = layers(panels[0])
    assert (photo.shape, photo.max()) == ((30, 40), 128)
    assert (colours.shape, colours.max()) == ((30, 40, 3), 148)
    assert panels[0].images[1].get_alpha() == 0.7
    grey_target, found, stripes = layers(panels[1])
    assert (grey_target.max(), found.max()) == (100, 140)
    warped, opaque = layers(panels[2])
    assert warped.max() == 160
    shown, cover = layers(panels[3])
    assert shown.max() == 100
    for layer in (stripes, opaque, cover):
        assert layer.shape == (50, 20, 4)
        assert (layer[:, :10, 3] == 0).all()  # nothing over what is valid
        assert len(np.unique(layer[:, 10:, 0])) == 2  # two greys
    assert (stripes[:, 10:, 3] == 255).all()
    assert (opaque[:, 10:, 3] == 255).all()
    assert sorted(np.unique(cover[:, 10:, 3])) == [110, 255]  # the target shines through


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
    assert [panel.get_title() for panel in panels] == [
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
