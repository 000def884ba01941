from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch
from matplotlib.text import Annotation

import sdcorr
from sdcorr.errors import SdcorrError
from sdcorr.fused import Fused
from sdcorr.fusion import FusedSimilarity
from sdcorr.geometry import Grid, Size
from sdcorr.types import FeatureMap, Image, Matches
from sdcorr.viz import COLOURS, label_offsets, plot_heatmap, plot_matches

SHAPES = [(313, 471), (4, 400), (400, 4), (1, 1), (1, 3000), (2000, 1300)]


def blank(height: int, width: int) -> Image:
    return Image(np.full((height, width, 3), 128, dtype=np.uint8))


def some_matches(count: int, first: Image, second: Image, **changes: Any) -> Matches:
    """Matches at the same random places, as fractions, of both photos."""
    unit = torch.rand(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    zeros = torch.zeros(count)
    fields: dict[str, Any] = {
        "source": unit * torch.tensor([first.size.width - 1, first.size.height - 1]),
        "target": unit * torch.tensor([second.size.width - 1, second.size.height - 1]),
        "score": zeros, "margin": zeros, "cycle_error": zeros, "peak": zeros,
        "matched": torch.ones(count, dtype=torch.bool),
        "source_image": first, "target_image": second,
    }  # fmt: skip
    return Matches(**(fields | changes))


def drawn(figure: Figure) -> tuple[Axes, Axes, Axes]:
    """Axes of source, target and overlay, laid out."""
    FigureCanvasAgg(figure).draw()  # the canvas of a bare figure draws nothing
    left, right, overlay = figure.axes
    return left, right, overlay


def markers(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if line.get_marker() == "o"]


def places(lines: list[Line2D]) -> list[list[float]]:
    return [[float(value[0]) for value in line.get_data()] for line in lines]


def labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if isinstance(text, Annotation)]


def connections(axes: Axes) -> list[ConnectionPatch]:
    return [patch for patch in axes.patches if isinstance(patch, ConnectionPatch)]


@pytest.mark.parametrize("count", [0, 1, 20])
def test_each_match_has_a_line_two_markers_and_two_numbers(count: int) -> None:
    matches = some_matches(count, blank(30, 40), blank(50, 20))
    left, right, overlay = drawn(plot_matches(matches))
    assert len(connections(overlay)) == count
    sources, targets = markers(overlay)[::2], markers(overlay)[1::2]
    assert places(sources) == matches.source.tolist()
    assert places(targets) == matches.target.tolist()
    assert all(line.get_transform() is left.transData for line in sources)
    assert all(line.get_transform() is right.transData for line in targets)
    assert labels(overlay) == [str(number + 1) for number in range(count)] * 2


def test_lines_run_from_source_to_target() -> None:
    matches = some_matches(3, blank(30, 40), blank(50, 20))
    left, right, overlay = drawn(plot_matches(matches))
    for line, start, end in zip(
        connections(overlay), matches.source.tolist(), matches.target.tolist(), strict=True
    ):
        path = line.get_transform().transform(line.get_path().vertices)  # in display pixels
        assert path[0] == pytest.approx(left.transData.transform(start), abs=1)
        assert path[-1] == pytest.approx(right.transData.transform(end), abs=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_points_are_drawn_where_their_pixels_are(shape: tuple[int, int]) -> None:
    height, width = shape
    corners = torch.tensor([[0, 0], [width - 1, height - 1]], dtype=torch.float64)
    changes = {"source": corners, "target": corners.flip(0)}
    figure = plot_matches(some_matches(2, blank(*shape), blank(*shape), **changes))
    left, right, overlay = drawn(figure)
    half = (0.5 / width, 0.5 / height)  # of a pixel, as a fraction of the photo
    top_left, bottom_right = (half[0], 1 - half[1]), (1 - half[0], half[1])
    wanted = [(left, top_left), (right, bottom_right), (left, bottom_right), (right, top_left)]
    for line, (axes, fraction) in zip(markers(overlay), wanted, strict=True):
        shown = line.get_transform().transform(np.array(places([line])))
        assert axes.transAxes.inverted().transform(shown)[0] == pytest.approx(fraction, abs=1e-6)


@pytest.mark.parametrize("source", SHAPES)
@pytest.mark.parametrize("target", [(313, 471), (1, 3000)])
def test_photos_of_any_shape_fit_on_a_figure_of_fair_size(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    figure = plot_matches(some_matches(2, blank(*source), blank(*target)))
    left, right, _ = drawn(figure)
    width, height = figure.get_size_inches()
    assert 1 <= width <= 16.01
    assert 1 <= height <= 4.51
    edges = [axes.get_position() for axes in (left, right)]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in edges)
    assert edges[0].x1 <= edges[1].x0
    for axes, shape in ((left, source), (right, target)):
        assert tuple(axes.images[0].get_extent()) == Size(*shape).extent


def test_large_photos_are_thinned_out_but_not_their_coordinates() -> None:
    left, _, _ = drawn(plot_matches(some_matches(1, blank(2000, 1300), blank(30, 40))))
    assert left.images[0].get_array().shape == (1200, 780, 3)
    assert (left.get_xlim(), left.get_ylim()) == ((-0.5, 1299.5), (1999.5, -0.5))


def test_the_photos_are_on_their_sides() -> None:
    source, target = blank(30, 40), Image(np.zeros((50, 20, 3), dtype=np.uint8))
    left, right, _ = drawn(plot_matches(some_matches(1, source, target)))
    assert np.array_equal(left.images[0].get_array(), source.pixels)
    assert np.array_equal(right.images[0].get_array(), target.pixels)


@pytest.mark.parametrize(
    "name",
    ["left eye", "", "Ohr", "$5", "$5 or $6", "$\\frac{$", "a_b^c", "{%", "\\alpha", "line\nline"],
)
def test_names_are_labels_letter_by_letter(name: str) -> None:
    figure = plot_matches(some_matches(2, blank(30, 40), blank(50, 20), names=(name, "other")))
    _, _, overlay = drawn(figure)
    assert labels(overlay) == [name, "other"] * 2
    assert all(
        text.get_text().count("$") < 2 or not text.get_parse_math() for text in overlay.texts
    )


def boxes(figure: Figure) -> list[tuple[float, float, float, float]]:
    """Names as drawn: left, bottom, right, top in display pixels."""
    _, _, overlay = drawn(figure)
    extents = [text.get_window_extent() for text in overlay.texts]
    return [(box.x0, box.y0, box.x1, box.y1) for box in extents]


def test_twenty_names_of_crowded_points_stay_apart_and_on_the_page() -> None:
    """A 5 x 4 grid 20 px apart in a corner; names may touch, not cover each other."""
    columns, rows = torch.meshgrid(torch.arange(5.0), torch.arange(4.0), indexing="xy")
    corner = 20 * torch.stack([columns, rows], dim=-1).reshape(-1, 2).double()
    photo = blank(300, 400)
    figure = plot_matches(some_matches(20, photo, photo, source=corner, target=corner))
    found = boxes(figure)
    assert len(found) == 40
    for index, one in enumerate(found):
        assert one[0] >= 0
        assert one[3] <= figure.bbox.height
        for other in found[index + 1 :]:
            wide = min(one[2], other[2]) - max(one[0], other[0])
            high = min(one[3], other[3]) - max(one[1], other[1])
            smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
            assert max(wide, 0) * max(high, 0) < 0.5 * smaller


def test_names_of_points_at_one_place_stand_on_unlike_sides() -> None:
    place = np.full((3, 2), 50.0)
    offsets = label_offsets(place, ["a", "b", "c"], np.array([100.0, 100.0]))
    assert len(set(offsets)) == 3
    assert offsets[0] == (7.5, 9.5)  # up and right, where there is room


def test_a_name_in_the_corner_of_the_page_stands_inside() -> None:
    ((x, y),) = label_offsets(np.array([[98.0, 98.0]]), ["name"], np.array([100.0, 100.0]))
    assert x < 0
    assert y < 0


def test_rejected_matches_are_dashed() -> None:
    matched = torch.tensor([True, False, True])
    figure = plot_matches(some_matches(3, blank(30, 40), blank(50, 20), matched=matched))
    _, _, overlay = drawn(figure)
    assert [line.get_linestyle() for line in connections(overlay)] == ["-", "--", "-"]


def test_neighbouring_matches_differ_in_colour() -> None:
    figure = plot_matches(some_matches(2 * len(COLOURS), blank(30, 40), blank(50, 20)))
    _, _, overlay = drawn(figure)
    shown = [line.get_edgecolor() for line in connections(overlay)]
    assert len(set(shown)) == len(COLOURS)
    assert all(one != other for one, other in pairwise(shown))


@pytest.mark.parametrize("lacking", ["source_image", "target_image"])
def test_matches_without_photos_cannot_be_plotted(lacking: str) -> None:
    matches = some_matches(1, blank(30, 40), blank(50, 20), **{lacking: None})
    with pytest.raises(SdcorrError, match="carry no photos"):
        plot_matches(matches)
    assert matches._repr_png_() is None


def test_a_notebook_shows_a_png() -> None:
    picture = some_matches(1, blank(30, 40), blank(50, 20))._repr_png_()
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


# Heat map


def pair_of_maps(padded: bool = False) -> FusedSimilarity:
    """A source of one descriptor; a 3 x 4 target of which cell (row 1, column 2) is like it."""
    source = Grid((1, 1), (40.0, 30.0), (0.0, 0.0), Size(30, 40))
    # padded: the photo is 40 px wide and 10 px high, the rows above and below it are padding
    offset = (0.0, -10.0) if padded else (0.0, 0.0)
    target = Grid((3, 4), (10.0, 10.0), offset, Size(10 if padded else 30, 40))
    values = torch.zeros(2, 3, 4)
    values[1] = 1.0
    values[:, 1, 2] = torch.tensor([1.0, 0.0])
    return FusedSimilarity(
        FeatureMap("fused", torch.tensor([1.0, 0.0]).reshape(2, 1, 1), source),
        FeatureMap("fused", values, target),
    )


def heat_match(similarity: FusedSimilarity) -> Matches:
    photos = (blank(*similarity.source.image), blank(*similarity.target.image))
    point = torch.tensor([[7.0, 20.0]], dtype=torch.float64)
    return some_matches(1, *photos, source=point, target=torch.tensor([[24.5, 14.5]]))


def test_the_heat_map_shows_the_similarity_over_the_target() -> None:
    similarity = pair_of_maps()
    figure = plot_heatmap(similarity, heat_match(similarity))
    assert isinstance(figure, Figure)
    left, right, scale = drawn(figure)
    heat = right.images[1]
    wanted = [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert heat.get_array().tolist() == wanted
    assert heat.get_extent() == [-0.5, 39.5, 29.5, -0.5]
    assert (heat.norm.vmin, heat.norm.vmax) == (0, 1)
    assert scale.get_ylabel() == "cosine similarity"
    assert places(markers(left)) == [[7.0, 20.0]]
    assert places(markers(right)) == [[24.5, 14.5]]


def test_heat_on_padding_is_cut_off() -> None:
    similarity = pair_of_maps(padded=True)
    _, right, _ = drawn(plot_heatmap(similarity, heat_match(similarity)))
    heat = right.images[1]
    assert list(heat.get_extent()) == [-0.5, 39.5, 19.5, -10.5]
    assert (right.get_xlim(), right.get_ylim()) == ((-0.5, 39.5), (9.5, -0.5))


def pixel(figure: Figure, axes: Axes, place: tuple[float, float]) -> np.ndarray:
    """Colour of a drawn figure at a place in data of axes."""
    x, y = axes.transData.transform(place)
    shown = np.asarray(figure.canvas.buffer_rgba())
    return shown[round(shown.shape[0] - y), round(x), :3].astype(int)


def test_the_bar_has_the_colours_of_the_heat_over_a_grey_photo() -> None:
    similarity = pair_of_maps()
    figure = plot_heatmap(similarity, heat_match(similarity))
    _, right, scale = drawn(figure)
    values = right.images[1].get_array().data.copy()
    values[0] = [0.2, 0.4, 0.6, 0.8]
    right.images[1].set(data=values, interpolation="nearest")
    FigureCanvasAgg(figure).draw()
    for column, value in enumerate(values[0]):
        seen = pixel(figure, right, (10 * column + 4.5, 4.5))
        assert np.abs(seen - pixel(figure, scale, (0.5, value))).max() <= 2
    assert np.ptp([pixel(figure, scale, (0.5, value)) for value in (0.2, 0.8)]) > 60


def test_below_the_median_the_bar_ends_in_a_tip() -> None:
    similarity = pair_of_maps()
    *_, scale = drawn(plot_heatmap(similarity, heat_match(similarity)))
    assert scale._colorbar.extend == "min"
    assert scale.get_ylim() == (0, 1)


def test_a_photo_of_any_colour_is_seen_in_middle_greys_below_the_heat() -> None:
    similarity = pair_of_maps()
    photo = blank(30, 40).pixels.copy()
    photo[:15], photo[15:] = (255, 255, 0), (0, 0, 40)
    match = dataclasses.replace(heat_match(similarity), target_image=Image(photo))
    _, right, _ = drawn(plot_heatmap(similarity, match))
    grey = np.asarray(right.images[0].get_array())
    assert (grey[:15] == 185).all()
    assert (grey[15:] == 94).all()


@pytest.mark.parametrize("value", [1.0 + 1e-6, 0.3, 0.0, -1.0])
def test_equal_similarities_have_a_bar_that_ends_there(value: float) -> None:
    @dataclasses.dataclass(frozen=True)
    class Flat:
        source: Grid
        target: Grid

        def rows(self, points: torch.Tensor) -> torch.Tensor:
            return torch.full((len(points), 12), value)

    similarity = pair_of_maps()
    *_, scale = drawn(
        plot_heatmap(Flat(similarity.source, similarity.target), heat_match(similarity))
    )
    low, high = scale.get_ylim()
    assert high == pytest.approx(min(value, 1), abs=1e-7)
    assert high <= 1
    assert high - low == pytest.approx(0.01)


@pytest.mark.parametrize("shape", [(313, 471), (4, 400), (400, 4), (1, 1)])
def test_the_bar_stands_beside_the_photo_and_is_as_high(shape: tuple[int, int]) -> None:
    photo = blank(*shape)
    grid = Grid((1, 1), (shape[1], shape[0]), (0.0, 0.0), photo.size)
    one = FeatureMap("fused", torch.ones(2, 1, 1), grid)
    figure = plot_heatmap(FusedSimilarity(one, one), some_matches(1, photo, photo))
    _, right, scale = drawn(figure)
    beside, bar = right.get_position(), scale.get_position(original=True)  # with its tip
    tight = scale.get_tightbbox()
    assert tight.x1 <= figure.bbox.width
    assert bar.x0 >= beside.x1
    assert (bar.y0 + bar.y1) / 2 == pytest.approx((beside.y0 + beside.y1) / 2)
    lowest = 1.5 / figure.get_figheight()
    assert bar.height == pytest.approx(max(beside.height, lowest))
    assert 0 <= bar.y0 < bar.y1 <= 1


def test_a_heat_map_needs_photos() -> None:
    similarity = pair_of_maps()
    match = dataclasses.replace(heat_match(similarity), target_image=None)
    with pytest.raises(SdcorrError, match="carry no photos"):
        plot_heatmap(similarity, match)


@pytest.fixture(scope="module")
def fused(photo: Any, other_photo: Any) -> Fused:
    return sdcorr.load("sift", device="cpu", dtype="float32").fuse(photo, other_photo)


def test_fused_plot_marks_the_point_and_its_match(fused: Fused) -> None:
    figure = fused.plot([200, 100])
    assert isinstance(figure, Figure)
    left, right, _ = drawn(figure)
    assert places(markers(left)) == [[200.0, 100.0]]
    assert places(markers(right)) == fused.match([[200, 100]]).target.tolist()


def test_fused_plot_refuses_a_point_off_the_photo(fused: Fused) -> None:
    with pytest.raises(SdcorrError, match="is not on the source photo"):
        fused.plot([471, 100])


def test_figures_are_returned_and_nothing_is_shown() -> None:
    script = """
import io, sys
import numpy as np
import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.fusion import Group, MapUse

photo = np.random.default_rng(0).random((64, 96, 3))
group = Group("sift", Sift(size=96), (MapUse("rootsift"),))
fused = sdcorr.load(sdcorr.Recipe("small", (group,)), device="cpu").fuse(photo, photo)
fused.match([[40, 20]]).plot().savefig(io.BytesIO())
fused.plot([40, 20]).savefig(io.BytesIO())
print("matplotlib.figure" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True", "False"]
