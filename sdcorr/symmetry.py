"""Left and right: does the target show the source mirrored, and which point is whose partner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sdcorr.errors import BadPoints, UnknownName
from sdcorr.files import parse_json
from sdcorr.pairs import Pair
from sdcorr.similarities import allowed_cells
from sdcorr.types import Similarity

STEP = 1024  # cells compared at once


def looks_mirrored(plain: Similarity, mirrored: Similarity) -> bool:
    """Whether the target is more like the source's mirror image than like the source.

    The mean over the source's cells of the highest similarity decides, as in the adaptive flip of
    GeoAware-SC (Zhang et al., CVPR 2024, section 4), which takes distances under the object's mask.

    Args:
        plain: of source and target.
        mirrored: of the source's mirror image, turned back, and the target.
    """
    centers = plain.source.centers()[allowed_cells(plain.swap())]
    plain_mean, mirrored_mean = (_mean_of_best(one, centers) for one in (plain, mirrored))
    return mirrored_mean > plain_mean


def _mean_of_best(similarity: Similarity, points: Tensor) -> float:
    allowed = allowed_cells(similarity)
    best = [similarity.rows(some).cpu()[:, allowed].amax(dim=1) for some in points.split(STEP)]
    return torch.cat(best).mean().item()


def partners(names: Sequence[str] | None, symmetric: Sequence[Sequence[str]]) -> Tensor:
    """Index ``(N,)`` of each point's partner: its own, for a point that has none.

    Args:
        names: of N points; None where they have none.
        symmetric: pairs of names, such as ``[("left eye", "right eye")]``.

    Raises:
        BadPoints: a pair is none, names an unknown point, or one that has a partner already; or
            there are no names.
    """
    if symmetric and names is None:
        raise BadPoints("symmetric exchanges points by name; give points with names")
    names = names or ()
    order = list(range(len(names)))
    for pair in symmetric:
        if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
            raise BadPoints(f"symmetric: expected pairs of two names, got {pair!r}")
        for name in pair:
            if name not in names:
                raise BadPoints(
                    f"symmetric names {name!r}, which is none of the points: {', '.join(names)}"
                )
        one, other = (list(names).index(name) for name in pair)
        if order[one] != one or order[other] != other:
            raise BadPoints(f"symmetric: {pair[0]!r} or {pair[1]!r} has a partner already")
        order[one], order[other] = other, one
    return torch.tensor(order)


def read_symmetric(path: Path) -> dict[str, tuple[tuple[str, str], ...]]:
    """Pairs of keypoint ids by category, from JSON: ``{"cat": [["0", "1"], ["4", "5"]]}``.

    Raises:
        BadPoints: the file cannot be read, or holds something else.
    """
    wanted = 'expected JSON of keypoint ids by category, {"cat": [["0", "1"]]}'
    try:
        values = parse_json(path.read_bytes())
    except OSError as error:
        raise BadPoints(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadPoints(f"{path}: {wanted}; {error}") from error
    lists = values.values() if isinstance(values, dict) else [None]
    if not all(isinstance(pairs, list) and all(map(_is_pair, pairs)) for pairs in lists):
        raise BadPoints(f"{path}: {wanted}")
    found = {name: tuple((one, other) for one, other in pairs) for name, pairs in values.items()}
    for name, pairs in found.items():
        every = [end for pair in pairs for end in pair]
        if len(set(every)) < len(every):
            raise BadPoints(f"{path}: a keypoint of {name!r} has two partners, or is its own")
    return found


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(e, str) for e in value)


def check_symmetric(
    symmetric: Mapping[str, Sequence[Sequence[str]]], pairs: Iterable[Pair]
) -> None:
    """Refuse categories and keypoints that no annotated pair has.

    Raises:
        UnknownName: there is no such category, or no such keypoint in it.
    """
    known: dict[str, set[str]] = {}
    for pair in pairs:
        ids = (*pair.keypoint_ids, *pair.source_only_ids)
        known.setdefault(pair.category, set()).update(ids)
    for category, couples in symmetric.items():
        if category not in known:
            raise UnknownName("category", category, sorted(known))
        for name in (end for couple in couples for end in couple):
            if name not in known[category]:
                raise UnknownName(f"keypoint of {category}", name, sorted(known[category]))
