"""Draw the pictures of docs/gallery.md: python docs/gallery.py [FOLDER]. No weights needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageOps
from matplotlib.figure import Figure

import sdcorr
from sdcorr.geometry import Size
from sdcorr.masks import Mask, read_mask
from sdcorr.recipes import find_recipe
from sdcorr.segmentation import colours_of, parts, principal
from sdcorr.viz import plot_flow, plot_parts, plot_pca, plot_swap
from sdcorr.warping import flow_colours, photo_colours, swap_object, warp

HERE = Path(__file__).parent
ASSETS = HERE.parent / "assets"
ASTRONAUT, HOPPER, CAT = (ASSETS / name for name in ("astronaut.png", "hopper.jpg", "cat.jpg"))
FACE = {
    "eye": (205, 104), "other eye": (247, 104), "nose": (226, 126), "mouth": (228, 148),
    "hair": (225, 28),
}  # fmt: skip
MUZZLE = {"right eye": (172, 113), "left eye": (321, 132), "nose": (266, 240)}
WIDTH, QUALITY = 900, 82  # px, of JPEG


def changed_copy() -> Figure:
    """The cat, and a copy of it: turned, cropped, without colour."""
    return sdcorr.load("sift-hough").match(CAT, copy_of_cat()).plot()


def named_points() -> Figure:
    """Parts of a face, on another face; what is less likely right than not is dashed."""
    return sdcorr.load("sift-hough").match(ASTRONAUT, HOPPER, FACE, min_confidence=0.5).plot()


def heat_map() -> Figure:
    """Where is it similar to this mouth?"""
    return sdcorr.load("sift-hough").fuse(ASTRONAUT, HOPPER).plot(FACE["mouth"])


def left_and_right() -> Figure:
    """The cat mirrored: left and right are exchanged."""
    recipe = replace(find_recipe("sift-hough"), name="flipped", flip=True)
    pair = sdcorr.load(recipe).fuse(CAT, PIL.ImageOps.mirror(PIL.Image.open(CAT)))
    return pair.match(MUZZLE, symmetric=[("right eye", "left eye")]).plot()


def boxes() -> Figure:
    """Confident matches of the two heads alone."""
    heads = {"source_mask": (150, 15, 305, 200), "target_mask": (152, 22, 376, 336)}
    return sdcorr.load("sift-hough").match(ASTRONAUT, HOPPER, **heads).plot()


def pca_of_photos() -> Figure:
    """The cat and the changed copy, in colours of their descriptors."""
    maps, photos = _cat_and_copy()
    found = principal(maps)
    return plot_pca(photos, found.grids, colours_of(found))


def parts_of_photos() -> Figure:
    """The cat and the changed copy, in parts that they share."""
    maps, photos = _cat_and_copy()
    return plot_parts(photos, [one.grid for one in maps], parts(maps, None, 5))


def _cat_and_copy() -> tuple[list[sdcorr.FeatureMap], list[sdcorr.Image]]:
    photos = [sdcorr.load_image(photo) for photo in (CAT, copy_of_cat())]
    return sdcorr.load("sift-hough").descriptors(photos), photos


def too_much() -> Figure:
    """What features of appearance do not do: a face on a cat."""
    return sdcorr.load("sift-hough").match(ASTRONAUT, CAT, FACE).plot()


def dense_flow() -> Figure:
    """Every pixel of the changed copy, found on the cat."""
    model = sdcorr.load("sift-hough")
    source, target = model.encode(CAT), model.encode(copy_of_cat())
    back = model.fuse(target, source).flow()
    colours = photo_colours(source.size), flow_colours(back)
    return plot_flow(source.image, target.image, colours, *warp(source.image.pixels, back))


def swapped() -> Figure:
    """The cat's head, in the place of that of the changed copy."""
    model = sdcorr.load("sift-hough")
    source, target = model.encode(CAT), model.encode(copy_of_cat())
    head = _ellipse(source.size, (40, 20, 370, 290))
    there = _ellipse(target.size, (30, 10, 290, 225))
    back = model.fuse(target, source, source_mask=there, target_mask=head).flow()
    result = swap_object(source.image, target.image, back, head, there)
    return plot_swap(source.image, head, target.image, there, result.pixels)


def copy_of_cat() -> PIL.Image.Image:
    """The cat turned, cropped, without colour."""
    turned = PIL.Image.open(CAT).rotate(-15, PIL.Image.Resampling.BICUBIC)
    return turned.crop((70, 40, 400, 270)).convert("L")


def _ellipse(size: Size, box: tuple[int, int, int, int]) -> Mask:
    mask = PIL.Image.new("L", (size.width, size.height))
    PIL.ImageDraw.Draw(mask).ellipse(box, fill=255)
    return read_mask(mask, size)


PICTURES: dict[str, Callable[[], Figure]] = {
    "changed-copy": changed_copy,
    "named-points": named_points,
    "heat-map": heat_map,
    "left-and-right": left_and_right,
    "boxes": boxes,
    "dense-flow": dense_flow,
    "swapped": swapped,
    "colours": pca_of_photos,
    "parts": parts_of_photos,
    "too-much": too_much,
}


def main() -> None:
    """Draw all, and say how large each is."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        buffer, path = BytesIO(), folder / f"{name}.jpg"
        draw().savefig(buffer, format="png")
        picture = PIL.Image.open(buffer).convert("RGB")
        picture.thumbnail((WIDTH, WIDTH))
        picture.save(path, quality=QUALITY, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
