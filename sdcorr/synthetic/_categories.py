"""The categories, and one figure of one."""

from __future__ import annotations

import numpy as np

from sdcorr.synthetic._animals import bird, doll, fish, quadruped
from sdcorr.synthetic._figures import Builder, Figure, Maker
from sdcorr.synthetic._things import boat, car, chair, plane

MAKERS: dict[str, Maker] = {
    "bird": bird,
    "boat": boat,
    "car": car,
    "chair": chair,
    "doll": doll,
    "fish": fish,
    "plane": plane,
    "quadruped": quadruped,
}
CATEGORIES = tuple(MAKERS)


def make(category: str, shape: np.random.Generator, pose: np.random.Generator) -> Figure:
    """A figure.

    Args:
        category: one of ``CATEGORIES``.
        shape: draws the individual: proportions, colours, patterns.
        pose: draws its angles.
    """
    builder = Builder(shape, pose)
    MAKERS[category](builder)
    return builder.figure(category)
