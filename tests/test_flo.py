from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from sdcorr.errors import BadAnnotations, BadOutput
from sdcorr.flo import read_flo, write_flo

SHAPES = [(1, 1), (1, 7), (7, 1), (13, 5)]


def some_flow(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    flow = (100 * random.standard_normal((height, width, 2))).astype(np.float32)
    return flow, random.random((height, width)) < 0.7


def file_of(folder: Path, data: bytes) -> Path:
    path = folder / "some.flo"
    path.write_bytes(data)
    return path


def test_the_bytes_by_hand(tmp_path):
    """A photo 2 high, 3 wide; the second pixel of the first row is unknown."""
    flow = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    valid = np.array([[True, False, True], [True, True, True]])
    write_flo(tmp_path / "a.flo", flow, valid)
    values = [0, 1, 1e10, 1e10, 4, 5, 6, 7, 8, 9, 10, 11]
    expected = b"PIEH" + struct.pack("<ii", 3, 2) + struct.pack("<12f", *values)
    assert (tmp_path / "a.flo").read_bytes() == expected
    assert sorted(os.listdir(tmp_path)) == ["a.flo"]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_written_is_read(tmp_path, shape):
    flow, valid = some_flow(*shape)
    flow[~valid] = np.nan  # of what is unknown, the numbers do not count
    write_flo(tmp_path / "a.flo", flow, valid)
    read, known = read_flo(tmp_path / "a.flo")
    assert (read.dtype, known.dtype) == (np.float32, np.bool_)
    assert np.array_equal(known, valid)
    assert np.array_equal(read, flow, equal_nan=True)
    read[:] = 0  # the reader's own


def test_an_array_of_any_layout_is_written(tmp_path):
    """As one made by exchanging axes, or a part of another."""
    flow, valid = some_flow(6, 8)
    other = np.asfortranarray(flow)[::-1, ::2]
    write_flo(tmp_path / "a.flo", other, valid[::-1, ::2])
    read, _ = read_flo(tmp_path / "a.flo")
    assert np.array_equal(read[valid[::-1, ::2]], other[valid[::-1, ::2]])


@pytest.mark.parametrize("value", [1e9, -2e9, np.inf, np.nan])
def test_one_unknown_number_makes_a_pixel_unknown(tmp_path, value):
    data = b"PIEH" + struct.pack("<ii4f", 2, 1, 3.0, value, 999999936.0, -4.0)
    flow, valid = read_flo(file_of(tmp_path, data))
    assert valid.tolist() == [[False, True]]
    assert np.isnan(flow[0, 0]).all()
    assert flow[0, 1].tolist() == [999999936.0, -4.0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds 0 bytes; expected a .flo file"),
        (b"PIEH\1\0\0\0", "holds 8 bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is no .flo file: expected the number 202021.25"),
        (b"\0\0\xc0\x7f" + bytes(40), "at its start, got none"),
        (b"HEIP" + bytes(40), "is no .flo file"),  # of the other byte order
        (b"PIEH" + struct.pack("<ii", 0, 4), "calls itself 4 x 0 "),
        (b"PIEH" + struct.pack("<ii", 3, -4) + bytes(96), "calls itself -4 x 3 "),
        (b"PIEH" + struct.pack("<ii", 2**31 - 1, 2**31 - 1), "calls itself 2147483647 x"),
        (b"PIEH" + struct.pack("<ii", 16000, 16000), "is cut short: expected 2048000012 bytes"),
        (b"PIEH" + struct.pack("<ii", 2, 2) + bytes(31), "expected 44 bytes .*, got 43"),
        (b"PIEH" + struct.pack("<ii", 2, 2) + bytes(33), "is longer than it says"),
    ],
)
def test_damage_in_one_sentence(tmp_path, data, message):
    with pytest.raises(BadAnnotations, match=message) as caught:
        read_flo(file_of(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_a_header_that_lies_costs_no_memory(tmp_path, monkeypatch):
    """Nothing is asked for beyond the twelve bytes of the header."""
    path = file_of(tmp_path, b"PIEH" + struct.pack("<ii", 16000, 16000))
    asked = []
    unpatched = Path.open

    def opened(self, *arguments):
        file = unpatched(self, *arguments)

        class Watched:
            __enter__ = lambda _: Watched()  # noqa: E731
            __exit__ = lambda *_: file.close()  # noqa: E731
            fileno = file.fileno

            def read(self, count):
                asked.append(count)
                return file.read(count)

        return Watched()

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(BadAnnotations, match="cut short"):
        read_flo(path)
    assert asked == [12]


def test_what_is_no_file(tmp_path):
    with pytest.raises(BadAnnotations, match=r"cannot read .*No such file"):
        read_flo(tmp_path / "none.flo")
    with pytest.raises(BadAnnotations, match="is a folder, a pipe or a device"):
        read_flo(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadAnnotations, match="is a folder, a pipe or a device"):
        read_flo(tmp_path / "pipe")


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    flow, valid = some_flow(5, 4)
    (tmp_path / "a.flo").write_bytes(b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdcorr.flo.HEAD", type("Head", (), {"pack": full}))
    with pytest.raises(BadOutput, match="No space left on device"):
        write_flo(tmp_path / "a.flo", flow, valid)
    assert (tmp_path / "a.flo").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.flo"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_what_is_called_valid_can_be_written(tmp_path, value):
    flow = np.full((1, 2, 2), 1, np.float32)
    flow[0, 1, 0] = value
    with pytest.raises(ValueError, match="not finite, or not below"):
        write_flo(tmp_path / "a.flo", flow, np.array([[False, True]]))
    with pytest.raises(ValueError, match="expected flow"):
        write_flo(tmp_path / "a.flo", flow, np.array([[True], [False]]))
    with pytest.raises(ValueError, match="expected flow"):
        write_flo(tmp_path / "a.flo", flow[:0], np.zeros((0, 2), bool))
    assert not os.listdir(tmp_path)
