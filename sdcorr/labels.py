"""Transferred keypoints in files: a line per photo while the work goes on, COCO JSON, CSV."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sdcorr.annotations import Scheme
from sdcorr.coco import VISIBLE
from sdcorr.errors import BadImage, BadRun
from sdcorr.export import coco_annotation, csv_line
from sdcorr.files import parse_json, replacing
from sdcorr.lines import read_lines
from sdcorr.transfer import Labels

Line = dict[str, Any]  # of one photo, see ``to_line``
COLUMNS = ("file_name", "keypoint", "x", "y", "v", "score", "confidence")


def to_line(name: str, labels: Labels | BadImage, length: int | None = None) -> Line:
    """All that is kept of a photo, for JSON; null stands for a keypoint that no reference shows.

    Args:
        name: of the photo, below its root.
        labels: what was found, or why nothing.
        length: of the photo's file, in bytes; tells it from another of the same name.
    """
    if isinstance(labels, BadImage):
        return {"photo": name, "skipped": str(labels)}
    return {
        "photo": name,
        "bytes": length,
        "size": list(labels.size),
        "predictions": [None if math.isnan(x) else [x, y] for x, y in labels.places.tolist()],
        "scores": _numbers(labels.score),
        "confidences": None if labels.confidence is None else _numbers(labels.confidence),
        "matched": labels.matched.tolist(),
    }


def file_bytes(path: Path) -> int | None:
    """Length of a file; None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _numbers(values: Tensor) -> list[float | None]:
    return [None if math.isnan(number) else number for number in values.tolist()]


@dataclass(frozen=True)
class LabelFile:
    """What is written of a folder of photos.

    Args:
        scheme: of the keypoints.
        about: how the labels were made; stands under ``info.sdcorr``.
        min_confidence: keypoints below it count as not there (v = 0), see ``visibility``.
    """

    scheme: Scheme
    about: Mapping[str, Any]
    min_confidence: float | None

    def visibility(self, line: Line) -> list[int]:
        """COCO's v of each keypoint, see the function of this name."""
        return visibility(line, self.min_confidence)

    def write_coco(self, path: Path, lines: Path, folder: Path | None = None) -> None:
        """COCO keypoints JSON, photo by photo: any number of them fits into memory.

        Args:
            path: of the JSON.
            lines: of all photos.
            folder: see ``files.replacing``.
        """
        skipped = {
            line["photo"]: line["skipped"] for line in read_lines(lines) if "skipped" in line
        }
        about = {
            **self.about,
            "min_confidence": self.min_confidence,
            "photos": sum(1 for _ in labelled(lines)),
            "skipped": skipped,
        }
        info = {"description": "keypoints transferred by sdcorr", "sdcorr": about}
        with replacing(path, folder) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(f'{{"info": {json.dumps(info, allow_nan=False)},\n')
            file.write(f'"categories": [{json.dumps(self.scheme.category, allow_nan=False)}],\n')
            for name, make in (("images", self._image), ("annotations", self._annotation)):
                file.write(f'"{name}": [')
                for number, line in enumerate(labelled(lines), start=1):
                    value = json.dumps(make(number, line), allow_nan=False)
                    file.write(("\n" if number == 1 else ",\n") + value)
                file.write("\n]" + (",\n" if name == "images" else "\n}\n"))
            file.flush()
            os.fsync(file.fileno())

    def _image(self, number: int, line: Line) -> dict[str, Any]:
        height, width = line["size"]
        image = {"id": number, "file_name": line["photo"], "height": height, "width": width}
        return image | {"bytes": line["bytes"]}

    def _annotation(self, number: int, line: Line) -> dict[str, Any]:
        return coco_annotation(
            [place or (math.nan, math.nan) for place in line["predictions"]],
            [v == VISIBLE for v in self.visibility(line)], line["scores"], line["confidences"],
            id=number, image_id=number, category_id=self.scheme.category["id"],
        ) | {"keypoints_matched": line["matched"]}  # fmt: skip

    def write_csv(self, path: Path, lines: Path) -> None:
        """A row per photo and keypoint; empty cells where no reference shows the keypoint."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(csv_line(COLUMNS).encode())
            for line in labelled(lines):
                columns = zip(
                    self.scheme.keypoints, line["predictions"], self.visibility(line),
                    line["scores"], line["confidences"] or [None] * len(line["scores"]),
                    strict=True,
                )  # fmt: skip
                for name, place, *rest in columns:
                    row = (line["photo"], name, *(place or ("", "")), *rest)
                    file.write(to_bytes(csv_line(row)))


def to_bytes(text: str) -> bytes:
    """In UTF-8; bytes of file names as they are, other halves of characters as ``?``."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="replace")


def visibility(line: Line, min_confidence: float | None) -> list[int]:
    """COCO's v of each keypoint: 2, or 0 where it was not matched or is too unlikely."""
    sure = line["confidences"] or [1.0] * len(line["matched"])
    return [
        VISIBLE if matched and likely is not None and likely >= (min_confidence or 0.0) else 0
        for matched, likely in zip(line["matched"], sure, strict=True)
    ]


def labelled(lines: Path) -> Iterator[Line]:
    """The lines of photos that were not skipped."""
    return (line for line in read_lines(lines) if "skipped" not in line)


def read_labels(path: Path) -> tuple[dict[str, Any], list[Line]]:
    """How the labels of a file were made, and its photos' lines, as ``write_coco`` wrote them.

    Raises:
        BadRun: the file is damaged, was changed since, or was not written by ``sdcorr transfer``.
    """
    try:
        content = parse_json(path.read_bytes())
        about: dict[str, Any] = content["info"]["sdcorr"]
        if not isinstance(about, dict):
            raise TypeError("expected an object")
        names = len(content["categories"][0]["keypoints"]) if content["annotations"] else 0
        images = {image["id"]: image for image in content["images"]}
        lines = [_line(images[one["image_id"]], one, names) for one in content["annotations"]]
        whole = len(lines) == len(images) == about.get("photos", len(lines))
        least = about.get("min_confidence")
        corrected = [
            one["id"]
            for one, line in zip(content["annotations"], lines, strict=True)
            if one["keypoints"] != _as_written(line, least)
        ]
    except OSError as error:
        raise BadRun(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadRun(
            f"{path} exists and was not written by sdcorr transfer, or is damaged; choose another "
            "--out, or delete it"
        ) from error
    if corrected or not whole:
        what = f"annotation {corrected[0]} was corrected" if corrected else "photos are missing"
        raise BadRun(
            f"{path} was changed since it was written ({what}), which would be lost; choose "
            "another --out, where it may be the REFERENCES"
        )
    return about, lines


def _line(image: dict[str, Any], annotation: dict[str, Any], keypoints: int) -> Line:
    """A photo's line; raises ValueError or TypeError for what none can be."""
    predictions, scores, confidences, matched = (
        annotation[f"keypoint{name}"]
        for name in ("_predictions", "_scores", "_confidences", "s_matched")
    )
    columns = [predictions, scores, matched, *([] if confidences is None else [confidences])]
    if not all(isinstance(one, list) and len(one) == keypoints for one in columns):
        raise ValueError("expected a value for each keypoint")
    places = [place for place in predictions if place is not None]
    if any(len(place) != 2 for place in places):
        raise ValueError("expected places of x and y")
    for value in (v for some in (*places, scores, confidences or ()) for v in some):
        if not isinstance(value, int | float | None):
            raise TypeError("expected numbers")
    return {
        "photo": image["file_name"],
        "bytes": image["bytes"],
        "size": [image["height"], image["width"]],
        "predictions": predictions,
        "scores": scores,
        "confidences": confidences,
        "matched": matched,
    }


def _as_written(line: Line, min_confidence: float | None) -> list[float]:
    """``keypoints`` of a line's annotation."""
    seen = visibility(line, min_confidence)
    return [
        number
        for place, v in zip(line["predictions"], seen, strict=True)
        for number in ((*place, v) if v else (0, 0, 0))
    ]
