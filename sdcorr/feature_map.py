"""Descriptors on a grid over one photo."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.errors import NotFinite
from sdcorr.geometry import Grid


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Descriptors on a grid over one photo.

    Args:
        name: which inner layer this is.
        values: ``(C, h, w)``, any float dtype; kept as float32, contiguous.
        grid: where the cells lie on the photo.

    Raises:
        ValueError: the shape is not that of the grid.
        NotFinite: a value is NaN or infinite; the message names the map.
    """

    name: str
    values: Tensor = field(repr=False)
    grid: Grid

    def __post_init__(self) -> None:
        shape, cells = tuple(self.values.shape), tuple(self.grid.shape)
        if len(shape) != 3 or shape[1:] != cells or 0 in shape:
            raise ValueError(
                f"map {self.name!r}: expected (C, h, w) with (h, w) = {cells}, got {shape}"
            )
        values = self.values.float().contiguous()  # one layout: sums come out the same
        low, high = values.aminmax()  # NaN comes through; one pass, far quicker than isfinite
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise NotFinite(f"feature map {self.name!r} is not finite")
        object.__setattr__(self, "values", values)

    def descriptors(self) -> Tensor:
        """One row per cell, row by row: ``(h*w, C)``."""
        return self.values.flatten(1).T

    def sample(self, points: Tensor) -> Tensor:
        """Bilinear descriptors at ``(N, 2)`` xy pixels: ``(N, C)``.

        Points beyond the outermost inside cell centres read those, never padding.
        """
        if len(points) == 0:
            return self.values.new_zeros(0, self.values.shape[0])
        unit = self.grid.to_unit(self.grid.confine(points))  # (N, 2)
        # in this order: mps has no float64
        unit = unit.to(self.values.dtype).to(self.values.device)
        sampled = F.grid_sample(
            self.values[None], unit[None, :, None], align_corners=False
        )  # (1, C, N, 1)
        return sampled[0, :, :, 0].T

    @cached_property
    def lengths(self) -> Tensor:
        """Euclidean length of each cell's descriptor, ``(h*w,)``; computed once."""
        lengths: Tensor = self.values.flatten(1).norm(dim=0)
        return lengths

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean of the cells ``(C,)``, and their scatter about it ``(C, C)``; float64, kept.

        The scatter is the sum of products of centred channels.
        """
        rows = exact(self.descriptors())
        mean = rows.mean(dim=0)
        centred = rows - mean  # about the own mean: E[xx] - mm would cancel
        return mean, centred.T @ centred

    @property
    def nbytes(self) -> int:
        """Bytes of the values, and of the moments where they have been computed."""
        kept = self.__dict__.get("moments", ())
        return sum(one.nbytes for one in (self.values, *kept))

    def forget_moments(self) -> None:
        """Let go of the moments; they are computed again when asked for."""
        self.__dict__.pop("moments", None)


def exact(values: Tensor) -> Tensor:
    """As float64, on the CPU where the device has none (mps)."""
    return (values.cpu() if values.device.type == "mps" else values).double()
