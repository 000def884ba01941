"""What stands out, colours by principal components, and parts: by hand, and by slow references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sdcorr.clusters import k_means
from sdcorr.colours import lab_to_rgb
from sdcorr.errors import BadImage, BadMask, BadRecipe
from sdcorr.geometry import Grid, Size
from sdcorr.segmentation import (
    DARKEST,
    LIGHTEST,
    Components,
    at_pixels,
    colours_of,
    parts,
    pca_colours,
    principal,
    salient,
)
from sdcorr.types import FeatureMap

WIDE = Grid((6, 9), (10.0, 10.0), (0.0, 0.0), Size(60, 90))
LETTERBOX = Grid((8, 8), (9.0, 9.0), (0.0, -12.0), Size(48, 72))  # rows 0 and 7 lie on padding
UPRIGHT = Grid((5, 5), (9.0, 9.0), (-10.0, 0.0), Size(45, 25))  # columns 0 and 4 lie on padding
ONE = Grid((1, 1), (40.0, 30.0), (0.0, 0.0), Size(30, 40))
GRIDS = (WIDE, LETTERBOX, UPRIGHT)

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", 2009, table of matrices for severity 1, on linear RGB
DEFICIENCIES = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}


def random_map(grid: Grid, seed: int, channels: int = 12) -> FeatureMap:
    generator = torch.Generator().manual_seed(seed)
    return FeatureMap("m", torch.randn(channels, *grid.shape, generator=generator) + 0.5, grid)


def random_maps() -> list[FeatureMap]:
    return [random_map(grid, seed) for seed, grid in enumerate(GRIDS)]


def drawn_map(rows: list[str], grid: Grid) -> FeatureMap:
    """Each letter is a direction of its own; a dot is a zero descriptor."""
    letters = sorted(set("".join(rows)) - {"."})
    values = torch.zeros(max(2, len(letters)), *grid.shape)
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            if letter != ".":
                values[letters.index(letter), y, x] = 2.0
    return FeatureMap("m", values, grid)


OBJECT = ["aaaaaaaaa", "aabbbaaaa", "aabbbbbaa", "aabbbbbaa", "aaaabbaaa", "aaaaaaaaa"]


# Saliency


def test_what_does_not_touch_the_border_stands_out():
    (found,) = salient([drawn_map(OBJECT, WIDE)])
    assert found.dtype == torch.bool
    assert found.tolist() == [letter == "b" for letter in "".join(OBJECT)]


def test_a_larger_object_stands_out_as_well():
    """The object has most of the cells, the border is the other's."""
    rows = ["aaaaaaaaa", *["abbbbbbba"] * 4, "aaaaaaaaa"]
    (found,) = salient([drawn_map(rows, WIDE)])
    assert found.tolist() == [letter == "b" for letter in "".join(rows)]


def test_of_two_sides_with_as_much_of_the_border_the_smaller_stands_out():
    """Of the twelve border cells six belong to either; b has one of the four in the middle."""
    rows = ["aaab", "aabb", "aaab", "abbb"]
    grid = Grid((4, 4), (10.0, 10.0), (0.0, 0.0), Size(40, 40))
    edge = [rows[y][x] for y in range(4) for x in range(4) if {x, y} & {0, 3}]
    assert edge.count("a") == edge.count("b") == 6
    (found,) = salient([drawn_map(rows, grid)])
    assert found.tolist() == [letter == "b" for letter in "".join(rows)]


def test_the_border_of_all_photos_decides():
    """In the second photo alone the object would be the ground, for it has the border."""
    second = ["bbbbbbbbb", "baaaaaaab", "baaaaaaab", "baaaaaaab", "baaaaaaab", "bbbbbbbbb"]
    alone = salient([drawn_map(second, WIDE)])[0]
    assert alone.tolist() == [letter == "a" for letter in "".join(second)]
    maps = [drawn_map(rows, WIDE) for rows in (OBJECT, OBJECT, second)]
    for found, rows in zip(salient(maps), (OBJECT, OBJECT, second), strict=True):
        assert found.tolist() == [letter == "b" for letter in "".join(rows)]


def test_padding_is_never_foreground_and_has_no_influence():
    maps = random_maps()
    expected = salient(maps)
    for one, found in zip(maps, expected, strict=True):
        assert not found[~one.grid.inside()].any()
    spoiled = []
    for one in maps:
        values = one.values.clone()
        values[:, ~one.grid.inside().reshape(one.grid.shape)] = 1e3
        spoiled.append(FeatureMap("m", values, one.grid))
    assert all(map(torch.equal, salient(spoiled), expected))
    for first, second in zip(pca_colours(spoiled), pca_colours(maps), strict=True):
        np.testing.assert_array_equal(first, second)
    assert all(map(torch.equal, parts(spoiled, None, 3), parts(maps, None, 3)))


def test_lengths_of_descriptors_have_no_influence():
    maps = random_maps()
    scaled = [
        FeatureMap("m", one.values * 2.0 ** torch.arange(one.grid.shape[1]), one.grid)  # exact
        for one in maps
    ]
    assert all(map(torch.equal, salient(scaled), salient(maps)))
    assert all(map(torch.equal, parts(scaled, None, 3), parts(maps, None, 3)))


def test_a_zero_descriptor_is_a_kind_of_its_own():
    rows = [row.replace("a", ".") for row in OBJECT]
    (found,) = salient([drawn_map(rows, WIDE)])
    assert found.tolist() == [letter == "b" for letter in "".join(rows)]


@pytest.mark.parametrize(
    "maps",
    [
        [drawn_map(["aaaaaaaaa"] * 6, WIDE)],
        [drawn_map(["........."] * 6, WIDE)],
        [FeatureMap("m", torch.full((7, 6, 9), 0.1), WIDE)] * 3,
        [random_map(ONE, 0)],
    ],
    ids=["one kind", "zero", "several photos", "one cell"],
)
def test_where_all_cells_are_alike_nothing_stands_out(maps):
    with pytest.raises(BadImage, match=r"nothing stands out.*--whole"):
        salient(maps)


def slow_threshold(values: np.ndarray) -> float:
    """Otsu's, by trying each value."""
    best, least = None, np.inf
    for value in sorted(set(values.tolist()))[:-1]:
        low, high = values[values <= value], values[values > value]
        within = len(low) * low.var() + len(high) * high.var()
        if within < least * (1 - 1e-12):
            best, least = value, within
    return best


def slow_rows(maps, chosen) -> list[np.ndarray]:
    found = []
    for one, cells in zip(maps, chosen, strict=True):
        rows = one.descriptors().double().numpy()[cells.numpy()]
        found.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return found


def test_saliency_agrees_with_a_slow_reference():
    maps = random_maps()
    inside = [one.grid.inside() for one in maps]
    rows = slow_rows(maps, inside)
    every = np.concatenate(rows)
    _, _, directions = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)
    first = (every - every.mean(axis=0)) @ directions[0]
    above = first > slow_threshold(first)
    border = []
    for one, cells in zip(maps, inside, strict=True):
        places = [divmod(cell, one.grid.shape[1]) for cell in cells.nonzero()[:, 0].tolist()]
        ends = [(min(axis), max(axis)) for axis in zip(*places, strict=True)]
        border += [y in ends[0] or x in ends[1] for y, x in places]
    taken, left = (above & border).sum(), (~above & border).sum()
    assert taken != left  # or the test would not test
    expected = above if taken < left else ~above
    found = torch.cat([one[cells] for one, cells in zip(salient(maps), inside, strict=True)])
    assert found.tolist() == expected.tolist()


# Principal components


@pytest.mark.parametrize("channels", [12, 200])  # fewer and more than there are cells
def test_components_agree_with_singular_values(channels):
    maps = [random_map(grid, seed, channels) for seed, grid in enumerate(GRIDS)]
    chosen = [one.grid.inside() & (torch.rand(len(one.grid.inside())) < 0.8) for one in maps]
    found = principal(maps, chosen)
    every = np.concatenate(slow_rows(maps, chosen))
    centred = every - every.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    for number, direction in enumerate(directions[:3]):
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        np.testing.assert_allclose(
            torch.cat(found.values)[:, number].numpy(), centred @ direction, atol=2e-6
        )  # directions are kept as float32
    np.testing.assert_allclose(
        found.share.numpy(), (lengths**2 / (lengths**2).sum())[:3], rtol=1e-5
    )


def test_missing_components_are_zero():
    """Two kinds of cell differ in one direction; two channels have two at most."""
    found = principal([drawn_map(OBJECT, WIDE)])
    assert found.values[0].shape == (54, 3)
    assert found.share.tolist() == pytest.approx([1, 0, 0])
    assert found.values[0][:, 1:].abs().max() == 0
    alike = principal([drawn_map(["aaaaaaaaa"] * 6, WIDE)])
    assert alike.share.tolist() == [0, 0, 0]


def test_a_photo_without_foreground_takes_no_part():
    maps = random_maps()
    nothing = torch.zeros(64, dtype=torch.bool)
    chosen = [WIDE.inside(), nothing, UPRIGHT.inside()]
    found = principal(maps, chosen)
    assert [len(one) for one in found.values] == [54, 0, 15]
    both = principal([maps[0], maps[2]])
    torch.testing.assert_close(found.values[2], both.values[1])
    assert colours_of(found)[1].max() == 0
    assert parts(maps, chosen, 2)[1].max() == 0


@pytest.mark.parametrize(
    ("foreground", "message"),
    [
        ([torch.zeros(54, dtype=torch.bool)], "holds no cell"),
        ([torch.ones(60, 90, dtype=torch.bool)], r"each of \[54\] cells, got \[\(60, 90\)\]"),
        ([torch.ones(54, dtype=torch.bool)] * 2, r"each of \[54\] cells, got \[\(54,\), \(54,\)\]"),
    ],
    ids=["empty", "pixels", "too many"],
)
def test_a_foreground_that_does_not_fit_is_refused(foreground, message):
    maps = [random_map(WIDE, 0)]
    for work in (lambda: pca_colours(maps, foreground), lambda: parts(maps, foreground, 2)):
        with pytest.raises(BadMask, match=message):
            work()


def test_a_foreground_on_padding_alone_is_empty():
    maps = [random_map(LETTERBOX, 0)]
    with pytest.raises(BadMask, match="holds no cell"):
        principal(maps, [~LETTERBOX.inside()])


# Colours


def of_values(values: list[list[float]]) -> Components:
    """Components of one photo with a single row of cells."""
    count = len(values)
    grid = Grid((1, count), (1.0, 1.0), (0.0, 0.0), Size(1, count))
    every = torch.ones(count, dtype=torch.bool)
    return Components((grid,), (every,), (torch.tensor(values).double(),), torch.zeros(3))


def to_linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB of 0 to 255 as linear RGB of 0 to 1 (IEC 61966-2-1)."""
    unit = np.asarray(rgb, np.float64) / 255
    return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)


def to_lab(linear: np.ndarray) -> np.ndarray:
    """Linear RGB as CIELAB, white D65 (CIE 15)."""
    xyz = linear @ np.array(
        [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    )
    ratio = xyz / np.array([0.9505, 1.0, 1.089])
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_lab_becomes_the_colour_that_it_names():
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 256, (50, 7, 3)).astype(np.uint8)
    back = lab_to_rgb(to_lab(to_linear(rgb)))
    assert (back.shape, back.dtype) == (rgb.shape, np.uint8)
    assert np.abs(back.astype(int) - rgb).max() <= 1  # the matrix has four digits
    assert lab_to_rgb(np.zeros((0, 3))).shape == (0, 3)


def test_components_are_lightness_blue_to_yellow_and_green_to_red():
    """Each component from -1 to 1 by itself, the others in the middle."""
    for number in range(3):
        steps = [[0.0, 0.0, 0.0] for _ in range(101)]
        for index, step in enumerate(steps):
            step[number] = index / 50 - 1
        (picture,) = colours_of(of_values(steps))
        assert (picture.shape, picture.dtype) == ((1, 101, 4), np.uint8)
        assert (picture[..., 3] == 255).all()
        lab = to_lab(to_linear(picture[0, :, :3]))
        channel = (0, 2, 1)[number]  # L*, b*, a*
        assert lab[-1, channel] - lab[0, channel] > (50, 55, 35)[number]
        assert (np.diff(lab[:, channel]) > -1).all()  # 1: rounding to 8 bits
        others = [one for one in range(3) if one != channel]
        assert np.ptp(lab[:, others], axis=0).max() < 2.5


def test_the_ends_of_the_lightness_are_as_told():
    (picture,) = colours_of(of_values([[-1.0, 0, 0], [1.0, 0, 0]] * 50))
    lab = to_lab(to_linear(picture[0, :2, :3]))
    assert lab[:, 0] == pytest.approx([DARKEST, LIGHTEST], abs=0.5)


def test_all_colours_lie_in_srgb():
    """At each corner of the solid and between: CIELAB comes back as it was asked for."""
    steps = np.linspace(-1, 1, 21)
    values = list(itertools.product(steps, steps, steps))
    (picture,) = colours_of(of_values(values))
    lab = to_lab(to_linear(picture[0, :, :3]))
    light = (LIGHTEST + DARKEST) / 2 + np.array(values)[:, 0] * (LIGHTEST - DARKEST) / 2
    light = np.clip(light, DARKEST, LIGHTEST)
    assert np.abs(lab[:, 0] - light).max() < 1.2  # a colour cut off at a channel is off by more
    chroma = np.minimum(7 + 0.4 * light, 22 + 1.5 * (LIGHTEST - light))
    assert np.abs(lab[:, 2] - chroma * np.array(values)[:, 1]).max() < 2.5
    assert np.abs(lab[:, 1] - 0.6 * chroma * np.array(values)[:, 2]).max() < 2.5


@pytest.mark.parametrize("deficiency", [None, *DEFICIENCIES])
@pytest.mark.parametrize("number", [0, 1], ids=["first", "second"])
def test_who_cannot_tell_red_from_green_sees_the_first_two_components(number, deficiency):
    """Five steps of each stay 8 apart or more in CIELAB; what can just be told apart is about 2.3.

    2.3: Mahy et al., "Evaluation of uniform color spaces developed after the adoption of CIELAB and
    CIELUV", 1994.
    """
    for rest in itertools.product((-1.0, 0.0, 1.0), repeat=2):
        steps = [[*rest[:number], step, *rest[number:]] for step in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        full = [[-1.0] * 3, [1.0] * 3] * 500
        linear = to_linear(colours_of(of_values(full + steps))[0][0, -5:, :3])
        if deficiency:
            linear = (linear @ np.array(DEFICIENCIES[deficiency]).T).clip(0, 1)
        lab = to_lab(linear)
        apart = np.linalg.norm(np.diff(lab, axis=0), axis=1)
        assert apart.min() > 8, (rest, apart)


def test_the_third_component_is_the_one_that_is_lost():
    """Else the test above would also pass with red and green first."""
    full = [[-1.0] * 3, [1.0] * 3] * 500
    linear = to_linear(colours_of(of_values([*full, [0, 0, -1.0], [0, 0, 1.0]]))[0][0, -2:, :3])
    seen = to_lab((linear @ np.array(DEFICIENCIES["deuteranopia"]).T).clip(0, 1))
    assert np.linalg.norm(seen[1] - seen[0]) < 0.4 * np.linalg.norm(np.diff(to_lab(linear), axis=0))


def test_outliers_do_not_squeeze_the_others():
    values = [[index / 100, 0.0, 0.0] for index in range(100)]
    (without,) = colours_of(of_values(values))
    (with_one,) = colours_of(of_values([*values, [100.0, 0, 0]]))
    assert np.abs(without[0, :100].astype(int) - with_one[0, :100]).max() <= 4
    assert with_one[0, -1].tolist() == with_one[0, -2].tolist()


def test_a_few_cells_among_many_that_are_alike_are_seen():
    (picture,) = colours_of(of_values([[0.0, 0, 0]] * 999 + [[1.0, 0, 0]]))
    lab = to_lab(to_linear(picture[0, [0, -1], :3]))
    assert lab[1, 0] - lab[0, 0] > 50


def test_background_and_padding_are_transparent():
    maps = random_maps()
    foreground = salient(maps)
    for picture, one, cells in zip(pca_colours(maps, foreground), maps, foreground, strict=True):
        assert picture.shape == (*one.grid.shape, 4)
        assert ((picture[..., 3] == 255).flatten() == cells.numpy()).all()
        assert (picture[picture[..., 3] == 0] == 0).all()


def test_without_variance_all_is_neutral():
    (picture,) = pca_colours([random_map(ONE, 0)])
    red, green, blue, alpha = picture[0, 0].tolist()
    assert red == green == blue
    assert alpha == 255


def test_a_mirrored_photo_has_mirrored_colours_and_parts():
    maps = random_maps()
    mirrored = [FeatureMap("m", one.values.flip(2), one.grid.mirror()) for one in maps]
    pairs = zip(pca_colours(maps), pca_colours(mirrored), strict=True)
    for picture, turned in pairs:
        assert np.abs(picture.astype(int) - turned[:, ::-1]).max() <= 1  # sums in another order
    for labels, turned, one in zip(
        parts(maps, None, 3), parts(mirrored, None, 3), maps, strict=True
    ):
        assert torch.equal(labels.reshape(one.grid.shape), turned.reshape(one.grid.shape).flip(1))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_photos_has_no_influence(order):
    maps = random_maps()
    shuffled = [maps[index] for index in order]
    assert all(map(torch.equal, salient(shuffled), [salient(maps)[index] for index in order]))
    pictures, labels = pca_colours(maps), parts(maps, None, 4)
    for index, picture in zip(order, pca_colours(shuffled), strict=True):
        assert np.abs(picture.astype(int) - pictures[index]).max() <= 1
    for index, found in zip(order, parts(shuffled, None, 4), strict=True):
        assert torch.equal(found, labels[index])


# Parts


def test_parts_are_the_kinds_numbered_from_the_top():
    rows = ["ccccccccc", "ccbbbcccc", "ccbbbbbcc", "ccaaaaacc", "ccccaaccc", "ccccccccc"]
    chosen = [torch.tensor([letter in "ab" for letter in "".join(rows)])]
    (found,) = parts([drawn_map(rows, WIDE)], chosen, 2)
    assert found.dtype == torch.int64
    assert found.tolist() == [{"a": 2, "b": 1, "c": 0}[letter] for letter in "".join(rows)]


def test_heights_are_shares_of_each_photo():
    """In pixels the tall photo's rows would turn the order."""
    tall = Grid((4, 1), (10.0, 100.0), (0.0, 0.0), Size(400, 10))
    flat = Grid((4, 1), (10.0, 1.0), (0.0, 0.0), Size(4, 10))
    maps = [
        drawn_map(list("aabb"), tall),
        drawn_map(list("bbba"), flat),
        drawn_map(list("bbba"), flat),
    ]
    assert [one.tolist() for one in parts(maps, None, 2)] == [
        [2, 2, 1, 1],
        [1, 1, 1, 2],
        [1, 1, 1, 2],
    ]


def test_parts_are_the_same_for_any_seed_where_the_kinds_are_clear():
    maps = [
        drawn_map([row.replace("b", "bcd"[index % 3]) for index, row in enumerate(OBJECT)], WIDE)
    ]
    first = parts(maps, None, 4, seed=0)[0]
    assert all(torch.equal(parts(maps, None, 4, seed)[0], first) for seed in range(1, 6))


def test_parts_do_not_depend_on_threads_or_global_chance():
    maps = random_maps()
    first = parts(maps, None, 5)
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    np.random.seed(1)  # global chance must not matter
    try:
        torch.set_num_threads(threads % 2 + 1)
        assert all(map(torch.equal, parts(maps, None, 5), first))
    finally:
        torch.set_num_threads(threads)


def test_every_part_has_cells():
    for count in (1, 2, 7, 54):
        (found,) = parts([random_map(WIDE, 3)], None, count)
        assert found.unique().tolist() == list(range(1, count + 1))


@pytest.mark.parametrize(("count", "differ"), [(3, 2), (0, 2), (-1, 2)])
def test_more_parts_than_kinds_are_refused(count, differ):
    with pytest.raises(BadRecipe, match=f"expected 1 to {differ} parts.*got {count}"):
        parts([drawn_map(OBJECT, WIDE)], None, count)


def test_one_cell_is_one_part():
    assert parts([random_map(ONE, 0)], None, 1)[0].tolist() == [1]


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    return sum(
        ((points[labels == one] - points[labels == one].mean(axis=0)) ** 2).sum()
        for one in set(labels.tolist())
    )


def slow_k_means(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Lloyd's algorithm, point by point, until nothing moves."""
    before = None
    while True:
        labels = np.array([((centres - point) ** 2).sum(axis=1).argmin() for point in points])
        if before is not None and (labels == before).all():
            return labels
        before = labels
        centres = np.stack([points[labels == one].mean(axis=0) for one in range(len(centres))])


def test_clusters_are_settled_and_no_worse_than_those_of_a_plain_loop():
    points = np.random.default_rng(5).standard_normal((150, 6)).astype(np.float32)
    labels = k_means(points, 4, seed=0)
    centres = np.stack([points[labels == one].mean(axis=0) for one in range(4)])
    assert (slow_k_means(points, centres) == labels).all()  # the loop from there stays there
    generator = np.random.default_rng(0)
    for _ in range(3):
        other = slow_k_means(points, points[generator.choice(150, 4, replace=False)])
        assert inertia(points, labels) <= inertia(points, other) * 1.02


def test_the_best_of_several_starts_is_kept(monkeypatch):
    points = np.random.default_rng(5).standard_normal((60, 3))
    alone = []
    for seed in range(8):
        monkeypatch.setattr("sdcorr.clusters.STARTS", 1)
        alone.append(inertia(points, k_means(points, 8, seed)))
        monkeypatch.setattr("sdcorr.clusters.STARTS", 5)
        assert inertia(points, k_means(points, 8, seed)) <= alone[-1] + 1e-9
    assert len({round(one, 6) for one in alone}) > 1  # starts do differ


def test_a_zero_with_a_sign_is_a_zero():
    points = np.array([[0.0, 1.0], [2.0, 1.0], [-0.0, 1.0]])  # in the order of their bytes
    with pytest.raises(BadRecipe, match="expected 1 to 2"):
        k_means(points, 3, seed=0)


# Pixels


@pytest.mark.parametrize("size", [None, Size(7, 31)])
@pytest.mark.parametrize(
    "grid", [WIDE, LETTERBOX, UPRIGHT, ONE, Grid((3, 2), (7.3, 4.1), (-1.2, 0.4), Size(13, 14))]
)
def test_pixels_hold_what_their_nearest_cell_holds(grid, size):
    height, width = grid.shape
    values = np.arange(height * width * 2).reshape(height, width, 2)
    found = at_pixels(values, grid, size)
    shown = grid.image if size is None else size
    assert (found.shape, found.dtype) == ((*shown, 2), values.dtype)
    centers, inside = grid.centers().numpy(), grid.inside().numpy()
    for y, x in itertools.product(range(shown.height), range(shown.width)):
        place = (
            (x + 0.5) * grid.image.width / shown.width - 0.5,
            (y + 0.5) * grid.image.height / shown.height - 0.5,
        )
        far = np.abs(centers - place) / grid.stride
        far = np.where(inside, np.hypot(*far.T), np.inf)
        chosen = found[y, x, 0] // 2
        assert far[chosen] <= far.min() + 1e-6  # of two that are as near, either
    np.testing.assert_array_equal(found[..., 1], found[..., 0] + 1)
