"""What every matcher that reads similarities does around its own way of finding a place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdcorr.geometry import Grid
from sdcorr.similarities import allowed_cells
from sdcorr.types import Matches, Similarity

TILE = 2**24  # similarities held at once: 64 MB
ELSEWHERE = 2  # cells; the margin compares with the best place farther away than this


@dataclass(frozen=True, eq=False)
class Places:
    """Where a matcher finds points, one entry per point.

    Args:
        target: ``(N, 2)`` float64 pixels of the target, on the CPU.
        score: ``(N,)`` similarity there.
        margin: ``(N,)`` score minus the best more than two cells away.
        peak: ``(N,)`` score minus the mean over the allowed cells.
        found: ``(N,)`` bool, whether any place is similar at all.
    """

    target: Tensor
    score: Tensor
    margin: Tensor
    peak: Tensor
    found: Tensor


Find = Callable[[Similarity, Tensor], Places]


def match_in_tiles(find: Find, similarity: Similarity, points: Tensor, *, mutual: bool) -> Matches:
    """Matches of ``(N, 2)`` source pixels, with their way back, in bounded memory.

    A match is rejected (``matched`` False) where no place is similar, as for a flat place; and,
    where ``mutual`` asks for it, unless the way back ends in the cell that holds the source point.
    """
    tiles = [_match(find, similarity, tile) for tile in _tiles(similarity, points)]
    target, score, margin, peak, matched, home = map(torch.cat, zip(*tiles, strict=True))
    if mutual:
        matched &= similarity.source.cell_of(home) == similarity.source.cell_of(points)
    image = similarity.source.image  # a thin photo's cells reach beyond it
    cycle = (image.clamp(home) - image.clamp(points)).norm(dim=1)
    target = similarity.target.image.clamp(target)
    return Matches(points, target, score, margin, cycle, peak, matched)


def _match(find: Find, similarity: Similarity, points: Tensor) -> tuple[Tensor, ...]:
    there = find(similarity, points)
    # points that are found at one place share its way back
    places, which = there.target.unique(dim=0, return_inverse=True)
    back = find(similarity.swap(), places).target[which]
    evidence = (one.cpu() for one in (there.score, there.margin, there.peak, there.found))
    return there.target, *evidence, back


def mutual_cells(similarity: Similarity) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of both photos that are each other's most similar, in bounded memory.

    Of the source cells that may be matched, row by row; ties go to the first cell.

    Returns:
        Centres of source and target cells, ``(N, 2)`` float64 pixels, and their similarity
        ``(N,)``, above 0; on the CPU.
    """
    back = similarity.swap()
    source = similarity.source.centers()[allowed_cells(back)]
    score, cell = _nearest(similarity, source)
    # source cells that find one target cell share its way back
    cells, which = cell.unique(return_inverse=True)
    _, home = _nearest(back, similarity.target.centers()[cells])
    mutual = (home[which] == similarity.source.cell_of(source)) & (score > 0)
    return source[mutual], similarity.target.centers()[cell][mutual], score[mutual]


def _nearest(similarity: Similarity, points: Tensor) -> tuple[Tensor, Tensor]:
    """Highest similarity of each point and its cell, ``(N,)``, on the CPU."""
    rows = (allowed_rows(similarity, tile, True) for tile in _tiles(similarity, points))
    score, cell = (torch.cat(parts).cpu() for parts in zip(*map(best_cells, rows), strict=True))
    return score, cell


def _tiles(similarity: Similarity, points: Tensor) -> tuple[Tensor, ...]:
    """The points in parts whose similarities take bounded memory."""
    step = max(1, TILE // (similarity.target.shape[0] * similarity.target.shape[1]))
    tiles: tuple[Tensor, ...] = points.split(step)
    return tiles


def allowed_rows(similarity: Similarity, points: Tensor, inside_only: bool) -> Tensor:
    """Similarity of ``(N, 2)`` source pixels to each target cell ``(N, h*w)``; -inf where none.

    Args:
        similarity: of the two photos.
        points: of the source.
        inside_only: leave out cells that lie on padding.
    """
    rows = similarity.rows(points)
    allowed = allowed_cells(similarity, inside_only).to(rows.device)
    return rows.masked_fill(~allowed, -torch.inf)


def best_cells(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Highest similarity of each row ``(N, h*w)`` and its cell, the first of equals: ``(N,)``."""
    cell = rows.argmax(dim=1)  # argmax, not max, promises the first
    return rows.gather(1, cell[:, None])[:, 0], cell


def best_elsewhere(rows: Tensor, cell: Tensor, grid: Grid) -> Tensor:
    """Highest similarity more than two cells away from ``cell``: ``(N,)``, -inf where none."""
    near = window_around(cell, grid, ELSEWHERE)
    return rows.masked_fill(near, -torch.inf).amax(dim=1)


def window_around(cell: Tensor, grid: Grid, reach: int) -> Tensor:
    """Cells within ``reach`` rows and columns of each of ``cell (N,)``: ``(N, h*w)`` bool."""
    height, width = grid.shape
    down = torch.arange(height, device=cell.device) - (cell // width)[:, None]  # (N, h)
    along = torch.arange(width, device=cell.device) - (cell % width)[:, None]  # (N, w)
    near = (down.abs() <= reach)[:, :, None] & (along.abs() <= reach)[:, None, :]
    return near.flatten(1)


def mean_of_allowed(rows: Tensor) -> Tensor:
    """Mean similarity of each row over the cells that are not excluded by -inf: ``(N,)``."""
    allowed = torch.isfinite(rows)
    return rows.masked_fill(~allowed, 0).sum(dim=1) / allowed.sum(dim=1)


def expected_place(
    rows: Tensor, cell: Tensor, grid: Grid, reach: int, temperature: float
) -> Tensor:
    """Mean pixel of a window of cells, weighted by ``softmax(rows / temperature)`` over it.

    Args:
        rows: ``(N, h*w)`` similarities, -inf where a cell is not allowed.
        cell: ``(N,)`` the window's middle.
        grid: of the target.
        reach: rows and columns of the window on each side of the middle.
        temperature: positive.

    Returns:
        ``(N, 2)`` float64 pixels of the target, on the CPU.
    """
    outside = ~window_around(cell, grid, reach)
    logits = rows.masked_fill(outside, -torch.inf).cpu().double()
    # float64, and the peak at 0: no temperature overflows
    weights = ((logits - logits.amax(dim=1, keepdim=True)) / temperature).softmax(dim=1)
    return weights @ grid.centers()
