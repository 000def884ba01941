"""Pairs of photos between which the way of every pixel of an object is annotated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from sdcorr.errors import BadAnnotations
from sdcorr.flo import read_flo
from sdcorr.geometry import Size

MODES = ("1", "L", "P", "I", "I;16")  # of pictures that hold one number a pixel


@dataclass(frozen=True, eq=False)
class FlowPair:
    """Two photos and the flow from the object in the source to that in the target.

    Args:
        id: unique in its data set; the key of its record.
        category: as tables name it.
        subject: what the photos show, in words for a text prompt.
        source: file of the source photo.
        target: file of the target photo.
        flow: ``.flo`` file of the source's size, see ``sdcorr.flo``.
        mask: picture of the source's size; the object is where it is above 0.
        source_size: of the photo.
        target_size: of the photo; its longer side is what errors are measured by.
        difficulty: a level for each kind of difficulty, as in ``{"flip": "flipped"}``.
    """

    id: str
    category: str
    subject: str
    source: Path
    target: Path
    flow: Path
    mask: Path
    source_size: Size
    target_size: Size
    difficulty: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The annotated flow.

        Returns:
            ``(H, W, 2)`` float32, (x, y) of the match minus (x, y) of the source pixel; and
            ``(H, W)``, where it is known and the pixel is on the object: at least one.

        Raises:
            BadAnnotations: a file is damaged, of another size, or no pixel is annotated.
        """
        flow, known = read_flo(self.flow)
        covered = read_mask_numbers(self.mask)
        for path, shape in ((self.flow, known.shape), (self.mask, covered.shape)):
            if shape != self.source_size:
                raise BadAnnotations(
                    f"{path} is {shape[0]} x {shape[1]} (high x wide), its photo "
                    f"{self.source_size.height} x {self.source_size.width}"
                )
        valid = known & covered
        if not valid.any():
            raise BadAnnotations(f"{self.flow} annotates no pixel that {self.mask.name} covers")
        return flow, valid

    def digest(self) -> str:
        """SHA-256 of flow and mask, in hexadecimal.

        Raises:
            BadAnnotations: a file cannot be read.
        """
        try:
            found = hashlib.sha256(self.flow.read_bytes())
            found.update(self.mask.read_bytes())
        except OSError as error:
            raise BadAnnotations(f"cannot read {error.filename}: {error.strerror}") from error
        return found.hexdigest()


def read_mask_numbers(path: Path) -> npt.NDArray[np.bool_]:
    """Where the numbers of a mask are above 0: ``(H, W)``.

    In a picture with a palette the numbers are its indices, whatever colours these stand for.

    Raises:
        BadAnnotations: it cannot be read, or has several numbers a pixel.
    """
    try:
        if not path.is_file():
            raise BadAnnotations(f"cannot read {path}: it is missing, or no file")
        with PIL.Image.open(path) as picture:
            if picture.mode not in MODES:
                raise BadAnnotations(
                    f"{path} is a picture of mode {picture.mode}; expected a mask of one number a "
                    "pixel"
                )
            covered: npt.NDArray[np.bool_] = np.asarray(picture) > 0
    except BadAnnotations:
        raise
    except Exception as error:  # Pillow raises nearly anything on damage
        raise BadAnnotations(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return covered
