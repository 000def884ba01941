"""Masks and boxes: which pixels, which cells, and that no match leaves them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.errors import BadImage, BadMask, BadPoints, BadRecipe
from sdcorr.fusion import Foreground, Group, MapUse, foreground_cells, join
from sdcorr.geometry import Grid, Size
from sdcorr.masks import cells_under, check_covered, read_mask
from sdcorr.pipeline import Pipeline
from sdcorr.recipes import find_recipe
from sdcorr.types import FeatureMap
from tests.tiny import shrink, vit_parts, write

SMALL = Size(4, 6)
PHOTO = Size(48, 72)
LETTERBOX = Grid((8, 8), (9.0, 9.0), (0.0, -12.0), PHOTO)  # rows 0 and 7 lie on padding
OVERHANG = Grid((7, 6), (15.0, 7.0), (0.0, 0.0), PHOTO)  # the last column lies beyond the photo
GROUP = Group("a", Sift(), (MapUse("m"),))


def covered(size: Size, *pixels: tuple[int, int]) -> np.ndarray:
    """A mask of some pixels (x, y)."""
    mask = np.zeros(size, bool)
    for x, y in pixels:
        mask[y, x] = True
    return mask


def noise(size: Size, seed: int, share: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).random(size) < share


def on(mask: np.ndarray, points: torch.Tensor) -> list[bool]:
    """Whether the pixel of each point is covered."""
    return [bool(mask[round(y), round(x)]) for x, y in points.tolist()]


# Which pixels


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float32, np.bool_])
def test_of_an_array_all_counts_that_is_not_zero(kind):
    values = np.array([[0, 1, 0], [255, 0, 7]]).astype(kind)
    expected = [[False, True, False], [True, False, True]]
    assert read_mask(values, Size(2, 3)).tolist() == expected
    assert read_mask(torch.from_numpy(values), Size(2, 3)).tolist() == expected
    assert read_mask(values, Size(2, 3)).dtype == np.bool_


def test_less_than_one_and_less_than_zero_count_too():
    assert read_mask(np.array([[0.25, -1.0, 0.0]]), Size(1, 3)).tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    "box",
    [
        (1, 0.6, 3.2, 2),
        [1, 0.6, 3.2, 2],
        np.array([1, 0.6, 3.2, 2]),
        (0.6, 0.6, 3.4, 2.4),
        torch.tensor([1, 0.6, 3.2, 2]),
    ],
    ids=str,
)
def test_a_box_covers_the_pixels_that_hold_its_points(box):
    """Columns 1 to 3, rows 1 and 2; (x0, y0, x1, y1), edges included."""
    expected = covered(SMALL, (1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2))
    assert (read_mask(box, SMALL) == expected).all()


def test_the_largest_box_covers_the_photo():
    assert read_mask((-0.5, -0.5, 5.5, 3.5), SMALL).all()
    assert read_mask((0, 0, 5, 3), SMALL).all()
    assert read_mask((0.6, 0, 5, 3), SMALL)[:, 1:].all()
    assert not read_mask((0.6, 0, 5, 3), SMALL)[:, 0].any()


def test_boxes_agree_with_a_loop_over_pixels():
    generator = np.random.default_rng(0)
    for _ in range(30):
        x0, x1 = np.sort(generator.uniform(-0.5, 71.5, 2)).tolist()
        y0, y1 = np.sort(generator.uniform(-0.5, 47.5, 2)).tolist()
        across = [x - 0.5 <= x1 and x0 <= x + 0.5 for x in range(72)]  # the pixel meets the box
        expected = [[y - 0.5 <= y1 and y0 <= y + 0.5 and x for x in across] for y in range(48)]
        assert read_mask((x0, y0, x1, y1), PHOTO).tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_of_a_picture_all_counts_that_is_not_black(tmp_path: Path, mode: str):
    expected = noise(PHOTO, 0)
    picture = PIL.Image.fromarray(np.where(expected, 255, 0).astype(np.uint8))
    if mode == "RGBA":
        picture = picture.convert("RGB")  # what is opaque stays as it is
    picture.convert(mode).save(tmp_path / "mask.png")
    for path in (tmp_path / "mask.png", str(tmp_path / "mask.png")):
        assert (read_mask(path, PHOTO) == expected).all()


def test_the_darkest_grey_and_a_single_channel_are_not_black(tmp_path: Path):
    """Numbers of classes are stored so."""
    pixels = np.zeros((*SMALL, 3), np.uint8)
    pixels[0, 1], pixels[2, 3] = (1, 1, 1), (0, 0, 1)
    PIL.Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png", SMALL) == covered(SMALL, (1, 0), (3, 2))).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_of_a_jpeg_what_is_nearer_to_black_is_black(tmp_path: Path, mode: str):
    """Its edges are blurred: of this one 41616 pixels are not quite black."""
    expected = np.zeros((300, 301), bool)
    expected[51:251, 43:243] = True
    picture = PIL.Image.fromarray(expected * np.uint8(255)).convert(mode)
    picture.save(tmp_path / "mask.jpg", quality=60)
    size = Size(*expected.shape)
    assert np.asarray(PIL.Image.open(tmp_path / "mask.jpg").convert("L")).any(where=~expected)
    assert (read_mask(tmp_path / "mask.jpg", size) == expected).all()
    assert (read_mask(PIL.Image.open(tmp_path / "mask.jpg"), size) == expected).all()


@pytest.mark.parametrize(("level", "white"), [(127, False), (128, True)])
def test_of_a_jpeg_black_is_below_128(tmp_path: Path, level: int, white: bool):
    PIL.Image.new("L", (6, 4), level).save(tmp_path / "mask.jpg", quality=100)
    if white:
        assert read_mask(tmp_path / "mask.jpg", SMALL).all()
    else:
        with pytest.raises(BadMask, match="covers no pixel"):
            read_mask(tmp_path / "mask.jpg", SMALL)


def test_of_a_palette_the_colour_decides_not_its_number(tmp_path: Path):
    """As in VOC's masks; here number 0 is red, and number 2 black."""
    picture = PIL.Image.new("P", (3, 1))
    picture.putpalette([255, 0, 0, 0, 128, 0, 0, 0, 0])
    picture.putdata([0, 1, 2])
    picture.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", Size(1, 3)).tolist() == [[True, True, False]]


def test_a_mask_is_turned_as_its_photo_is(tmp_path: Path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    expected = noise(SMALL, 3)
    stored = np.rot90(expected, 1)  # counterclockwise
    PIL.Image.fromarray((stored * 255).astype(np.uint8)).save(tmp_path / "mask.png", exif=exif)
    assert (read_mask(tmp_path / "mask.png", SMALL) == expected).all()


BAD = {
    "nothing": (np.zeros(SMALL), "the mask covers no pixel: nothing could be matched; leave"),
    "turned": (np.ones((6, 4)), r"the mask: expected 4 x 6 \(high x wide\) as the photo, got 6"),
    "colours": (np.ones((4, 6, 3)), r"the mask: expected 4 x 6 .* got 4 x 6 x 3"),
    "tensor": (torch.ones(4, 5), r"expected 4 x 6 .* got 4 x 5"),
    "beyond right": ((0, 0, 6, 3), "box 0 0 6 3 reaches beyond the photo, which spans -0.5 to 5.5"),
    "beyond bottom": ((0, 0, 5, 3.6), r"beyond the photo, .* and -0\.5 to 3\.5 in y"),
    "beyond left": ((-0.6, 0, 5, 3), "reaches beyond the photo"),
    "beyond top": ((0, -9, 5, 3), "reaches beyond the photo"),
    "reversed x": ((4, 0, 1, 3), "box 4 0 1 3: expected x0 < x1 and y0 < y1"),
    "reversed y": ((0, 3, 5, 1), "box 0 3 5 1: expected x0 < x1 and y0 < y1"),
    "no width": ((2, 0, 2, 3), "expected x0 < x1"),
    "no height": ((0, 1, 5, 1), "expected x0 < x1 and y0 < y1"),
    "huge": ((0, 0, 10**400, 1), "expected a box of four numbers"),
    "NaN in a mask": (np.full(SMALL, np.nan), "of numbers without NaN, got float64"),
    "text in a mask": (np.full(SMALL, "a"), "mask of bool or of numbers"),
    "NaN": ((float("nan"), 0, 5, 3), "expected a box of four finite numbers x0 y0 x1 y1, got"),
    "infinite": ((0, 0, float("inf"), 3), "four finite numbers"),
    "three": ((0, 0, 5), "expected a box of four finite numbers"),
    "none": ((), "expected a box of four finite numbers"),
    "words": (("a", "b", "c", "d"), "expected a box of four numbers x0 y0 x1 y1, got"),
    "points": ([[0, 0], [5, 3]], "expected a box of four numbers"),
    "a number": (5, "expected a box of four numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_masks(case: str):
    mask, message = BAD[case]
    with pytest.raises(BadMask, match=message):
        read_mask(mask, SMALL)


def test_bad_files(tmp_path: Path):
    path = tmp_path / "mask.png"
    with pytest.raises(BadImage, match="no such file"):
        read_mask(path, SMALL)
    path.write_text("no picture")
    with pytest.raises(BadImage, match=r"mask\.png"):
        read_mask(path, SMALL)
    PIL.Image.new("L", (6, 4)).save(path)
    with pytest.raises(BadMask, match=r"mask .*mask\.png covers no pixel"):
        read_mask(path, SMALL)
    PIL.Image.new("L", (7, 4), 255).save(path)
    with pytest.raises(BadMask, match=r"mask .*mask\.png: expected 4 x 6 .* got 4 x 7"):
        read_mask(path, SMALL)


# Which cells


def test_a_cell_is_allowed_by_the_pixel_at_its_centre():
    """Cells of three pixels, centres at 1, 4 and 7; all but one centre covered is not enough."""
    grid = Grid((1, 3), (3.0, 3.0), (0.0, 0.0), Size(3, 9))
    mask = np.ones((3, 9), bool)
    mask[1, 4] = False
    assert cells_under(mask, grid).tolist() == [True, False, True]
    assert cells_under(covered(Size(3, 9), (4, 1), (6, 1)), grid).tolist() == [False, True, False]


@pytest.mark.parametrize("grid", [LETTERBOX, OVERHANG], ids=["letterbox", "overhang"])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_cells_agree_with_a_loop(grid: Grid, share: float):
    """Never a cell on padding, also where all of the photo is covered."""
    mask = noise(PHOTO, 1, share)
    height, width = grid.shape
    expected = []
    for row in range(height):
        for column in range(width):
            x = grid.offset[0] + grid.stride[0] * column + grid.stride[0] / 2 - 0.5
            y = grid.offset[1] + grid.stride[1] * row + grid.stride[1] / 2 - 0.5
            inside = -0.5 <= x <= 71.5 and -0.5 <= y <= 47.5
            expected.append(inside and bool(mask[min(int(y), 47), min(int(x), 71)]))
    assert cells_under(mask, grid).tolist() == expected
    assert 0 < sum(expected) < height * width


@pytest.mark.parametrize(
    ("pixels", "cells"),
    [
        (((0, 0),), [8]),  # the first row lies on padding
        (((71, 47),), [55]),
        (((10, 20),), [25]),
        (((10, 20), (11, 21), (17, 23)), [25]),
        (((10, 20), (30, 20)), [25, 27]),
    ],
)
def test_a_mask_between_the_centres_allows_the_nearest_cells(pixels, cells):
    """Centres lie at x = 4, 13, 22, ... and y = 1, 10, 19, ..., from the second row on."""
    allowed = cells_under(covered(PHOTO, *pixels), LETTERBOX)
    assert allowed.nonzero().flatten().tolist() == cells


def test_of_a_photo_thinner_than_a_cell_one_row_is_allowed():
    thin = Grid((4, 4), (250.0, 250.0), (0.0, -499.5), Size(1, 1000))
    mask = np.zeros((1, 1000), bool)
    mask[:, 500:] = True
    allowed = cells_under(mask, thin)
    assert allowed.sum() == 2
    assert not (allowed & ~thin.inside()).any()
    assert (thin.centers()[allowed][:, 0] >= 500).all()


def test_points_off_the_mask_are_told():
    mask = covered(SMALL, (2, 1), (5, 3))
    check_covered(mask, torch.tensor([[2.0, 1.0], [1.6, 1.4], [5.5, 3.5]]).double())
    check_covered(mask, torch.zeros(0, 2).double())
    with pytest.raises(BadPoints, match=r"point 2 \(2, 2\) lies outside the source mask; leave it"):
        check_covered(mask, torch.tensor([[2.0, 1.0], [2.0, 2.0], [0.0, 0.0]]).double())


# In the similarity


def maps_of(grid: Grid, seed: int) -> dict[str, FeatureMap]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(8, *grid.shape, generator=generator)
    salience = torch.rand(1, *grid.shape, generator=generator)
    return {"a/m": FeatureMap("m", values, grid), "a/s": FeatureMap("s", salience, grid)}


def test_join_allows_what_mask_and_foreground_both_allow():
    source, target = maps_of(OVERHANG, 0), maps_of(LETTERBOX, 1)
    masks = noise(PHOTO, 0), noise(PHOTO, 1)
    foreground = Foreground("a/s", 0.4)
    similarity = join([GROUP], source, target, foreground, masks)
    for maps, mask, grid, allowed in (
        (source, masks[0], OVERHANG, similarity.source_foreground),
        (target, masks[1], LETTERBOX, similarity.foreground),
    ):
        salient = foreground_cells(maps["a/s"], 0.4, grid)
        assert torch.equal(allowed, salient & cells_under(mask, grid))
        assert torch.equal(
            join([GROUP], maps, maps, None, (mask, None)).source_foreground, cells_under(mask, grid)
        )
    alone = join([GROUP], source, target, None, (None, masks[1]))
    assert alone.source_foreground is None
    assert torch.equal(alone.foreground, cells_under(masks[1], LETTERBOX))


@pytest.mark.parametrize("side", [0, 1], ids=["source", "target"])
def test_a_mask_without_foreground_is_told(side: int):
    maps = maps_of(LETTERBOX, 0)
    salience = torch.zeros(1, 8, 8)
    salience[0, 1, 0] = 1
    maps["a/s"] = FeatureMap("s", salience, LETTERBOX)
    masks = [covered(PHOTO, (4, 1)), covered(PHOTO, (4, 1))]
    assert join([GROUP], maps, maps, Foreground("a/s", 0.5), tuple(masks)).foreground[8]
    masks[side] = covered(PHOTO, (67, 37))
    with pytest.raises(BadMask, match=r"no cell under the mask is foreground: 'a/s' is nowhere ab"):
        join([GROUP], maps, maps, Foreground("a/s", 0.5), tuple(masks))


# From photos to matches


@pytest.fixture(scope="module")
def sift() -> Pipeline:
    """On photos of half the size: much faster."""
    recipe = find_recipe("sift")
    (group,) = recipe.groups
    group = dataclasses.replace(group, backbone=Sift(size=240, diameters=(12.0, 24.0)))
    recipe = dataclasses.replace(recipe, groups=(group,), calibration=None)
    return sdcorr.load(recipe, device="cpu")


def disc(pixels: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def test_no_match_leaves_the_target_mask(sift: Pipeline, photo, other_photo):
    mask = disc(other_photo, 90, 120, 50)
    points = [[x, y] for x in range(20, 460, 40) for y in range(20, 300, 40)]
    inside = on(mask, sift.match(photo, other_photo, points, target_mask=mask).target)
    assert all(inside)
    assert not all(on(mask, sift.match(photo, other_photo, points).target))


def test_a_point_outside_the_source_mask_is_refused(sift: Pipeline, photo):
    pair = sift.fuse(photo, photo, source_mask=(100, 50, 200, 150))
    assert pair.match([[100, 50], [200, 150]]).source.tolist() == [[100, 50], [200, 150]]
    for point in ([99, 100], [201, 100], [150, 49], [150, 151]):
        with pytest.raises(BadPoints, match=r"point 2 .* lies outside the source mask"):
            pair.match([[150, 100], point])


def test_confident_matches_start_and_end_in_the_masks(sift: Pipeline, photo, other_photo):
    """Also the way back stays in the source mask: mutual is judged among what may be matched."""
    first, second = disc(photo, 150, 140, 90), disc(other_photo, 90, 120, 60)
    matches = sift.match(photo, other_photo, source_mask=first, target_mask=second)
    assert len(matches) >= 3
    assert all(on(first, matches.source))
    assert all(on(second, matches.target))
    free = sift.match(photo, other_photo)
    assert not all(on(first, free.source))
    assert not all(on(second, free.target))


def test_files_arrays_and_boxes_are_the_same(sift: Pipeline, photo, other_photo, tmp_path: Path):
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[50:151, 100:201] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    encodings = sift.encode(photo), sift.encode(other_photo)
    found = [
        sift.match(*encodings, source_mask=one).source
        for one in (mask, mask > 0, torch.from_numpy(mask), tmp_path / "mask.png",
                    str(tmp_path / "mask.png"), (100, 50, 200, 150))
    ]  # fmt: skip
    assert len(found[0])
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_mask_is_of_its_own_photo(sift: Pipeline, photo, other_photo):
    masks = np.ones(photo.shape[:2]), np.ones(other_photo.shape[:2])
    pair = sift.fuse(photo, other_photo, source_mask=masks[0], target_mask=masks[1])
    assert torch.equal(pair.match([[9, 9]]).target, sift.match(photo, other_photo, [[9, 9]]).target)
    for sides in ({"source_mask": masks[1]}, {"target_mask": masks[0]}):
        with pytest.raises(BadMask, match="as the photo, got"):
            sift.match(photo, other_photo, [[9, 9]], **sides)


def test_masks_and_the_foreground_of_a_recipe(tmp_path: Path, photo, other_photo):
    recipe = shrink(find_recipe("dino-v1"))
    (group,) = recipe.groups
    group = dataclasses.replace(group, backbone=dataclasses.replace(group.backbone, size=96))
    recipe = dataclasses.replace(
        recipe, groups=(group,), foreground=Foreground("vit/saliency", 0.02)
    )
    folder = write(tmp_path, vit_parts())
    model = sdcorr.load(recipe, models={"vit": str(folder)}, device="cpu", dtype="float32")
    ends = model.encode(photo), model.encode(other_photo)
    free = model.fuse(*ends).similarity
    salient = free.source_foreground, free.foreground
    grids = free.source, free.target
    # the left half of what is salient, and the right half
    middle = [grid.centers()[cells][:, 0].median().item() for grid, cells in zip(grids, salient)]  # noqa: B905
    masks = {"source_mask": (0, 0, middle[0], 312), "target_mask": (middle[1], 0, 198, 270)}
    pair = model.fuse(*ends, **masks)
    allowed = pair.similarity.source_foreground, pair.similarity.foreground
    for side, box in enumerate(masks.values()):
        under = cells_under(read_mask(box, ends[side].size), grids[side])
        assert torch.equal(allowed[side], salient[side] & under)
        assert 0 < allowed[side].sum() < salient[side].sum()
    matches = pair.match()
    assert len(matches) >= 1
    assert (matches.source[:, 0] <= middle[0]).all()
    assert (matches.target[:, 0] >= middle[1]).all()
    asked = pair.match([[x, y] for x in range(0, int(middle[0]), 9) for y in range(0, 300, 50)])
    assert allowed[1][grids[1].cell_of(asked.target)].all()


def test_transparent_is_not_covered_and_labels_of_16_bits_are(tmp_path: Path):
    layers = np.full((4, 6, 4), 255, np.uint8)
    layers[:, :3, 3] = 0  # a cut-out: its left half is transparent
    PIL.Image.fromarray(layers).save(tmp_path / "cut.png")
    assert read_mask(tmp_path / "cut.png", SMALL).sum(axis=0).tolist() == [0, 0, 0, 4, 4, 4]
    labels = np.array([[0, 7, 300, 0, 0, 1]] * 4, np.uint16)
    PIL.Image.fromarray(labels).save(tmp_path / "labels.png")
    found = read_mask(tmp_path / "labels.png", SMALL)
    assert found.all(axis=0).tolist() == [False, True, True, False, False, True]


def test_what_lies_in_a_box_is_covered():
    mask = read_mask((10.4, 3.0, 20.0, 9.0), PHOTO)
    check_covered(mask, torch.tensor([[10.45, 3.0], [20.0, 9.0], [10.4, 9.0]]))
    with pytest.raises(BadPoints, match=r"point 'tail' \(5, 5\) lies outside the source mask"):
        check_covered(mask, torch.tensor([[5.0, 5.0]]), ("tail",))


def test_pictures_and_turned_arrays_are_masks_too(tmp_path: Path):
    expected = noise(PHOTO, 3)
    picture = PIL.Image.fromarray(np.where(expected, 255, 0).astype(np.uint8))
    assert (read_mask(picture, PHOTO) == expected).all()
    turned = read_mask(expected[:, ::-1], PHOTO)
    grid = Grid((2, 2), (36.0, 24.0), (0.0, 0.0), PHOTO)
    assert cells_under(turned, grid).dtype == torch.bool


def test_under_a_mask_matches_have_no_confidence(photo: np.ndarray):
    """Margins and peaks depend on how many cells there are to choose from."""
    model = sdcorr.load("sift", device="cpu")
    box = (20, 20, 60, 40)
    assert model.recipe.own_calibration is not None
    assert model.match(photo, photo, [[30, 30]]).confidence is not None
    for side in ("source_mask", "target_mask"):
        assert model.match(photo, photo, [[30, 30]], **{side: box}).confidence is None
        with pytest.raises(BadRecipe, match="a mask or box limits what may match"):
            model.match(photo, photo, [[30, 30]], min_confidence=0.5, **{side: box})
