"""Cut a square canvas into overlapping windows, and average their maps back together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def window_starts(size: int, window: int, overlap: int) -> tuple[int, ...]:
    """Left (and top) edges of the windows along one side, in pixels; the last ends at the edge.

    Example:
        >>> window_starts(960, window=512, overlap=64)
        (0, 448)
        >>> window_starts(960, window=960, overlap=64)
        (0,)
    """
    last = size - window
    return (*range(0, last, window - overlap), last) if last else (0,)


def cut_windows(canvas: Tensor, starts: Sequence[int], window: int) -> Tensor:
    """Windows of a ``(C, S, S)`` canvas, row by row: ``(n*n, C, window, window)``."""
    return torch.stack([canvas[:, y : y + window, x : x + window] for y in starts for x in starts])


def merge_windows(maps: Tensor, starts: Sequence[int], window: int, size: int) -> Tensor:
    """One map of the canvas from the maps of its windows, averaged where windows overlap.

    Args:
        maps: ``(n*n, C, k, k)``, row by row.
        starts: edges of the windows, in canvas pixels, multiples of a cell.
        window: side of a window in canvas pixels.
        size: side of the canvas in pixels.

    Returns:
        ``(C, K, K)`` with ``K = size * k / window``.
    """
    channels, k = maps.shape[1], maps.shape[-1]
    edges = [start * k // window for start in starts]
    side = size * k // window
    total = maps.new_zeros(channels, side, side)
    count = maps.new_zeros(side, side)
    corners = [(y, x) for y in edges for x in edges]
    for (y, x), values in zip(corners, maps, strict=True):
        total[:, y : y + k, x : x + k] += values
        count[y : y + k, x : x + k] += 1
    return total / count
