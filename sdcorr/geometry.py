"""Where the cells of a feature map lie on a photo. The only module that knows half a pixel.

Convention:
    Points are (x, y) in pixels of the original photo; (0, 0) is the centre of the top-left
    pixel, so a photo of width W spans [-0.5, W - 0.5]. Cell coordinates are (column, row) with
    whole numbers at cell centres. Sizes are (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Size(NamedTuple):
    """Height and width in pixels, in this order."""

    height: int
    width: int

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges of the photo, (left, right, bottom, top) in pixels, as ``imshow`` takes them."""
        return (-0.5, self.width - 0.5, self.height - 0.5, -0.5)

    def clamp(self, points: Tensor) -> Tensor:
        """The nearest points on the photo, ``(N, 2)`` in and out, xy pixels."""
        left, right, bottom, top = self.extent
        points = _fractional(points)
        low, high = points.new_tensor([left, top]), points.new_tensor([right, bottom])
        return torch.minimum(torch.maximum(points, low), high)

    def contains(self, points: Tensor) -> Tensor:
        """Which points ``(N, 2)`` lie on the photo, edges included: ``(N,)`` bool; NaN does not."""
        return (points == self.clamp(points)).all(dim=-1)


@dataclass(frozen=True)
class Grid:
    """A regular grid of cells over a photo.

    Args:
        shape: rows and columns, ``(h, w)``.
        stride: size of one cell in photo pixels, ``(sx, sy)``.
        offset: distance from the photo's left and top edge to the grid's, in photo pixels,
            ``(ox, oy)``; negative where the grid begins in padding (letterbox).
        image: size of the photo.

    Example:
        Four cells of two pixels over a photo eight pixels wide; the centre of the first cell
        lies between pixels 0 and 1:

        >>> grid = Grid(shape=(1, 4), stride=(2.0, 2.0), offset=(0.0, 0.0), image=Size(2, 8))
        >>> grid.centers().tolist()
        [[0.5, 0.5], [2.5, 0.5], [4.5, 0.5], [6.5, 0.5]]
        >>> grid.cell_of(torch.tensor([[7.0, 0.0]])).tolist()
        [3]
    """

    shape: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[float, float]
    image: Size

    def to_cells(self, points: Tensor) -> Tensor:
        """Cell coordinates ``(N, 2)``, (column, row), of points ``(N, 2)`` in pixels."""
        points = _fractional(points)
        return (points + 0.5 - self._offset(points)) / self._stride(points) - 0.5

    def to_points(self, cells: Tensor) -> Tensor:
        """Points ``(N, 2)`` in pixels of cell coordinates ``(N, 2)``; undoes ``to_cells``."""
        cells = _fractional(cells)
        return (cells + 0.5) * self._stride(cells) + self._offset(cells) - 0.5

    def to_unit(self, points: Tensor) -> Tensor:
        """Points ``(N, 2)`` in the frame of ``grid_sample`` with ``align_corners=False``.

        The grid's left and top edges are at -1, its right and bottom edges at 1.
        """
        height, width = self.shape
        points = _fractional(points)
        extent = self._stride(points) * points.new_tensor([width, height])
        return (points + 0.5 - self._offset(points)) / extent * 2 - 1

    def centers(self) -> Tensor:
        """Cell centres in pixels, row by row: ``(h*w, 2)``, float64."""
        return self._centers.clone()

    @cached_property
    def _centers(self) -> Tensor:
        """Asked for at every click, like the cells inside."""
        height, width = self.shape
        rows, columns = torch.meshgrid(
            torch.arange(height, dtype=torch.float64),
            torch.arange(width, dtype=torch.float64),
            indexing="ij",
        )
        return self.to_points(torch.stack([columns, rows], dim=-1).reshape(-1, 2))

    def inside(self) -> Tensor:
        """Cells that lie on the photo, not on padding: ``(h*w,)`` bool.

        A cell counts when its centre does. A photo so thin that no centre falls on it keeps
        the one row (or column) of cells nearest to its middle, so there is always a cell.
        """
        return self._inside.clone()

    @cached_property
    def _inside(self) -> Tensor:
        columns, rows = self._inside_axes()
        return (rows[:, None] & columns[None, :]).flatten()

    def confine(self, points: Tensor) -> Tensor:
        """Points moved into the rectangle that the centres of the inside cells span.

        Reading a map there never mixes in padding. ``(N, 2)`` in, ``(N, 2)`` out, pixels.
        """
        points = _fractional(points)
        low, high = (points.new_tensor(cell) for cell in self._inside_span)
        return self.to_points(torch.minimum(torch.maximum(self.to_cells(points), low), high))

    def cell_of(self, points: Tensor) -> Tensor:
        """Row-major index ``(N,)`` of the inside cell that is nearest to each point ``(N, 2)``."""
        columns, rows = self.to_cells(self.confine(points)).round().long().unbind(-1)
        return rows * self.shape[1] + columns

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges of the grid, (left, right, bottom, top) in pixels, as ``imshow`` takes them."""
        (height, width), (sx, sy), (ox, oy) = self.shape, self.stride, self.offset
        return (ox - 0.5, ox + width * sx - 0.5, oy + height * sy - 0.5, oy - 0.5)

    def refine(self, factor: int) -> Grid:
        """The grid whose cells are ``factor`` times smaller, over the same area."""
        return Grid(
            shape=(self.shape[0] * factor, self.shape[1] * factor),
            stride=(self.stride[0] / factor, self.stride[1] / factor),
            offset=self.offset,
            image=self.image,
        )

    def mirror(self) -> Grid:
        """The grid over the photo's mirror image, left and right exchanged.

        Example:
            A letterbox that begins 1 px left of the photo and ends 3 px right of it:

            >>> Grid((1, 4), (2.0, 2.0), (-1.0, 0.0), Size(2, 4)).mirror().offset
            (-3.0, 0.0)
        """
        width = self.shape[1] * self.stride[0]
        return replace(self, offset=(self.image.width - self.offset[0] - width, self.offset[1]))

    def agrees_with(self, other: Grid, tolerance: float) -> bool:
        """Whether each cell lies within ``tolerance`` cells of its counterpart in ``other``."""
        if self.shape != other.shape or self.image != other.image:
            return False
        shift = (self.centers() - other.centers()).abs() / self._stride(self.centers())
        return bool(shift.max() <= tolerance)

    @cached_property
    def _inside_span(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """First and last (column, row) of the cells that lie on the photo; asked for often."""
        ends = [axis.nonzero()[[0, -1], 0].tolist() for axis in self._inside_axes()]
        (left, right), (top, bottom) = ends
        return (left, top), (right, bottom)

    def _inside_axes(self) -> tuple[Tensor, Tensor]:
        centers = self._centers.reshape(*self.shape, 2)
        return (
            _inside_axis(centers[0, :, 0], self.image.width),
            _inside_axis(centers[:, 0, 1], self.image.height),
        )

    def _stride(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.stride)

    def _offset(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.offset)


def whole(image: Size) -> Grid:
    """The grid of one cell that is the photo.

    Example:
        >>> whole(Size(2, 8)).centers().tolist()
        [[3.5, 0.5]]
    """
    return Grid((1, 1), (float(image.width), float(image.height)), (0.0, 0.0), image)


def _fractional(points: Tensor) -> Tensor:
    """Whole-number points as floats: a grid's stride is no whole number."""
    return points if points.is_floating_point() else points.double()


def _inside_axis(centers: Tensor, length: int) -> Tensor:
    inside = (centers >= -0.5) & (centers <= length - 0.5)
    if not inside.any():
        inside[(centers - (length - 1) / 2).abs().argmin()] = True
    return inside
