"""Which part of a photo may be matched: a mask or a box, in pixels, and the cells it holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from sdcorr.errors import BadMask, BadPoints
from sdcorr.geometry import Grid, Size
from sdcorr.preprocess import ORIENTATION, TURNS, check_file, damage_in_words

Box = Sequence[float]
MaskLike = str | Path | PIL.Image.Image | npt.NDArray[Any] | Tensor | Box
Mask = npt.NDArray[np.bool_]
LOSSY = ("JPEG", "MPO")  # kinds of files that blur the edge between black and white
BLACK = 128  # of 255; in those kinds, what is below counts as black


def read_mask(mask: MaskLike, photo: Size) -> Mask:
    """What a mask covers of a photo: ``(H, W)`` bool.

    Args:
        mask: a picture, or its file, of the photo's size, in which all counts that is neither
            black nor transparent; of a JPEG, which blurs edges, what is below 128 of 255 in each
            channel is black. Or an array ``(H, W)``, in which all that is not 0 counts; or a box
            (x0, y0, x1, y1) in pixels of the photo, which covers the pixels that hold its points.
        photo: size of the photo, after EXIF rotation.

    Raises:
        BadMask: the mask has another size, covers nothing, or is a box beyond the photo.
        BadImage: the file cannot be read.
    """
    if isinstance(mask, str | Path):
        covered, name = _of_file(Path(mask)), f"mask {mask}"
    elif isinstance(mask, PIL.Image.Image):
        covered, name = _of_picture(mask), "the mask"
    elif isinstance(mask, Tensor | np.ndarray) and mask.ndim != 1:
        covered, name = _of_array(mask), "the mask"
    else:
        return _of_box(mask, photo)
    if covered.shape != photo:
        got = " x ".join(map(str, covered.shape))
        raise BadMask(
            f"{name}: expected {photo.height} x {photo.width} (high x wide) as the photo, got {got}"
        )
    if not covered.any():
        raise BadMask(f"{name} covers no pixel: nothing could be matched; leave it out for all")
    return covered


def cells_under(mask: Mask, grid: Grid) -> Tensor:
    """Cells of a grid that a mask allows: ``(h*w,)`` bool, at least one.

    A cell is allowed when the pixel at its centre is covered. Of a mask so small that it covers no
    centre, the cells nearest to its pixels are allowed.
    """
    inside = grid.inside()
    cells = _at(mask, grid.centers()) & inside
    if not cells.any():
        pixels = torch.from_numpy(mask).nonzero().flip(1).double()  # (M, 2) xy
        cells[grid.cell_of(pixels)] = True
    return cells


def check_covered(mask: Mask, points: Tensor, names: Sequence[str] | None = None) -> None:
    """Refuse points ``(N, 2)`` of the photo of which one lies on no covered pixel."""
    for index in (~_at(mask, points)).nonzero().flatten().tolist():
        px, py = points[index].tolist()
        name = repr(names[index]) if names else index + 1
        raise BadPoints(
            f"point {name} ({px:g}, {py:g}) lies outside the source mask; leave it out, or make "
            "the mask larger"
        )


def _at(mask: Mask, points: Tensor) -> Tensor:
    """Whether the pixel nearest to each point ``(N, 2)`` is covered: ``(N,)`` bool."""
    x, y = points.round().long().unbind(-1)
    height, width = mask.shape
    return torch.from_numpy(mask)[y.clamp(0, height - 1), x.clamp(0, width - 1)]


def _of_file(path: Path) -> Mask:
    with damage_in_words(str(path)):
        path = path if path.exists() else path.expanduser()
        check_file(path)
        with PIL.Image.open(path) as photo:
            return _of_picture(photo)


def _of_picture(photo: PIL.Image.Image) -> Mask:
    photo.load()
    turn = photo.getexif().get(ORIENTATION)
    upright = photo.transpose(TURNS[turn]) if turn in TURNS else photo
    if upright.mode.startswith("I") or upright.mode == "F":  # labels beyond 8 bits
        return _of_array(np.asarray(upright))
    layers = np.asarray(upright.convert("RGBA"))
    least = BLACK if photo.format in LOSSY else 1
    covered: Mask = (layers[:, :, :3] >= least).any(axis=2) & (layers[:, :, 3] > 0)
    return covered


def _of_array(values: Tensor | npt.NDArray[Any]) -> Mask:
    array = values.cpu().numpy() if isinstance(values, Tensor) else values
    if array.dtype.kind not in "buif" or np.isnan(array).any():
        raise BadMask(f"expected a mask of bool or of numbers without NaN, got {array.dtype}")
    covered: Mask = np.array(array != 0)  # of positive strides
    return covered


def _of_box(box: Box | Tensor | npt.NDArray[Any], photo: Size) -> Mask:
    try:
        corners = torch.tensor([float(side) for side in box], dtype=torch.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadMask(f"expected a box of four numbers x0 y0 x1 y1, got {str(box)[:60]}") from error
    if len(corners) != 4 or not torch.isfinite(corners).all():
        raise BadMask(f"expected a box of four finite numbers x0 y0 x1 y1, got {str(box)[:60]}")
    x0, y0, x1, y1 = corners.tolist()
    if x0 >= x1 or y0 >= y1:
        raise BadMask(f"box {x0:g} {y0:g} {x1:g} {y1:g}: expected x0 < x1 and y0 < y1")
    left, right, bottom, top = photo.extent
    if not photo.contains(corners.reshape(2, 2)).all():
        raise BadMask(
            f"box {x0:g} {y0:g} {x1:g} {y1:g} reaches beyond the photo, which spans {left:g} to "
            f"{right:g} in x and {top:g} to {bottom:g} in y"
        )
    # rounded as points are: whatever lies in the box lies on a pixel that it covers
    columns, rows = np.arange(photo.width), np.arange(photo.height)
    across = (columns >= round(x0)) & (columns <= round(x1))
    down = (rows >= round(y0)) & (rows <= round(y1))
    covered: Mask = down[:, None] & across
    return covered
