"""Annotated objects: a scheme of keypoints, and photos that show some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcorr.geometry import Size


@dataclass(frozen=True)
class Scheme:
    """What is annotated: one category of a COCO file.

    Args:
        category: the object as it stands in the file, copied to what is written.
        keypoints: K names, unique.
        symmetric: pairs of names that left and right exchange.
    """

    category: Mapping[str, Any] = field(repr=False)
    keypoints: tuple[str, ...]
    symmetric: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Of the category."""
        return str(self.category["name"])

    @property
    def skeleton(self) -> list[tuple[int, int]]:
        """Pairs of indices of keypoints that a line joins; the file counts from 1."""
        return [(one - 1, other - 1) for one, other in self.category.get("skeleton") or []]

    @property
    def subject(self) -> str:
        """What the photos show, in words for a text prompt."""
        return self.name.replace("_", " ")


@dataclass(frozen=True, eq=False)
class Reference:
    """One annotated object.

    Args:
        annotation: its id.
        photo: the file.
        size: as annotated; None where the file does not say.
        points: ``(K, 2)`` float64, xy pixels of the photo; meaningless where not visible.
        visible: ``(K,)`` bool; only these are looked for elsewhere.
    """

    annotation: int | str
    photo: Path
    size: Size | None
    points: Tensor = field(repr=False)
    visible: Tensor = field(repr=False)


@dataclass(frozen=True, eq=False)
class References:
    """The annotated objects of one category.

    Args:
        scheme: what is annotated.
        objects: R of them, each with a visible keypoint.
        digest: SHA-256 of the scheme, the visible keypoints and the photos' files.
    """

    scheme: Scheme
    objects: tuple[Reference, ...]
    digest: str

    @property
    def never_visible(self) -> list[str]:
        """Keypoints that no reference shows."""
        shown = torch.stack([one.visible for one in self.objects]).any(dim=0).tolist()
        return [name for name, one in zip(self.scheme.keypoints, shown, strict=True) if not one]
