"""Which cells of a similarity may be matched; similarities made of others: their means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdcorr.geometry import Grid
from sdcorr.types import Similarity

ROUNDING = 1e-6  # of similarities; what is less peaked is flat


def allowed_cells(similarity: Similarity, inside_only: bool = True) -> Tensor:
    """Target cells that may be matched: ``(h*w,)`` bool, on the CPU.

    Args:
        similarity: of the two photos; of its ``swap()`` the cells are the source's.
        inside_only: leave out cells that lie on padding.
    """
    inside = similarity.target.inside()
    cells = inside if inside_only else torch.ones_like(inside)
    return cells if similarity.foreground is None else cells & similarity.foreground.cpu()


@dataclass(frozen=True, eq=False)
class Heat:
    """How similar each place of the target is to one point, and the range that tells them apart.

    Args:
        values: ``(h, w)`` cosine of each target cell, on the CPU; on padding it means nothing.
        low: the median of the cells on the photo: the lower half is no candidate.
        high: the most of them.
    """

    values: Tensor
    low: float
    high: float


@torch.no_grad()
def heat_of(similarity: Similarity, point: Tensor) -> Heat:
    """Similarity of a point, ``(1, 2)`` xy pixels of the source, to all of the target.

    Rounding may take a cosine beyond 1; here it is 1.
    """
    grid = similarity.target
    row = similarity.rows(point)[0].cpu().clamp(-1, 1)
    inside = row[grid.inside()]
    return Heat(row.reshape(grid.shape), inside.median().item(), inside.max().item())


@dataclass(frozen=True, eq=False)
class _Joined:
    """Several similarities of one pair on the same grids, with the same foreground."""

    parts: tuple[Similarity, ...]

    @property
    def source(self) -> Grid:
        """Cells of the source photo."""
        return self.parts[0].source

    @property
    def target(self) -> Grid:
        """Cells of the target photo."""
        return self.parts[0].target

    @property
    def foreground(self) -> Tensor | None:
        """Target cells that may be matched."""
        return self.parts[0].foreground


@dataclass(frozen=True, eq=False)
class MeanSimilarity(_Joined):
    """The mean of several similarities.

    Of the source photo and of its mirror image, turned back, this is flip averaging without lists
    of left and right parts: what looks the same either way counts more than what does not.
    """

    def rows(self, points: Tensor) -> Tensor:
        """Mean similarity of ``(N, 2)`` source pixels to each target cell: ``(N, h*w)``."""
        return torch.stack([part.rows(points) for part in self.parts]).mean(dim=0)

    def swap(self) -> MeanSimilarity:
        """The same pair seen from the target."""
        return MeanSimilarity(tuple(part.swap() for part in self.parts))


@dataclass(frozen=True, eq=False)
class ConfidenceWeighted(_Joined):
    """The mean of groups' similarities, each weighted at each point by how peaked it is.

    A group's confidence at a point is the maximum of its similarities minus their mean, over the
    cells that may be matched; it multiplies the group's fixed weight. Where no group has any, the
    fixed weights stand alone.

    Args:
        parts: a similarity per group.
        weights: fixed weight of each group, as in ``sum(w_i cos_i) / sum(w_i)``.
    """

    weights: tuple[float, ...]

    def rows(self, points: Tensor) -> Tensor:
        """Weighted similarity of ``(N, 2)`` source pixels to each target cell: ``(N, h*w)``."""
        rows = torch.stack([part.rows(points) for part in self.parts])  # (G, N, h*w)
        allowed = rows[:, :, allowed_cells(self).to(rows.device)]
        peaks = allowed.amax(dim=2) - allowed.mean(dim=2)  # (G, N)
        fixed = rows.new_tensor(self.weights)[:, None]
        peaks = torch.where(peaks > ROUNDING, peaks, 0)
        weights = torch.where((peaks > 0).any(dim=0), peaks * fixed, fixed)
        shares = weights / weights.sum(dim=0)
        return (shares[:, :, None] * rows).sum(dim=0)

    def swap(self) -> ConfidenceWeighted:
        """The same pair seen from the target, with the peaks of that way."""
        return ConfidenceWeighted(tuple(part.swap() for part in self.parts), self.weights)
