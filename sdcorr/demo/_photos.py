"""What a browser may send as a photo, and what it gets to see of it."""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import PIL.Image

from sdcorr.errors import BadImage
from sdcorr.preprocess import damage_in_words, load_image
from sdcorr.types import Image

BYTES = 50_000_000  # of a file
PIXELS = 50_000_000  # of a photo
SIDE = 16_384  # px of it; browsers draw little more
# what Pillow reads by itself: EPS, for one, would start another program
KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
SHOWN = 2048  # px of the copy that is shown
NAME = 100  # characters of a photo's name
_ENCODING = threading.Lock()  # of a large photo, which takes a quarter of a GB


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo of the page.

    Args:
        id: what the page calls it; cannot be guessed.
        name: for people; never opened.
        digest: of the pixels; of the same photo the same, also in another demo.
        image: upright, in 8 bits.
        shown: JPEG of it, as large as a screen.
        reduced: that has fewer pixels than the photo.
    """

    id: str
    name: str
    digest: str
    image: Image = field(repr=False)
    shown: bytes = field(repr=False)
    reduced: bool


def read_upload(file: BinaryIO, name: str) -> Photo:
    """A photo that a browser sent, within the limits.

    Raises:
        BadImage: it is no photo, damaged, or too large.
    """
    name = _shown_name(name)
    with damage_in_words(name), PIL.Image.open(file, formats=KINDS) as photo:
        width, height = photo.size
        if max(width, height) > SIDE or width * height > PIXELS:
            raise BadImage(
                f"{name} is {width} x {height} pixels; expected at most {SIDE} on a side and "
                f"{PIXELS // 10**6} million in all; make it smaller"
            )
        photo.load()
        try:
            return make_photo(load_image(photo), name)
        except BadImage as error:
            raise BadImage(str(error).replace("the PIL image", name)) from error


def make_photo(image: Image, name: str) -> Photo:
    """The photo with the copy that is shown. Its name becomes one that can be."""
    copy = PIL.Image.fromarray(image.pixels)
    copy.thumbnail((SHOWN, SHOWN))
    digest = hashlib.sha256(str(image.size).encode())
    digest.update(image.pixels.tobytes())
    return Photo(
        secrets.token_urlsafe(16), _shown_name(name), digest.hexdigest()[:16], image,
        _as_jpeg(copy), copy.size != (image.size.width, image.size.height),
    )  # fmt: skip


def whole(photo: Photo) -> bytes:
    """JPEG of the photo with all its pixels, for who looks closely; one at a time."""
    with _ENCODING:
        return _as_jpeg(PIL.Image.fromarray(photo.image.pixels))


def _as_jpeg(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _shown_name(name: str) -> str:
    """The last part of a name, printable and short."""
    last = Path(name.replace("\\", "/")).name
    return "".join(letter for letter in last if letter.isprintable())[:NAME] or "photo"
