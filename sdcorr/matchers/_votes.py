"""Votes of matches for each other, on coarse grids of both photos."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.geometry import Grid

FAR = 1e9  # pixels, beyond any photo


def read(maps: Tensor, blocks: Grid, fine: Grid, points: Tensor) -> Tensor:
    """Maps of blocks ``(C, h, w)`` between them, at ``(N, 2)`` pixels: ``(C, N)``.

    Points beyond the centres of the outermost blocks that hold inside cells read those.
    """
    corners = torch.tensor([[-FAR, -FAR], [FAR, FAR]], dtype=torch.float64)
    low, high = blocks.to_cells(fine.confine(corners)).round()
    cells = torch.minimum(torch.maximum(blocks.to_cells(points.double()), low), high)
    unit = blocks.to_unit(blocks.to_points(cells)).to(maps.dtype).to(maps.device)
    values: Tensor = F.grid_sample(maps[None], unit[None, :, None], align_corners=False)[0, :, :, 0]
    return values


def coarse(grid: Grid, cells: int) -> Grid:
    """The grid in square blocks of cells, so that no side has more than ``cells`` of them."""
    block = -(-max(grid.shape) // cells)
    height, width = (-(-side // block) for side in grid.shape)
    stride = (grid.stride[0] * block, grid.stride[1] * block)
    return replace(grid, shape=(height, width), stride=stride)


def pool(rows: Tensor, fine: Grid, blocks: Grid) -> Tensor:
    """Sums over blocks of cells, ``(N, h*w)`` to ``(N, H, W)``; blocks as of ``coarse``."""
    block = round(blocks.stride[0] / fine.stride[0])
    (h, w), (height, width) = fine.shape, blocks.shape
    whole = F.pad(rows.unflatten(1, (h, w)), (0, width * block - w, 0, height * block - h))
    blocked = whole.unflatten(2, (width, block)).unflatten(1, (height, block))
    sums: Tensor = blocked.sum(dim=(2, 4))
    return sums


def support(weights: Tensor, scale: float, near: float, agree: float) -> Tensor:
    """Votes for each match of cells, of all matches that agree on an offset at a scale.

    Args:
        weights: ``(h, w, H, W)``, of matches (y, x) to (Y, X).
        scale: q; a match (y', x', Y', X') agrees as far as Y' - Y is q (y' - y), likewise in x.
        near: standard deviation of the voters' distance, in cells, the mean of both photos;
            ``inf`` lets all vote alike.
        agree: standard deviation of disagreement, in cells, divided by the root of q: so in the
            geometric mean of both photos' cells.

    Returns:
        ``(h, w, H, W)``. Source and target may be exchanged, with 1 / scale.
    """
    h, w, height, width = weights.shape
    down = _agreement(h, height, scale, near, agree, weights)
    along = _agreement(w, width, scale, near, agree, weights)
    by_axis = weights.transpose(1, 2).reshape(h * height, w * width)
    votes = down @ by_axis @ along
    return votes.reshape(h, height, w, width).transpose(1, 2)


def _agreement(
    source: int, target: int, scale: float, near: float, agree: float, like: Tensor
) -> Tensor:
    """Weight of one axis' vote, of each (y', Y') for each (y, Y): symmetric, ``(h*H, h*H)``."""
    root = math.sqrt(scale)
    y = torch.arange(source, dtype=like.dtype, device=like.device)
    there = torch.arange(target, dtype=like.dtype, device=like.device)
    moved = ((y[:, None] - y) * root)[:, None, :, None]  # (h, 1, h, 1)
    moved_there = ((there[:, None] - there) / root)[None, :, None, :]  # (1, H, 1, H)
    exponent = ((moved_there - moved) / agree) ** 2 + (moved**2 + moved_there**2) / 2 / near**2
    return torch.exp(-exponent / 2).reshape(source * target, source * target)
