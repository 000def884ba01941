from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.features
import PIL.Image
import pytest
import torch

from sdcorr.errors import BadImage, BadPoints
from sdcorr.geometry import Size
from sdcorr.preprocess import Canvas, Fit, fit, load_image, read_points, read_size
from sdcorr.types import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
ORIENTATION, RESOLUTION = 274, 282  # EXIF tags
SHORT, UNDEFINED = 3, 7  # EXIF types


def noise(height: int = 13, width: int = 17) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def row_of(mode: str, *values: Any) -> PIL.Image.Image:
    """A picture one pixel high."""
    picture = PIL.Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        picture.putpixel((x, 0), value)
    return picture


def palette(*colours: tuple[int, int, int]) -> PIL.Image.Image:
    picture = row_of("P", *range(len(colours)))
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def loaded(path: Path) -> list[tuple[int, ...]]:
    """Pixels of a picture one pixel high."""
    image = load_image(path)
    assert image.pixels.dtype == np.uint8
    assert image.size.height == 1
    return [tuple(pixel) for pixel in image.pixels[0].tolist()]


def grey(*levels: int) -> list[tuple[int, int, int]]:
    return [(level, level, level) for level in levels]


def png(width: int, height: int, bits: int, rows: bytes = b"") -> bytes:
    """A grey PNG made by hand, so that its header may claim anything."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block made by hand of (tag, type, count, four bytes), so that it may be damaged."""
    body = b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + body + bytes(4)


def encoded(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def stored_for(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores: the sides of the photo that row 0 and column 0 are, by EXIF 2.32."""
    return {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.swapaxes(0, 1),  # left, top
        6: upright[:, ::-1].swapaxes(0, 1),  # right, top
        7: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: upright[::-1].swapaxes(0, 1),  # left, bottom
    }[orientation]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("photo.png", {}),
        ("photo.webp", {"lossless": True}),
        ("photo.tif", {}),
        ("photo.tiff", {"compression": "tiff_lzw"}),
        ("photo.bmp", {}),
        ("photo.ppm", {}),
    ],
)
def test_lossless_files_come_back_exactly(tmp_path: Path, name: str, options: dict[str, Any]):
    PIL.Image.fromarray(noise()).save(tmp_path / name, **options)
    image = load_image(tmp_path / name)
    assert np.array_equal(image.pixels, noise())
    assert image.size == Size(height=13, width=17)
    assert image.path == tmp_path / name
    assert image.category is None


def test_jpeg_comes_back_nearly(tmp_path: Path, photo: np.ndarray):
    PIL.Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=95)
    pixels = load_image(tmp_path / "photo.jpg").pixels
    assert pixels.shape == photo.shape
    # quality 95 changes this photo by about two levels; exchanged channels by tens
    assert np.abs(pixels.astype(float) - photo).mean() < 4


def test_the_ending_of_the_name_does_not_matter(tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(encoded(PIL.Image.fromarray(noise()), "PNG"))
    assert np.array_equal(load_image(tmp_path / "photo.jpg").pixels, noise())


@pytest.mark.parametrize(
    ("picture", "options", "expected"),
    [
        (row_of("L", 0, 100, 255), {}, grey(0, 100, 255)),
        (row_of("L", 0, 100, 255), {"transparency": 100}, grey(0, 255, 255)),
        (row_of("1", 0, 255, 0), {}, grey(0, 255, 0)),
        (row_of("RGB", RED, GREEN), {"transparency": GREEN}, [RED, WHITE]),
        (palette(RED, GREEN, BLUE), {}, [RED, GREEN, BLUE]),
        (palette(RED, GREEN, BLUE), {"transparency": 1}, [RED, WHITE, BLUE]),
        (
            palette(RED, GREEN, BLUE),
            {"transparency": bytes([255, 0, 51])},
            [RED, WHITE, (204, 204, 255)],
        ),
        # 51 of 255 is a fifth: four fifths of white, 204
        (row_of("RGBA", (*RED, 255), (*RED, 0), (*RED, 51)), {}, [RED, WHITE, (255, 204, 204)]),
        (row_of("LA", (0, 255), (0, 0), (0, 51)), {}, grey(0, 255, 204)),
    ],
    ids=[
        "grey", "grey_transparent", "1_bit", "rgb_transparent", "palette",
        "palette_transparent", "palette_alpha", "rgba", "grey_alpha",
    ],
)  # fmt: skip
def test_every_kind_of_png(
    tmp_path: Path,
    picture: PIL.Image.Image,
    options: dict[str, Any],
    expected: list[tuple[int, int, int]],
):
    picture.save(tmp_path / "photo.png", **options)
    assert loaded(tmp_path / "photo.png") == expected


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bits_of_grey_keep_the_high_byte(tmp_path: Path, kind: str):
    levels = np.array([[0, 0x00FF, 0x0100, 0x1234, 0xFFFF]], np.uint16)
    PIL.Image.fromarray(levels).save(tmp_path / f"photo.{kind}")
    assert loaded(tmp_path / f"photo.{kind}") == grey(0, 0, 1, 0x12, 0xFF)


def test_a_transparent_level_of_16_bit_grey_is_white(tmp_path: Path):
    levels = PIL.Image.fromarray(np.array([[0, 0x1234, 0x2000]], np.uint16))
    levels.save(tmp_path / "photo.png", transparency=0x1234)
    assert loaded(tmp_path / "photo.png") == grey(0, 255, 0x20)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bits_of_colour_keep_the_high_byte(tmp_path: Path, kind: str):
    blue_green_red = np.array([[[0x0100, 0x1234, 0xFFFF], [0x8000, 0x00FF, 0x4321]]], np.uint16)
    cv2.imwrite(str(tmp_path / f"photo.{kind}"), blue_green_red)
    assert loaded(tmp_path / f"photo.{kind}") == [(0xFF, 0x12, 0x01), (0x43, 0x00, 0x80)]


def test_16_bits_of_colour_with_alpha_are_laid_on_white(tmp_path: Path):
    opaque, clear = [0, 0, 0xFFFF, 0xFFFF], [0, 0, 0xFFFF, 0]
    cv2.imwrite(str(tmp_path / "photo.png"), np.array([[opaque, clear]], np.uint16))
    assert loaded(tmp_path / "photo.png") == [RED, WHITE]


def test_alpha_of_webp_is_laid_on_white(tmp_path: Path):
    picture = row_of("RGBA", (*RED, 255), (*RED, 0))
    picture.save(tmp_path / "photo.webp", lossless=True, exact=True)
    assert loaded(tmp_path / "photo.webp") == [RED, WHITE]


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path):
    PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "photo.jpg", quality=100)
    pixels = load_image(tmp_path / "photo.jpg").pixels
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 3  # what JPEG rounds


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_puts_every_pixel_upright(tmp_path: Path, orientation: int):
    tag = PIL.Image.Exif()
    tag[ORIENTATION] = orientation
    stored = np.ascontiguousarray(stored_for(noise(), orientation))
    PIL.Image.fromarray(stored).save(tmp_path / "photo.png", exif=tag)
    assert np.array_equal(load_image(tmp_path / "photo.png").pixels, noise())
    with PIL.Image.open(tmp_path / "photo.png") as opened:
        assert np.array_equal(load_image(opened).pixels, noise())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_of_jpeg(tmp_path: Path, orientation: int):
    upright = np.zeros((16, 24, 3), np.uint8)  # whole blocks of one colour survive JPEG
    upright[:8, :8], upright[:8, 16:], upright[8:, :8] = RED, GREEN, BLUE
    tag = PIL.Image.Exif()
    tag[ORIENTATION] = orientation
    stored = PIL.Image.fromarray(np.ascontiguousarray(stored_for(upright, orientation)))
    stored.save(tmp_path / "photo.jpg", exif=tag, quality=100, subsampling=0)
    pixels = load_image(tmp_path / "photo.jpg").pixels
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= 3  # what JPEG rounds


@pytest.mark.parametrize(
    "entry",
    [(RESOLUTION, UNDEFINED, 4, b"abcd"), (273, 2, 4, b"abc\0")],
    ids=["resolution_of_bytes", "offset_of_letters"],
)
def test_a_damaged_exif_tag_does_not_hinder_the_rotation(
    tmp_path: Path, entry: tuple[int, int, int, bytes]
):
    block = exif((ORIENTATION, SHORT, 1, b"\0\6\0\0"), entry)
    PIL.Image.new("RGB", (24, 16), RED).save(tmp_path / "photo.jpg", exif=block)
    assert load_image(tmp_path / "photo.jpg").size == Size(height=24, width=16)


@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", exif((ORIENTATION, SHORT, 1, b"\0\x09\0\0"))]
)
def test_an_unreadable_exif_rotation_is_none(tmp_path: Path, block: bytes):
    PIL.Image.new("RGB", (24, 16), RED).save(tmp_path / "photo.jpg", exif=block)
    assert load_image(tmp_path / "photo.jpg").size == Size(height=16, width=24)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation(tmp_path: Path, kind: str):
    frames = [PIL.Image.new("RGB", (8, 6), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "webp" else {}
    path = tmp_path / f"photo.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
    with PIL.Image.open(path) as opened:
        assert opened.n_frames == 3
    pixels = load_image(path).pixels
    assert pixels.shape == (6, 8, 3)
    assert (pixels == RED).all()


def test_a_path_may_be_text_and_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    PIL.Image.fromarray(noise()).save(tmp_path / "photo.png")
    for path in (str(tmp_path / "photo.png"), "~/photo.png", Path("~/photo.png")):
        image = load_image(path)
        assert np.array_equal(image.pixels, noise())
        assert image.path == tmp_path / "photo.png"


def test_a_pil_image_is_a_photo_without_a_path():
    image = load_image(PIL.Image.fromarray(noise()), category="cat")
    assert np.array_equal(image.pixels, noise())
    assert (image.category, image.path) == ("cat", None)


def test_a_pil_image_stays_as_it_was():
    picture = row_of("RGBA", (*RED, 0))
    load_image(picture)
    assert picture.mode == "RGBA"
    assert picture.getpixel((0, 0)) == (*RED, 0)


def test_an_array_of_bytes_is_taken_as_it_is():
    for pixels in (noise(), noise()[:, ::-1], np.asfortranarray(noise())):
        image = load_image(pixels)
        assert np.array_equal(image.pixels, pixels)
        assert image.pixels.flags.c_contiguous


def test_an_image_does_not_change_with_the_array_it_came_from():
    frame = noise()
    image = load_image(frame)
    frame[:] = 0  # as a video reader does with its buffer
    assert np.array_equal(image.pixels, noise())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_rounded_to_bytes(dtype: type):
    pixels = np.array([[[0, 1, 0.5], [0.2, 0.25, 1e-4]]], dtype)  # 127.5 is rounded to even
    assert load_image(pixels).pixels.tolist() == [[[0, 255, 128], [51, 64, 0]]]


def test_an_image_passes_through_and_takes_a_category():
    image = Image(noise(), "cat", Path("cat.png"))
    assert load_image(image) is image
    renamed = load_image(image, category="dog")
    assert (renamed.category, renamed.path) == ("dog", Path("cat.png"))
    assert renamed.pixels is image.pixels
    assert image.category == "cat"


def test_the_category_of_a_file(tmp_path: Path):
    PIL.Image.fromarray(noise()).save(tmp_path / "photo.png")
    assert load_image(tmp_path / "photo.png", "cat").category == "cat"


def test_a_photo_of_one_pixel(tmp_path: Path):
    row_of("RGB", BLUE).save(tmp_path / "photo.png")
    assert loaded(tmp_path / "photo.png") == [BLUE]


def test_a_photo_read_in_the_background_leaves_the_warnings_of_others_alone(tmp_path: Path):
    """Filters are the whole process': a thread that changed them would swallow what it must not."""
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (8, 8)).save(path)
    filters = []
    real = PIL.Image.open

    def watched(*words):
        filters.append(list(warnings.filters))
        return real(*words)

    before = list(warnings.filters)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setattr(PIL.Image, "open", watched)
        thread.submit(load_image, path).result()
        load_image(path)
    assert filters[0] == before
    assert filters[1] != before  # in the foreground, Pillow is silenced
    assert list(warnings.filters) == before


def test_90_megapixels_load_without_a_warning(tmp_path: Path):
    side = 9500  # Pillow warns from 89.5 megapixels
    white = b"\0" + b"\xff" * -(-side // 8)  # filter byte, one bit a pixel
    (tmp_path / "photo.png").write_bytes(png(side, side, 1, white * side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load_image(tmp_path / "photo.png")
    assert image.size == Size(side, side)
    assert image.pixels[:: side - 1, :: side - 1].min() == 255


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("note.jpg", b"a note, no photo", r"note\.jpg is no photo .* expected JPEG, PNG"),
        ("empty.jpg", b"", r"empty\.jpg is empty \(0 bytes\); expected a photo"),
        ("bomb.png", png(50000, 50000, 8), r"bomb\.png has too many pixels .*2500000000 pixels"),
        ("flat.png", png(0, 5, 8), r"flat\.png"),
        ("headless.png", png(12, 12, 8), r"headless\.png is damaged and cannot be read"),
        ("float.tif", encoded(PIL.Image.new("F", (2, 2), 200), "TIFF"), "divide by 255"),
        ("nan.tif", encoded(PIL.Image.new("F", (2, 2), np.nan), "TIFF"), r"nan\.tif"),
        ("deep.tif", encoded(PIL.Image.new("I", (2, 2), 70000), "TIFF"), "expected 8 or 16 bits"),
    ],
    ids=["text", "empty", "bomb", "no_columns", "no_rows", "floats", "nan", "32_bits"],
)
def test_a_file_that_is_no_photo_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadImage, match=message):
        load_image(tmp_path / name)


@pytest.mark.parametrize(
    "kind",
    [
        "JPEG",
        "PNG",
        "WEBP",
        "TIFF",
        "BMP",
        "GIF",
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_truncated_file_is_called_damaged(tmp_path: Path, kind: str, share: float):
    whole = encoded(PIL.Image.fromarray(noise(64, 64)), kind)
    (tmp_path / "photo").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadImage, match="photo is damaged and cannot be read"):
        load_image(tmp_path / "photo")


def test_a_flipped_byte_is_called_damaged(tmp_path: Path):
    content = bytearray(encoded(PIL.Image.fromarray(noise()), "PNG"))
    content[45] ^= 0xFF  # in the compressed pixels
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(BadImage, match=r"photo\.png is damaged and cannot be read"):
        load_image(tmp_path / "photo.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_pil_image_is_called_damaged(kind: str):
    whole = encoded(PIL.Image.fromarray(noise(64, 64)), kind)
    opened = PIL.Image.open(io.BytesIO(whole[: len(whole) // 2]))  # reads no pixel yet
    with pytest.raises(BadImage, match="damaged"):
        load_image(opened)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(BadImage, match=r"no such file: .*photo\.png"):
        load_image(tmp_path / "photo.png")
    with pytest.raises(BadImage, match="is a folder; expected a photo"):
        load_image(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["long" * 100, "~surely-no-such-user/photo.png", "a\0b"],
    ids=["too_long", "no_such_user", "zero_byte"],
)
def test_a_path_that_cannot_be_is_refused(path: str):
    with pytest.raises(BadImage, match=path[:5]):
        load_image(path)


@pytest.mark.parametrize(
    "shape", [(4, 5), (4, 5, 1), (4, 5, 4), (3, 4, 5), (1, 4, 5, 3), (0, 5, 3), (4, 0, 3), (0,)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...], dtype: type):
    got = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(BadImage, match=rf"expected an array \(H, W, 3\), got {got}"):
        load_image(np.zeros(shape, dtype))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, complex, object])
def test_an_array_of_another_dtype_is_refused(dtype: type):
    expected = f"uint8, or of floats in 0..1, got {np.dtype(dtype).name}"
    with pytest.raises(BadImage, match=expected):
        load_image(np.zeros((4, 5, 3), dtype))


@pytest.mark.parametrize("value", [255, 1.001, -0.001])
def test_floats_outside_0_to_1_are_refused(value: float):
    pixels = np.full((4, 5, 3), 0.5)
    pixels[2, 3, 1] = value
    with pytest.raises(BadImage, match=r"floats outside 0\.\.1; divide by 255, or pass uint8"):
        load_image(pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_refused(value: float):
    pixels = np.full((4, 5, 3), 0.5)
    pixels[2, 3, 1] = value
    with pytest.raises(BadImage, match="holds NaN or infinity"):
        load_image(pixels)


@pytest.mark.parametrize(("highest", "shown"), [(200, 200), (60000, 234)])
def test_plain_integers_up_to_255_are_8_bits(highest: int, shown: int):
    photo = PIL.Image.fromarray(np.full((2, 2), highest, np.int32))
    assert photo.mode == "I"
    assert (load_image(photo).pixels == shown).all()


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_a_pil_image_without_pixels_is_refused(size: tuple[int, int]):
    with pytest.raises(BadImage, match=f"no pixels: {size[0]} x {size[1]}"):
        load_image(PIL.Image.new("RGB", size))


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (None, "NoneType"),
        (3, "int"),
        ([[0]], "list"),
        (b"a.png", "bytes"),
        (torch.ones(2), "Tensor"),
    ],
)
def test_other_things_are_refused_by_their_type(thing: Any, name: str):
    expected = rf"expected a path, a PIL image or an array \(H, W, 3\), got {name}"
    with pytest.raises(BadImage, match=expected):
        load_image(thing)


@pytest.mark.parametrize(
    ("photo_size", "size", "content", "corner"),
    [
        ((333, 500), 840, (559, 840), (0, 140)),  # 559.44; 281 rows of padding
        ((500, 333), 840, (840, 559), (140, 0)),
        ((313, 471), 840, (558, 840), (0, 141)),  # 558.22
        ((471, 313), 840, (840, 558), (141, 0)),
        ((480, 640), 840, (630, 840), (0, 105)),
        ((50, 50), 84, (84, 84), (0, 0)),
        ((1, 1), 84, (84, 84), (0, 0)),
        ((1, 1000), 840, (1, 840), (0, 419)),  # 0.84
        ((1000, 1), 840, (840, 1), (419, 0)),
        ((1, 1000), 84, (1, 84), (0, 41)),  # 0.084, but never nothing
        ((3, 8), 12, (4, 12), (0, 4)),  # 4.5, half to even
        ((5, 8), 12, (8, 12), (0, 2)),  # 7.5, half to even
        ((299, 624), 840, (402, 840), (0, 219)),  # 402.5, half to even
        ((201, 720), 840, (234, 840), (0, 303)),  # 234.5, half to even
        ((720, 201), 840, (840, 234), (303, 0)),
    ],
)
def test_letterbox_by_hand(
    photo_size: tuple[int, int], size: int, content: tuple[int, int], corner: tuple[int, int]
):
    image = Image(np.full((*photo_size, 3), 200, np.uint8))
    canvas = fit(image, size, "letterbox")
    assert canvas.image == photo_size
    assert canvas.content == content
    assert canvas.corner == corner
    (height, width), (x, y) = content, corner
    expected = np.zeros((size, size, 3), np.uint8)
    expected[y : y + height, x : x + width] = 200
    assert np.array_equal(canvas.pixels, expected)


def test_the_shorter_side_is_rounded_half_to_even_for_every_exact_half():
    size, wrong = 840, []
    halves = [
        (short, long)
        for long in (16, 48, 80, 336, 560, 624, 720, 1200)
        for short in range(1, long)
        if Fraction(size * short, long).denominator == 2
    ]
    for short, long in halves[::12]:  # a sample, as each is a resize
        content = fit(Image(np.zeros((short, long, 3), np.uint8)), size, "letterbox").content
        if content != (round(Fraction(size * short, long)), size):
            wrong.append((short, long, content))
    assert wrong == []


@pytest.mark.parametrize(
    ("how", "content", "canvas_size"),
    [("stretch", (84, 84), (84, 84)), ("resize", (56, 84), (56, 84))],
)
def test_stretch_and_resize_pad_nothing(
    how: Fit, content: tuple[int, int], canvas_size: tuple[int, int]
):
    wide = fit(Image(np.full((313, 471, 3), 200, np.uint8)), 84, how)
    tall = fit(Image(np.full((471, 313, 3), 200, np.uint8)), 84, how)
    assert (wide.content, tall.content) == (content, content[::-1])
    assert wide.corner == tall.corner == (0, 0)
    assert wide.pixels.shape == (*canvas_size, 3)
    assert tall.pixels.shape == (*canvas_size[::-1], 3)
    assert (wide.pixels == 200).all()


@pytest.mark.parametrize("how", ["letterbox", "stretch", "resize"])
@pytest.mark.parametrize("size", [210, 840])
def test_resampling_is_the_lanczos_of_pillow(photo: np.ndarray, how: Fit, size: int):
    height = size if how == "stretch" else round(size * 313 / 471)
    reference = PIL.Image.fromarray(photo).resize((size, height), PIL.Image.Resampling.LANCZOS)
    canvas = fit(Image(photo), size, how)
    top = (size - height) // 2 if how == "letterbox" else 0
    assert np.array_equal(canvas.pixels[top : top + height], np.asarray(reference))
    assert canvas.pixels.dtype == np.uint8


def test_fitting_to_its_own_size_changes_nothing():
    square = noise(21, 21)
    assert np.array_equal(fit(Image(square), 21, "letterbox").pixels, square)


@pytest.mark.parametrize(
    ("photo_size", "top_left", "bottom_right"),
    [
        # cells of 14: the canvas pixel of a photo's edge over 14, less half a cell
        ((333, 500), (-0.5, 140 / 14 - 0.5), (59.5, 699 / 14 - 0.5)),
        ((500, 333), (140 / 14 - 0.5, -0.5), (699 / 14 - 0.5, 59.5)),
        ((313, 471), (-0.5, 141 / 14 - 0.5), (59.5, 699 / 14 - 0.5)),
        ((471, 313), (141 / 14 - 0.5, -0.5), (699 / 14 - 0.5, 59.5)),
        ((500, 500), (-0.5, -0.5), (59.5, 59.5)),
        ((1, 1), (-0.5, -0.5), (59.5, 59.5)),
        ((1, 1000), (-0.5, 419 / 14 - 0.5), (59.5, 420 / 14 - 0.5)),
        ((1000, 1), (419 / 14 - 0.5, -0.5), (420 / 14 - 0.5, 59.5)),
    ],
)
def test_the_corners_of_a_letterboxed_photo_in_cells(
    photo_size: tuple[int, int], top_left: tuple[float, float], bottom_right: tuple[float, float]
):
    height, width = photo_size
    image = Image(np.zeros((height, width, 3), np.uint8))
    grid = fit(image, 840, "letterbox").grid(shape=(60, 60), cell=14)
    corners = [[-0.5, -0.5], [width - 0.5, height - 0.5]]
    cells = grid.to_cells(torch.tensor(corners, dtype=torch.float64))
    torch.testing.assert_close(cells, torch.tensor([top_left, bottom_right], dtype=torch.float64))
    assert grid.image == Size(height, width)
    assert grid.shape == (60, 60)


@pytest.mark.parametrize("photo_size", [(313, 471), (471, 313), (1, 1000), (1, 1)])
def test_a_stretched_photo_fills_its_grid(photo_size: tuple[int, int]):
    image = Image(np.zeros((*photo_size, 3), np.uint8))
    grid = fit(image, 84, "stretch").grid(shape=(6, 6), cell=14)
    assert grid.extent == pytest.approx(image.size.extent)
    assert grid.inside().all()


def test_canvas_pixels_and_photo_pixels_by_hand():
    # a photo 4 high and 8 wide, twice as large on a canvas of 16: rows 4 to 11
    canvas = Canvas(np.zeros((16, 16, 3), np.uint8), Size(4, 8), Size(8, 16), corner=(0, 4))
    grid = canvas.grid(shape=(4, 4), cell=4)
    assert grid.stride == (2.0, 2.0)
    assert grid.offset == (0.0, -2.0)
    assert grid.centers()[[4, 11]].tolist() == [[0.5, 0.5], [6.5, 2.5]]
    assert grid.inside().tolist() == [False] * 4 + [True] * 8 + [False] * 4


@pytest.mark.parametrize("how", ["letterbox", "stretch", "resize"])
@pytest.mark.parametrize("photo_size", [(313, 471), (471, 313)])
@pytest.mark.parametrize("size", [140, 560])
def test_a_shifted_spot_is_found_where_it_went(how: Fit, photo_size: tuple[int, int], size: int):
    height, width = photo_size
    rows, columns = np.mgrid[:height, :width]
    for x, y in ((150.0, 120.0), (157.0, 120.0), (157.0, 190.25)):
        blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 15.0**2))
        pixels = np.repeat(blob.round().astype(np.uint8)[..., None], 3, axis=2)
        canvas = fit(Image(pixels), size, how)
        weights = torch.tensor(canvas.pixels[..., 0].flatten(), dtype=torch.float64)
        places = canvas.grid(canvas.pixels.shape[:2], cell=1).centers()
        found = (weights[:, None] * places).sum(0) / weights.sum()
        # bytes are rounded alike on every side of the spot: a twentieth of a photo pixel
        assert found.tolist() == pytest.approx([x, y], abs=0.05)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_is_turned_once(tmp_path: Path, compression: str | None):
    photo = PIL.Image.new("RGB", (80, 40))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "a.tif", exif=exif, compression=compression)
    assert load_image(tmp_path / "a.tif").size == (80, 40)


def test_an_image_of_other_pixels_is_refused():
    with pytest.raises(BadImage, match=r"expected pixels \(H, W, 3\) of uint8, got \(4, 5\)"):
        Image(np.zeros((4, 5), np.uint8))
    with pytest.raises(BadImage, match="of float64"):
        Image(np.zeros((4, 5, 3)))


def test_a_pipe_is_no_photo(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadImage, match="is a pipe or a device"):
        load_image(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "\x1b[31m"])
def test_names_that_cannot_be_shown_are_refused(name: str):
    with pytest.raises(BadPoints, match="characters that cannot be shown"):
        read_points({name: [1, 1]}, Size(10, 10))


# -- sizes from headers ------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_in_the_header_is_that_of_the_upright_photo(
    tmp_path: Path, kind: str, orientation: int
):
    tag = PIL.Image.Exif()
    tag[ORIENTATION] = orientation
    stored = np.ascontiguousarray(stored_for(noise(), orientation))
    PIL.Image.fromarray(stored).save(tmp_path / "photo", kind, exif=tag)
    assert read_size(tmp_path / "photo") == Size(height=13, width=17)
    assert load_image(tmp_path / "photo").size == Size(height=13, width=17)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("size", [(17, 13), (13, 17), (1, 1)])
def test_the_size_of_a_photo_without_exif(tmp_path: Path, kind: str, size: tuple[int, int]):
    (tmp_path / "photo").write_bytes(encoded(PIL.Image.fromarray(noise(*size)), kind))
    assert read_size(tmp_path / "photo") == size
    assert isinstance(read_size(tmp_path / "photo"), Size)


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0garbage",
        exif((ORIENTATION, SHORT, 1, b"\0\x09\0\0")),
        exif((ORIENTATION, SHORT, 1, b"\0\6\0\0"), (RESOLUTION, UNDEFINED, 4, b"abcd")),
    ],
    ids=["garbage", "no_such_turn", "damaged_tag"],
)
def test_the_size_agrees_with_the_photo_where_exif_is_damaged(tmp_path: Path, block: bytes):
    PIL.Image.new("RGB", (24, 16), RED).save(tmp_path / "photo.jpg", exif=block)
    assert read_size(tmp_path / "photo.jpg") == load_image(tmp_path / "photo.jpg").size


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_truncated_jpeg_has_its_size(tmp_path: Path, orientation: int):
    tag = PIL.Image.Exif()
    tag[ORIENTATION] = orientation
    stored = PIL.Image.fromarray(np.ascontiguousarray(stored_for(noise(64, 80), orientation)))
    content = encoded(stored, "JPEG", exif=tag)
    (tmp_path / "photo.jpg").write_bytes(content[: len(content) // 2])
    assert read_size(tmp_path / "photo.jpg") == Size(height=64, width=80)
    with pytest.raises(BadImage, match="is damaged"):
        load_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file: .*photo\.jpg"),
        (b"", r"photo\.jpg is empty \(0 bytes\)"),
        (b"a note, no photo", r"photo\.jpg is no photo"),
        (png(50000, 50000, 8), r"photo\.jpg has too many pixels"),
    ],
    ids=["missing", "empty", "text", "bomb"],
)
def test_what_is_no_photo_has_no_size(tmp_path: Path, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(BadImage, match=message):
        read_size(tmp_path / "photo.jpg")


def test_a_folder_has_no_size(tmp_path: Path):
    with pytest.raises(BadImage, match="is a folder; expected a photo"):
        read_size(tmp_path)


@pytest.mark.parametrize(
    "points",
    [
        np.array([[2.0, 1.0], [4.0, 3.0]])[:, ::-1],  # (row, column) turned to (x, y)
        np.array([[3.0, 4.0], [1.0, 2.0]])[::-1],
        np.array([[1, 2], [3, 4]], ">i4"),
        np.array([[1, 2], [3, 4]], np.longdouble),
    ],
    ids=["columns", "rows", "big_endian", "long"],
)
def test_points_may_be_arrays_that_torch_does_not_take(points):
    assert read_points(points, Size(10, 10))[1].tolist() == [[1, 2], [3, 4]]


def test_points_are_a_copy_of_an_array():
    points = np.array([[1.0, 2.0]])
    _, read = read_points(points, Size(10, 10))
    points[:] = 9
    assert read.tolist() == [[1, 2]]
