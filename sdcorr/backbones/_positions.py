"""Position tables of vision transformers, for canvases of any size and patches of any stride."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def grid_shape(canvas: tuple[int, ...], patch: int, stride: int) -> tuple[int, int]:
    """Rows and columns of patches that fit on a canvas ``(H, W)``; what is left over is not read.

    Example:
        >>> grid_shape((224, 337), patch=8, stride=4)
        (55, 83)
    """
    height, width = canvas
    return 1 + (height - patch) // stride, 1 + (width - patch) // stride


def set_positions(
    embeddings: Any, patch: int, stride: int | None, resize: Callable[[Tensor, Any], Tensor]
) -> None:
    """Let a ViT's embeddings ask ``resize`` for the position table of each canvas, and step finer.

    transformers counts patches as side // patch, whatever the stride.
    """
    step = stride or patch

    def table(_tokens: Tensor, height: int, width: int) -> Tensor:
        return resize(embeddings.position_embeddings, grid_shape((height, width), patch, step))

    embeddings.interpolate_pos_encoding = table
    embeddings.patch_embeddings.projection.stride = (step, step)


def resize_positions(
    table: Tensor, shape: tuple[int, int], how: Literal["original", "transformers", "antialiased"]
) -> Tensor:
    """A square position table, bicubically brought to another grid.

    Args:
        table: ``(1, 1 + n*n, C)``, the CLS entry first.
        shape: rows and columns, ``(h, w)``.
        how: ``"original"``, as in Meta's code of DINO and DINOv2, has scale ``(h + 0.1) / n``,
            which reads the table at slightly other places than ``"transformers"``' ``h / n``;
            ``"antialiased"`` is that with antialiasing.

    Returns:
        ``(1, 1 + h*w, C)``; the table itself where it has this shape already.
    """
    stored = round((table.shape[1] - 1) ** 0.5)
    if shape == (stored, stored):
        return table
    patches = table[:, 1:].float().mT.unflatten(-1, (stored, stored))  # (1, C, n, n)
    if how == "original":
        scale = ((shape[0] + 0.1) / stored, (shape[1] + 0.1) / stored)
        resized = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    else:
        antialias = how == "antialiased"
        resized = F.interpolate(patches, size=shape, mode="bicubic", antialias=antialias)
    return torch.cat([table[:, :1], resized.flatten(2).mT.to(table)], dim=1)
