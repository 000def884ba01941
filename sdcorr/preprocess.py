"""What comes in: a photo becomes an ``Image``, an ``Image`` a model's canvas, points a tensor."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
import torch
from torch import Tensor

from sdcorr.errors import BadImage, BadPoints
from sdcorr.geometry import Grid, Size
from sdcorr.types import Image

Photo = str | Path | PIL.Image.Image | npt.NDArray[Any] | Image
Points = Sequence[Sequence[float]] | Mapping[str, Sequence[float]] | Tensor | npt.NDArray[Any]
Fit = Literal["letterbox", "stretch", "resize", "shorter"]
Resample = Literal["lanczos", "bicubic"]

LARGEST = 8192  # px of a canvas: beyond it, a slip of the pen fills the memory
LONGEST = 8  # times the shorter side, where the canvas grows with the longer one

# of the EXIF tags; read alone, since Pillow rewrites (and trips over) the rest
ORIENTATION = 0x0112
TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
SIDEWAYS = tuple(TURNS[value] for value in (5, 6, 7, 8))


@dataclass(frozen=True, eq=False)
class Canvas:
    """A photo fitted to a model, and where it went.

    Args:
        pixels: ``(H', W', 3)`` uint8, what the model sees.
        image: size of the photo.
        content: size of the photo on the canvas, padding excluded.
        corner: (x, y) of the photo's top-left edge on the canvas, in canvas pixels.
    """

    pixels: npt.NDArray[np.uint8]
    image: Size
    content: Size
    corner: tuple[int, int]

    def grid(self, shape: tuple[int, int], cell: float, inset: float = 0) -> Grid:
        """The grid of ``(h, w)`` square cells of ``cell`` canvas pixels, on the photo.

        It begins ``inset`` canvas pixels from the canvas' left and top edge.
        """
        scale_x = self.image.width / self.content.width  # photo px per canvas px
        scale_y = self.image.height / self.content.height
        return Grid(
            shape=shape,
            stride=(cell * scale_x, cell * scale_y),
            offset=((inset - self.corner[0]) * scale_x, (inset - self.corner[1]) * scale_y),
            image=self.image,
        )


def load_image(photo: Photo, category: str | None = None) -> Image:
    """Read a photo.

    Args:
        photo: path of a JPEG, PNG, WebP, TIFF, BMP, GIF or another file that Pillow reads (first
            frame; EXIF rotation applied; 16 bit keeps the high byte; alpha laid on white), a
            PIL image, an array ``(H, W, 3)`` RGB of uint8 or of floats in 0..1, or an ``Image``.
        category: what the photo shows, for prompts that name it.

    Raises:
        BadImage: nothing there, not a photo, truncated, empty, or too large to be decoded.
    """
    if isinstance(photo, Image):
        return photo if category is None else Image(photo.pixels, category, photo.path)
    if isinstance(photo, PIL.Image.Image):
        with damage_in_words("the PIL image"):
            return Image(_pixels_of_pil(photo, "the PIL image"), category)
    if isinstance(photo, str | Path):
        with damage_in_words(str(photo)):
            path = Path(photo)
            path = path if path.exists() else path.expanduser()
            return Image(_read(path), category, path)
    if isinstance(photo, np.ndarray):
        return Image(_pixels_of_array(photo), category)
    raise BadImage(
        f"expected a path, a PIL image or an array (H, W, 3), got {type(photo).__name__}"
    )


def read_size(path: Path) -> Size:
    """Size of a photo after EXIF rotation, as a rule from its header alone.

    Of a PNG, whose EXIF may stand at the end, Pillow decodes the pixels.

    Raises:
        BadImage: nothing there, or not a photo.
    """
    with damage_in_words(str(path)):
        check_file(path)
        with PIL.Image.open(path) as photo:
            turn = TURNS.get(photo.getexif().get(ORIENTATION, 1))
            # Pillow gives the size of a TIFF as it will turn it while loading
            sideways = turn in SIDEWAYS and photo.format != "TIFF"
            return Size(*(photo.size if sideways else photo.size[::-1]))


def fit(image: Image, size: int, how: Fit, resample: Resample = "lanczos") -> Canvas:
    """The photo on a canvas of ``size`` pixels, resized in 8 bits.

    Args:
        image: the photo.
        size: pixels of the canvas' longer side (``"shorter"``: of its shorter side).
        how: ``"letterbox"`` keeps the aspect and centres the photo on a black square, shorter
            side rounded half to even, left and top padding rounded down, as sd-dino and
            GeoAware-SC do; ``"stretch"`` fills the square; ``"resize"`` keeps the aspect and
            pads nothing; so does ``"shorter"``, longer side rounded down as torchvision does.
        resample: Pillow's filter.

    Raises:
        BadImage: ``"shorter"``, and the photo is more than 8 times as long as wide.
    """
    content = _content(image.size, size, how)
    resized = PIL.Image.fromarray(image.pixels).resize(
        (content.width, content.height), PIL.Image.Resampling[resample.upper()]
    )
    if how != "letterbox":
        return Canvas(np.asarray(resized), image.size, content, (0, 0))
    corner = ((size - content.width) // 2, (size - content.height) // 2)
    square = PIL.Image.new("RGB", (size, size))
    square.paste(resized, corner)
    return Canvas(np.asarray(square), image.size, content, corner)


def read_points(points: Points, photo: Size) -> tuple[tuple[str, ...] | None, Tensor]:
    """Names, where given, and points ``(N, 2)`` float64, checked to lie on the photo.

    Args:
        points: ``(N, 2)`` as list, array or tensor, or a mapping of name to (x, y).
        photo: size of the photo that the points are on.

    Raises:
        BadPoints: malformed, not finite, or not on the photo.
    """
    names = tuple(map(str, points)) if isinstance(points, Mapping) else None
    for name in names or ():
        if not name.isprintable():
            raise BadPoints(f"the name {name!r} has characters that cannot be shown")
    values = list(points.values()) if isinstance(points, Mapping) else points
    try:
        if isinstance(values, Tensor):
            places = values.cpu().double()  # in this order: mps has no float64
        else:  # through numpy: torch takes no reversed and no big-endian array
            places = torch.from_numpy(np.array(values).astype(np.float64, casting="same_kind"))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise BadPoints(f"expected points [[x, y], ...], got {_short(values)}") from error
    places = places.reshape(0, 2) if places.numel() == 0 else places
    if places.dim() != 2 or places.shape[1] != 2:
        raise BadPoints(
            f"expected points (N, 2), got shape {tuple(places.shape)}; one point is [[x, y]]"
        )
    off = (~photo.contains(places)).nonzero()[:, 0].tolist()
    if off:
        x, y = places[off[0]].tolist()
        label = repr(names[off[0]]) if names else f"number {off[0] + 1}"
        more = f" (and {len(off) - 1} more)" if len(off) > 1 else ""
        raise BadPoints(
            f"point {label}, ({x:g}, {y:g}), is not on the source photo{more}; expected x in "
            f"0..{photo.width - 1} and y in 0..{photo.height - 1}"
        )
    return names, places


def _content(photo: Size, size: int, how: Fit) -> Size:
    """Size of the photo on the canvas."""
    if how == "stretch":
        return Size(size, size)
    height, width = photo
    if how == "shorter":
        shorter = min(height, width)
        if max(height, width) > LONGEST * shorter:
            raise BadImage(
                f"a photo of {width} x {height} px is too long and thin: this recipe resizes the "
                f"shorter side, and the longer one may be {LONGEST} times as long at most"
            )
        return Size(height * size // shorter, width * size // shorter)
    longer = max(height, width)
    return Size(max(1, round(height * size / longer)), max(1, round(width * size / longer)))


def _read(path: Path) -> npt.NDArray[np.uint8]:
    check_file(path)
    with PIL.Image.open(path) as photo:
        return _pixels_of_pil(photo, str(path))


def check_file(path: Path) -> None:
    """Refuse what is no file, or an empty one."""
    if path.is_dir():
        raise BadImage(f"{path} is a folder; expected a photo")
    if not path.exists():
        is_url = str(path).startswith(("http:", "https:"))
        advice = "; it looks like a URL: download the photo first" if is_url else ""
        raise BadImage(f"no such file: {path}{advice}")
    if not path.is_file():
        raise BadImage(f"{path} is a pipe or a device; expected a file")
    if path.stat().st_size == 0:
        raise BadImage(f"{path} is empty (0 bytes); expected a photo")


@contextmanager
def damage_in_words(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one sentence."""
    try:
        # Pillow warns of odd metadata, and of many pixels before it refuses too many; filters are
        # the whole process', and only the main thread may change them
        main = threading.current_thread() is threading.main_thread()
        with warnings.catch_warnings(action="ignore") if main else nullcontext():
            yield
    except BadImage:
        raise
    except PIL.UnidentifiedImageError as error:
        raise BadImage(
            f"{name} is no photo that can be read; expected JPEG, PNG, WebP, TIFF or BMP"
        ) from error
    except PIL.Image.DecompressionBombError as error:
        raise BadImage(f"{name} has too many pixels to be decoded safely: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged data
        if isinstance(error, OSError) and error.strerror:
            raise BadImage(f"cannot read {name[:200]}: {error.strerror}") from error
        raise BadImage(f"{name} is damaged and cannot be read: {error}") from error


def _pixels_of_pil(photo: PIL.Image.Image, name: str) -> npt.NDArray[np.uint8]:
    if min(photo.size) == 0:
        raise BadImage(f"{name} has no pixels: {photo.width} x {photo.height}")
    photo.load()  # first: Pillow turns TIFFs while loading, and then forgets their tag
    turn = photo.getexif().get(ORIENTATION)
    if photo.mode.startswith("I"):
        photo = _from_integers(photo, name)
    elif photo.mode == "F":
        photo = PIL.Image.fromarray(_from_floats(np.asarray(photo), name))
    if photo.has_transparency_data:
        layer = photo.convert("RGBA")
        photo = PIL.Image.new("RGBA", layer.size, "white")
        photo.alpha_composite(layer)
    photo = photo.convert("RGB")
    return np.array(photo.transpose(TURNS[turn]) if turn in TURNS else photo)


def _from_integers(photo: PIL.Image.Image, name: str) -> PIL.Image.Image:
    values = np.asarray(photo).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage(f"{name} holds integers outside 0..65535; expected 8 or 16 bits")
    in_8_bits = photo.mode == "I" and values.max() <= 255  # as of an array of plain integers
    grey = (values if in_8_bits else values >> 8).astype(np.uint8)
    if "transparency" in photo.info:
        grey[values == photo.info["transparency"]] = 255
    return PIL.Image.fromarray(grey)


def _from_floats(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise BadImage(f"{name} holds NaN or infinity; expected floats in 0..1")
    if values.min() < 0 or values.max() > 1:
        raise BadImage(f"{name} holds floats outside 0..1; divide by 255, or pass uint8")
    return np.round(values * 255).astype(np.uint8)


def _pixels_of_array(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise BadImage(f"expected an array (H, W, 3), got {array.shape}")
    if array.dtype == np.uint8:
        return array.copy()
    if np.issubdtype(array.dtype, np.floating):
        return _from_floats(array, "the array")
    raise BadImage(f"expected an array of uint8, or of floats in 0..1, got {array.dtype}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
