"""K-means whose result depends on the points alone, not on their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sdcorr.errors import BadRecipe

STARTS = 5  # the best is kept
ROUNDS, STEPS = 20, 5  # of one start at most, and steps in each; then it has settled as a rule


def k_means(points: npt.NDArray[Any], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Cluster of each point, 0 to ``count`` - 1, by k-means: ``(M,)``.

    The best of several starts by k-means++ (Arthur and Vassilvitskii, 2007).

    Args:
        points: ``(M, C)``, floats.
        count: of clusters, at least 1; none is empty.
        seed: of the starts.

    Raises:
        BadRecipe: fewer points differ than there are to be clusters.
    """
    points = np.ascontiguousarray(points) + points.dtype.type(0)  # -0 becomes 0: like is like
    as_bytes = points.view(np.dtype((np.void, points.itemsize * points.shape[1])))[:, 0]
    order = as_bytes.argsort(kind="stable")  # so that chance picks the same points
    points = points[order]
    differ = 1 + int((points[1:] != points[:-1]).any(axis=1).sum())
    if not 1 <= count <= differ:
        raise BadRecipe(
            f"expected 1 to {differ} parts (that many cells of the foreground differ), got {count}"
        )
    generator = np.random.default_rng(seed)
    settled = [_settle(points, count, generator) for _ in range(STARTS)]
    kept = [one for one in settled if one is not None]
    if not kept:
        raise BadRecipe(
            f"{count} parts: the clustering leaves some of them empty; ask for fewer parts"
        )
    cluster = np.empty(len(order), np.int64)
    cluster[order] = min(kept, key=lambda one: one[0])[1]
    return cluster


def _settle(
    points: npt.NDArray[Any], count: int, generator: np.random.Generator
) -> tuple[float, npt.NDArray[np.int32]] | None:
    """Sum of squared distances to the centres, and clusters; None if one loses all its points."""
    from scipy.cluster.vq import ClusterError, kmeans2

    try:
        centres, labels = kmeans2(
            points, count, STEPS, minit="++", missing="raise", seed=generator
        )  # `seed`, for it is `rng` in new versions of SciPy alone
        for _ in range(ROUNDS):
            before = labels
            centres, labels = kmeans2(points, centres, STEPS, minit="matrix", missing="raise")
            if (labels == before).all():
                break
    except ClusterError:
        return None
    return np.square(points - centres[labels]).sum(dtype=np.float64), labels
