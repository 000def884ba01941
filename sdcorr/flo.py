"""Dense flow as a ``.flo`` file, the format of the Middlebury benchmark, which TSS uses too.

Little endian: float32 202021.25, int32 width, int32 height, then per pixel, row by row, float32
(u, v), the way in x and y from the pixel to its match. What is unknown is 1e10 in both; a reader
takes all for unknown that is not below 1e9 (Baker et al., "A Database and Evaluation Methodology
for Optical Flow", IJCV 2011, and the README of its code).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from sdcorr.errors import BadAnnotations
from sdcorr.files import replacing
from sdcorr.geometry import Size

MAGIC = 202021.25  # its four bytes spell PIEH
UNKNOWN, BOUND = 1e10, 1e9
MOST = 2**28  # pixels: 2 GB; beyond it, a header is not believed
HEAD = struct.Struct("<fii")
PIXEL = 8  # bytes


def write_flo(path: Path, flow: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> None:
    """Write a flow, replacing the file when it is whole.

    Args:
        path: the file.
        flow: ``(H, W, 2)`` (x, y) of the match minus (x, y) of the pixel.
        valid: ``(H, W)``, False where the flow is unknown.

    Raises:
        BadOutput: the file cannot be written.
        ValueError: the shapes differ, or a known flow is not below 1e9 px.
    """
    height, width = valid.shape
    if flow.shape != (height, width, 2) or not valid.size:
        raise ValueError(f"expected flow (H, W, 2), valid (H, W), got {flow.shape}, {valid.shape}")
    if not (np.abs(flow) < BOUND)[valid].all():  # NaN is not, either
        raise ValueError("a flow that is called valid is not finite, or not below 1e9 px")
    values = np.where(valid[:, :, None], flow, np.float32(UNKNOWN)).astype("<f4", order="C")
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(HEAD.pack(MAGIC, width, height))
        file.write(values.data)


def read_flo_size(path: Path) -> Size:
    """The size that a file's header tells, found to fit the file's length.

    Raises:
        BadAnnotations: see ``read_flo``.
    """
    with _opened(path) as (_, size):
        return size


def read_flo(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The flow of a file.

    Returns:
        ``(H, W, 2)`` pixels, NaN where unknown; and ``(H, W)``, False there.

    Raises:
        BadAnnotations: there is no such file, or it is no flow, cut short, or too long.
    """
    with _opened(path) as (file, (height, width)):
        data = file.read(height * width * PIXEL)
    _check_length(path, HEAD.size + len(data), height, width)
    flow = np.frombuffer(data, "<f4").reshape(height, width, 2).astype(np.float32)
    valid: npt.NDArray[np.bool_] = np.abs(flow).max(axis=2) < BOUND  # NaN is not
    flow[~valid] = np.nan
    return flow, valid


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Size]]:
    """A file of flow behind its header, and the size that this tells."""
    try:
        if path.exists() and not path.is_file():
            raise BadAnnotations(f"{path} is a folder, a pipe or a device; expected a .flo file")
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            yield file, _shape(path, file.read(HEAD.size), length)
    except OSError as error:
        raise BadAnnotations(f"cannot read {path}: {error.strerror or error}") from error


def _shape(path: Path, head: bytes, size: int) -> Size:
    """What a file's header says, found to fit its ``size`` in bytes: ``(H, W)``."""
    if len(head) < HEAD.size:
        raise BadAnnotations(
            f"{path} holds {len(head)} bytes; expected a .flo file, which begins with 12 of header"
        )
    magic, width, height = HEAD.unpack(head)
    if magic != MAGIC:
        got = f"{magic:.6g}" if math.isfinite(magic) else "none"
        raise BadAnnotations(
            f"{path} is no .flo file: expected the number 202021.25 at its start, got {got}"
        )
    if min(width, height) < 1 or width * height > MOST:
        raise BadAnnotations(
            f"{path} calls itself {height} x {width} (high x wide), which no flow is; it is "
            "damaged, or was written on a machine of another byte order"
        )
    _check_length(path, size, height, width)
    return Size(height, width)


def _check_length(path: Path, size: int, height: int, width: int) -> None:
    wanted = HEAD.size + height * width * PIXEL
    if size != wanted:
        what = "is cut short" if size < wanted else "is longer than it says"
        raise BadAnnotations(
            f"{path} {what}: expected {wanted} bytes for {height} x {width} (high x wide), got "
            f"{size}; fetch it again"
        )
