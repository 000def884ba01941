"""Matches as JSON and in the shapes of other tools, figures as picture files."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sdcorr.errors import SdcorrError
from sdcorr.files import replacing
from sdcorr.pipeline import Pipeline
from sdcorr.types import Image, Matches

if TYPE_CHECKING:
    import cv2
    from matplotlib.figure import Figure
    from torch import Tensor

SCHEMA = "sdcorr.matches/1"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
COLUMNS = (
    "name", "source_x", "source_y", "target_x", "target_y", "score", "confidence", "margin", "peak",
    "cycle_error", "matched",
)  # fmt: skip


def matches_to_dict(matches: Matches, model: Pipeline) -> dict[str, Any]:
    """Matches and how they were made, for JSON.

    Points are (x, y) in pixels of the original photos, sizes (height, width).
    """
    return matches_alone(matches) | how_made(model)


def matches_alone(matches: Matches) -> dict[str, Any]:
    """The part of ``matches_to_dict`` that says what was found."""
    confidence = matches.confidence.tolist() if matches.confidence is not None else None
    return {
        "schema": SCHEMA,
        "source": _photo(matches.source_image),
        "target": _photo(matches.target_image),
        "matches": [
            {
                "name": matches.names[index] if matches.names else None,
                "source": matches.source[index].tolist(),
                "target": matches.target[index].tolist(),
                "score": matches.score[index].item(),
                "confidence": confidence[index] if confidence else None,
                "matched": matches.matched[index].item(),
            }
            for index in range(len(matches))
        ],
    }


def how_made(model: Pipeline) -> dict[str, Any]:
    """The part of ``matches_to_dict`` that says by what: recipe, weights, runtime."""
    return {
        "recipe": model.recipe.describe(),
        "weights": model.revisions,
        "runtime": model.runtime.describe(),
    }


def matches_to_keypoint_dicts(matches: Matches) -> list[dict[str, Any]]:
    """See ``Matches.to_dicts``.

    Example:
        >>> import numpy, sdcorr
        >>> photo = numpy.zeros((40, 60, 3), "uint8")
        >>> sdcorr.load("same-position").match(photo, photo, [[3, 4]]).to_dicts()
        [{'keypoint_image_0': {'x': 3.0, 'y': 4.0}, 'keypoint_image_1': {'x': 3.0, 'y': 4.0}, \
'score': 0.0}]
    """
    kept = matches.select(matches.matched)
    kept = kept.select(kept.score.argsort(descending=True, stable=True))
    extra = {"name": kept.names, "confidence": _list(kept.confidence)}
    return [
        {
            "keypoint_image_0": dict(zip("xy", kept.source[index].tolist(), strict=True)),
            "keypoint_image_1": dict(zip("xy", kept.target[index].tolist(), strict=True)),
            "score": kept.score[index].item(),
        }
        | {key: values[index] for key, values in extra.items() if values is not None}
        for index in range(len(kept))
    ]


def matches_to_csv(matches: Matches) -> str:
    """All matches as CSV (RFC 4180, but lines end in a line feed alone), with a header.

    Points are (x, y) in pixels of the original photos. No number is rounded, and an infinite margin
    is ``inf``: it is no small one, which an empty cell might pass for. Empty are only names and
    confidences that do not exist. ``matched`` is ``true`` or ``false``.

    Example:
        >>> import numpy, sdcorr
        >>> photo = numpy.zeros((40, 60, 3), "uint8")
        >>> print(sdcorr.load("same-position").match(photo, photo, {"ear": (3, 4)}).to_csv())
        name,source_x,source_y,target_x,target_y,score,confidence,margin,peak,cycle_error,matched
        ear,3.0,4.0,3.0,4.0,0.0,,0.0,0.0,0.0,true
        <BLANKLINE>
    """
    nothing = [None] * len(matches)
    columns = (
        matches.names or nothing,
        *matches.source.T.tolist(),
        *matches.target.T.tolist(),
        matches.score.tolist(),
        _list(matches.confidence) or nothing,
        matches.margin.tolist(),
        matches.peak.tolist(),
        matches.cycle_error.tolist(),
        ["true" if matched else "false" for matched in matches.matched.tolist()],
    )
    return "".join(map(csv_line, (COLUMNS, *zip(*columns, strict=True))))


def matches_to_opencv(
    matches: Matches,
) -> tuple[list[cv2.KeyPoint], list[cv2.KeyPoint], list[cv2.DMatch]]:
    """Keypoints of source and target, N each, and a ``DMatch`` per match that is not rejected.

    Pixels as OpenCV counts them, (0, 0) at the centre of the top-left one, in its float32. A
    keypoint's ``size`` is 1 px: matches know of no scale. ``queryIdx`` and ``trainIdx`` are both
    the index of the match, ``distance`` is 1 - score, 0 to 2: smaller is better.

    Example:
        >>> import numpy, sdcorr
        >>> photo = numpy.zeros((40, 60, 3), "uint8")
        >>> source, target, pairs = sdcorr.load("same-position").match(
        ...     photo, photo, [[3, 4], [5, 6]]
        ... ).to_opencv()
        >>> target[pairs[1].trainIdx].pt
        (5.0, 6.0)
    """
    import cv2

    source, target = (
        [cv2.KeyPoint(x, y, 1.0) for x, y in points.tolist()]
        for points in (matches.source, matches.target)
    )
    pairs = [
        cv2.DMatch(index, index, 1 - matches.score[index].item())
        for index in matches.matched.nonzero()[:, 0].tolist()
    ]
    return source, target, pairs


def matches_to_coco(matches: Matches, category: str | None = None) -> dict[str, Any]:
    """A COCO keypoints data set of the target photo: one image, annotation and category.

    The photo's ``width`` and ``height`` are those after EXIF rotation, ``file_name`` is its path,
    empty for a photo that came from no file. The category's ``keypoints`` are the matches' names,
    or "1" to "N". For the annotation see ``coco_annotation``; ids are 1.

    Args:
        matches: with their target photo.
        category: what was found; None is the category of the target photo, or "object" where it
            has none.

    Raises:
        SdcorrError: the matches carry no target photo.
    """
    photo = matches.target_image
    if photo is None:
        raise SdcorrError("these matches carry no target photo; make them with Pipeline.match")
    name = category if category is not None else photo.category or "object"
    parts = matches.names or (str(index + 1) for index in range(len(matches)))
    annotation = coco_annotation(
        matches.target.numpy(),
        matches.matched.numpy(),
        matches.score.numpy(),
        None if matches.confidence is None else matches.confidence.numpy(),
        id=1,
        image_id=1,
        category_id=1,
    )
    image = {"id": 1, "file_name": str(photo.path or "")}
    kind = {"id": 1, "name": name, "supercategory": name, "keypoints": list(parts), "skeleton": []}
    return {
        "images": [image | {"width": photo.size.width, "height": photo.size.height}],
        "annotations": [annotation],
        "categories": [kind],
    }


def coco_annotation(
    places: npt.ArrayLike,
    visible: npt.ArrayLike,
    scores: npt.ArrayLike,
    confidences: npt.ArrayLike | None,
    *,
    id: int,
    image_id: int,
    category_id: int,
) -> dict[str, Any]:
    """One object of a COCO keypoints data set, and what its format has no field for.

    COCO counts pixels from (0, 0) as points do here, so nothing is shifted, nor rounded.
    ``keypoints`` holds x, y, 2 of what is visible and 0, 0, 0 of the rest. ``bbox``
    (x, y, width, height) is the tight box around the visible ones and ``area`` that box's, both 0
    where none is. Besides, of all points: ``keypoint_predictions``
    [[x, y], ...], ``keypoint_scores``, and ``keypoint_confidences``, None without ``confidences``.

    Args:
        places: ``(N, 2)`` xy pixels; NaN, of a point that nobody looked for, becomes None.
        visible: ``(N,)`` bool, False where a match is rejected.
        scores: ``(N,)`` cosine similarities, NaN likewise.
        confidences: ``(N,)``, 0 to 1, NaN likewise; None where the recipe is not calibrated.
        id: of the annotation.
        image_id: of its photo.
        category_id: of its category.

    Example:
        >>> found = [[1.5, 2.0], [4.0, 8.0], [9.0, 9.0]]
        >>> one = coco_annotation(
        ...     found, [True, True, False], [0.75, 0.5, 0.25], None, id=1, image_id=1, category_id=1
        ... )
        >>> one["keypoints"]
        [1.5, 2.0, 2, 4.0, 8.0, 2, 0, 0, 0]
        >>> one["bbox"], one["num_keypoints"]
        ([1.5, 2.0, 2.5, 6.0], 2)
    """
    points = np.asarray(places, np.float64).reshape(-1, 2)
    shown = np.asarray(visible, np.bool_)
    seen = points[shown] if shown.any() else np.zeros((1, 2))
    corner, sides = seen.min(axis=0), np.ptp(seen, axis=0)
    triples = [
        [*point, 2] if known else [0, 0, 0]
        for point, known in zip(points.tolist(), shown.tolist(), strict=True)
    ]
    return {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "keypoints": [number for triple in triples for number in triple],
        "num_keypoints": int(shown.sum()),
        "bbox": [*corner.tolist(), *sides.tolist()],
        "area": float(sides.prod()),
        "iscrowd": 0,
        "keypoint_predictions": [
            None if math.isnan(point[0]) else point for point in points.tolist()
        ],
        "keypoint_scores": _known(scores),
        "keypoint_confidences": None if confidences is None else _known(confidences),
    }


def write_picture(path: Path, figure: Figure) -> None:
    """Write a figure in the format its name ends in, replacing the file when it is whole.

    The same figure makes the same bytes.
    """
    from sdcorr.viz import save_figure

    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks
        save_figure(figure, temporary, path.suffix.lower().removeprefix("."))


def _photo(image: Image | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {"path": str(image.path) if image.path else None, "size": list(image.size)}


def _list(values: Tensor | None) -> list[float] | None:
    return None if values is None else values.tolist()


def _known(values: npt.ArrayLike) -> list[float | None]:
    """The numbers, None for NaN, which JSON lacks."""
    numbers: list[float] = np.asarray(values, np.float64).tolist()
    return [None if math.isnan(number) else number for number in numbers]


def csv_line(values: Iterable[object]) -> str:
    """One line, quoted where needed: also around a lone carriage return, which csv takes for text.

    Before Python 3.13 its writer quotes only such line ends as it writes itself.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"
