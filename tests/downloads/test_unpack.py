"""What comes out of an archive stays in its folder; what would not is refused before all else."""

from __future__ import annotations

import errno
import gzip
import io
import stat
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sdcorr.downloads import Bounds, Quiet
from sdcorr.downloads._unpack import Contents, survey, unpack
from sdcorr.errors import BadDownload, BadOutput
from tests.downloads.archives import tar_member, tar_of, zip_member, zip_of

NOISE = np.random.default_rng(0).bytes(300_000)
FILES = {"set/a.txt": b"one", "set/deep/er/b.bin": NOISE, "set/c (G)/:d.json": b"{}"}


@pytest.fixture(params=["tar", "zip"])
def kind(request) -> str:
    return request.param


def archive_of(kind: str, files: dict[str, bytes]) -> bytes:
    members = files.items()
    return zip_of(*members) if kind == "zip" else tar_of(*(tar_member(*one) for one in members))


@pytest.fixture
def take(tmp_path):
    """Look an archive through and unpack it; what there is then, by path."""

    def _take(content: bytes, bounds: Bounds | None = None) -> dict[str, bytes]:
        name = "a.zip" if content[:2] == b"PK" else "a.tar.gz"
        archive, folder = tmp_path / name, tmp_path / "folder"
        archive.write_bytes(content)
        folder.mkdir()
        found = survey(archive, name, bounds or Bounds(), Quiet())
        unpack(archive, name, folder, bounds or Bounds(), Quiet())
        files = [path for path in folder.rglob("*") if not path.is_dir()]
        read = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        assert found == Contents(len(read), sum(map(len, read.values())))
        return read

    return _take


def refused(take, tmp_path: Path, content: bytes, problem: str, bounds: Bounds | None = None):
    """The archive is refused while it is looked through, and nothing is written."""
    with pytest.raises(BadDownload, match=problem):
        take(content, bounds)
    assert list((tmp_path / "folder").iterdir()) == []
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {"folder", "a.zip", "a.tar.gz"}


def test_files_come_out_as_they_went_in(take, kind):
    assert take(archive_of(kind, FILES)) == FILES


def test_what_macos_adds_is_left_out(take, kind):
    litter = {"__MACOSX/set/._a.txt": b"x", "set/.DS_Store": b"x", "set/._a.txt": b"x"}
    assert take(archive_of(kind, FILES | litter)) == FILES


def test_neither_modes_nor_owners_come_out(take, tmp_path):
    info, content = tar_member("a", b"#!", mode=0o6777)
    info.uid, info.gid = 12345, 12345
    take(tar_of((info, content)))
    found = (tmp_path / "folder" / "a").stat()
    assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)
    assert found.st_uid != 12345


def test_the_folder_itself_may_be_a_member(take):
    top = tar_member("./", kind=tarfile.DIRTYPE)
    assert take(tar_of(top, tar_member("./a/", kind=tarfile.DIRTYPE), tar_member("./a/b"))) == {
        "a/b": b""
    }


LEAVES = ["../a", "a/../../b", "/etc/a", "a/..", "C:/a", "C:a", "a/D:/b", "//host/a", ".."]


@pytest.mark.parametrize("name", LEAVES)
def test_paths_that_leave_the_folder_are_refused(take, tmp_path, kind, name):
    content = archive_of(kind, {"good": b"1", name: b"2"})
    refused(take, tmp_path, content, "does not stay in the folder")


def test_names_that_are_no_paths_are_refused(take, tmp_path, kind):
    refused(take, tmp_path, archive_of(kind, {"..\\a": b""}), "holds a backslash")


@pytest.mark.parametrize("name", ["x" * 256, "/".join(["x" * 100] * 12)])
def test_names_that_no_disk_takes_are_refused(take, tmp_path, kind, name):
    refused(take, tmp_path, archive_of(kind, {name: b""}), "is too long for a path")


def test_a_file_that_is_the_folder_is_refused(take, tmp_path, kind):
    refused(take, tmp_path, archive_of(kind, {".": b""}), "is the folder itself")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("link", ["/etc/passwd", "good", "../../x"])
def test_links_in_a_tar_are_refused_wherever_they_lead(take, tmp_path, kind, link):
    content = tar_of(tar_member("good", b"1"), tar_member("link", kind=kind, link=link))
    refused(take, tmp_path, content, "'link' is a link")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_devices_in_a_tar_are_refused(take, tmp_path, kind):
    """The last is of a type that nobody knows."""
    refused(take, tmp_path, tar_of(tar_member("a", kind=kind)), "neither a file nor a folder")


def test_links_in_a_zip_are_refused(take, tmp_path):
    content = zip_of(zip_member("link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777))
    refused(take, tmp_path, content, "'link' is a link")


@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_devices_in_a_zip_are_refused(take, tmp_path, mode):
    refused(take, tmp_path, zip_of(zip_member("a", mode=mode)), "neither a file nor a folder")


def test_encrypted_zips_are_refused(take, tmp_path):
    content = bytearray(zip_of(("a", b"secret")))
    central = content.index(b"PK\x01\x02")
    content[6] |= 1
    content[central + 8] |= 1
    refused(take, tmp_path, bytes(content), "'a' is encrypted")


TWICE = [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"), ("b//a", "b/a")]


@pytest.mark.parametrize("names", TWICE)
def test_what_stands_in_it_twice_is_refused(take, tmp_path, kind, names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of such names
        members = [(name, b"1") for name in names]
        both = zip_of(*members) if kind == "zip" else tar_of(*(tar_member(*m) for m in members))
    refused(take, tmp_path, both, "stands in it twice")


def test_a_folder_may_be_named_twice(take):
    folder = tar_member("a", kind=tarfile.DIRTYPE)
    other = tar_member("a", kind=tarfile.DIRTYPE)
    assert take(tar_of(folder, tar_member("a/b"), other)) == {"a/b": b""}


def test_bounds_hold_over_all_members(take, tmp_path, kind):
    """Three files of 1000 bytes: 3000 may be, 2999 may not; nor may 2 members."""
    content = archive_of(kind, {name: bytes(1000) for name in "abc"})
    with pytest.raises(BadDownload, match=r"holds more than 3\.0 kB"):
        take(content, Bounds(size=2999))
    (tmp_path / "folder").rmdir()
    with pytest.raises(BadDownload, match="holds more than 2 members"):
        take(content, Bounds(members=2))
    (tmp_path / "folder").rmdir()
    assert len(take(content, Bounds(size=3000, members=3))) == 3


def test_a_bomb_is_refused_before_it_is_read(take, tmp_path, kind, monkeypatch):
    """50 MB of zeros in 50 kB, over a bound of 1 MB: its header is enough."""
    content = archive_of(kind, {"a": bytes(50_000_000)})
    monkeypatch.setattr("sdcorr.downloads._members._chunks", None)  # nothing reads it
    refused(take, tmp_path, content, "holds more than", Bounds(size=1_000_000))


def test_a_zip_that_lies_about_sizes_is_refused(take, tmp_path):
    """2 MB that call themselves 10 bytes, in both headers."""
    content = bytearray(zip_of(("a", bytes(2_000_000))))
    central = content.index(b"PK\x01\x02")
    for place in (22, central + 24):
        content[place : place + 4] = (10).to_bytes(4, "little")
    refused(take, tmp_path, bytes(content), "damaged", Bounds(size=1_000_000))


def test_what_goes_on_behind_a_tar_is_refused(take, tmp_path):
    """A tar of one file, and 20 MB of zeros after its end."""
    tar = gzip.decompress(tar_of(tar_member("a")))
    content = gzip.compress(tar + bytes(20_000_000))
    refused(take, tmp_path, content, "it goes on behind its end")


def test_a_header_that_would_fill_the_memory_is_refused(take, tmp_path):
    """A pax header of 100 MB, in 100 kB."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 100_000_000
    content = gzip.compress(info.tobuf() + bytes(info.size))
    refused(take, tmp_path, content, "a header in it is too long")


def test_headers_for_all_members_are_not_kept(take):
    """20 headers of 400 kB, one before each member, never stand in memory together."""
    members = [
        pax("g", f"k{number}", "a" * 400_000) + block(f"{number}", tarfile.REGTYPE)
        for number in range(20)
    ]
    content = gzip.compress(b"".join(members) + bytes(1024))
    with little_memory():
        assert len(take(content)) == 20


@pytest.mark.parametrize("kind", ["g", "x"])
def test_headers_upon_headers_are_refused(take, tmp_path, kind):
    """Five of 1 MB before a member: tarfile would hold all of them, and as many as there are."""
    headers = b"".join(pax(kind, f"k{number}", "a" * 1_000_000) for number in range(5))
    first, second = (block(name, tarfile.REGTYPE) for name in "ab")
    content = gzip.compress(first + headers + second + bytes(1024))
    refused(take, tmp_path, content, "a header in it is too long")


def test_a_header_of_negative_size_is_refused(take, tmp_path):
    """tarfile would read all that follows, at once."""
    content = gzip.compress(block("x", tarfile.XHDTYPE, -512) + bytes(10_000_000))
    with little_memory():
        refused(take, tmp_path, content, "damaged")


@pytest.mark.parametrize("key", ["path", "size", "GNU.sparse.name"])
def test_a_header_that_names_all_members_alike_is_refused(take, tmp_path, key):
    content = gzip.compress(pax("g", key, "1") + block("a", tarfile.REGTYPE) + bytes(1024))
    refused(take, tmp_path, content, f"a header in it sets '{key}' for all members")


def test_a_header_that_says_where_the_tar_is_from_is_none_of_our_business(take):
    """As git archive writes it."""
    content = pax("g", "comment", "0123abcd") + block("a", tarfile.REGTYPE) + bytes(1024)
    assert take(gzip.compress(content)) == {"a": b""}


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail where the block takes more than 6 MB at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()


def block(name: str, kind: bytes, size: int = 0) -> bytes:
    """The header of a member, alone."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)  # which also has room for a size below 0


def pax(kind: str, key: str, value: str) -> bytes:
    """A pax header with one record: ``LENGTH key=value``, the length with its own digits."""
    tail = f" {key}={value}\n"
    length = next(n for n in range(len(tail), len(tail) + 9) if n == len(f"{n}{tail}"))
    record = f"{length}{tail}".encode()
    return block("pax", kind.encode(), len(record)) + record + bytes(-len(record) % 512)


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.999])
def test_cut_archives_are_refused(take, tmp_path, kind, keep):
    content = archive_of(kind, FILES)
    problem = "it ends in the middle" if kind == "zip" else "is damaged"
    refused(take, tmp_path, content[: int(len(content) * keep)], problem)


@pytest.mark.parametrize("blocks", range(1, 8))
def test_a_tar_cut_before_it_was_compressed_is_refused(take, tmp_path, blocks):
    """Four members of no or one block each: cut between blocks, also right before a header."""
    members = [tar_member(name, name.encode()) for name in ("a", "b", "c", "d")]
    tar = gzip.decompress(tar_of(*members))
    refused(take, tmp_path, gzip.compress(tar[: 512 * blocks]), "damaged")


def test_a_torn_header_in_the_middle_is_refused(take, tmp_path):
    """tarfile alone takes it for the end, and would give one file of two."""
    tar = bytearray(gzip.decompress(tar_of(tar_member("a", b"1"), tar_member("b", b"2"))))
    tar[1024 + 5] ^= 1  # in the name of the second
    refused(take, tmp_path, gzip.compress(bytes(tar)), "it ends in the middle")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_wrong_bit_is_found(take, tmp_path, kind, place):
    content = bytearray(archive_of(kind, {"a": NOISE}))
    content[int(len(content) * place)] ^= 4
    refused(take, tmp_path, bytes(content), "damaged")


def test_garbage_is_refused(take, tmp_path):
    refused(take, tmp_path, b"\x1f\x8b" + NOISE[:500], "damaged")
    (tmp_path / "folder").rmdir()
    refused(take, tmp_path, b"PK\x03\x04" + NOISE[:500], "damaged")
    (tmp_path / "folder").rmdir()
    refused(take, tmp_path, gzip.compress(NOISE[:5000]), "damaged")


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(BadDownload, match=r"cannot read a\.zip: No such file"):
        survey(tmp_path / "a.zip", "a.zip", Bounds(), Quiet())


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    """The third write finds the disk full."""
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of(*((name, b"1") for name in "abcd")))
    monkeypatch.setattr(Path, "open", _until_full(Path.open, 2))
    with pytest.raises(BadOutput, match=r"cannot write .*c: No space left on device; nothing was"):
        unpack(archive, "a.zip", tmp_path, Bounds(), Quiet())


def _until_full(real, files: int):
    """Path.open of a disk that takes so many new files."""

    class Full(io.RawIOBase):
        def write(self, _bytes: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    written: list[Path] = []

    def opened(self: Path, mode: str = "r", **rest):
        if mode != "xb":
            return real(self, mode, **rest)
        written.append(self)
        return real(self, mode, **rest) if len(written) <= files else Full()

    return opened


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_files_of_other_methods_are_refused(take, tmp_path, method):
    """One read of such a member may give any number of bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("s", NOISE, zipfile.ZIP_STORED)
        archive.writestr("b", NOISE, method)
    problem = rf"'b' is packed by method {method}, where 0 \(stored\) or 8 \(deflate\) was"
    refused(take, tmp_path, packed.getvalue(), problem)


def test_stored_and_deflated_files_come_out(take):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("s", NOISE, zipfile.ZIP_STORED)
        archive.writestr("d", NOISE, zipfile.ZIP_DEFLATED)
    assert take(packed.getvalue()) == {"s": NOISE, "d": NOISE}
