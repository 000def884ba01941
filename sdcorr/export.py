"""Matches as JSON, figures as picture files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcorr.files import replacing
from sdcorr.pipeline import Pipeline
from sdcorr.types import Image, Matches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = "sdcorr.matches/1"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")


def matches_to_dict(matches: Matches, model: Pipeline) -> dict[str, Any]:
    """Matches and how they were made, for JSON.

    Points are (x, y) in pixels of the original photos, sizes (height, width).
    """
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
        "recipe": model.recipe.describe(),
        "weights": model.revisions,
        "runtime": model.runtime.describe(),
    }


def write_picture(path: Path, figure: Figure) -> None:
    """Write a figure in the format its name ends in, replacing the file when it is whole."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks
        kind = path.suffix.lower().removeprefix(".")
        # Pillow's default, 6, compresses four times as long, for a file a tenth smaller
        how: dict[str, Any] = {"pil_kwargs": {"compress_level": 1}} if kind == "png" else {}
        figure.savefig(temporary, format=kind, **how)


def _photo(image: Image | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {"path": str(image.path) if image.path else None, "size": list(image.size)}
