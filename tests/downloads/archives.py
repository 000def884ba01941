"""Archives for tests: of folders, and such as no honest program makes."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A .tar.gz with these members in this order."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def tar_member(
    name: str,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
) -> tuple[tarfile.TarInfo, bytes]:
    """One member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info, content


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """A .zip with these members in this order."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return packed.getvalue()


def zip_member(name: str, content: bytes = b"", mode: int = 0) -> tuple[zipfile.ZipInfo, bytes]:
    """One member with the mode of a Unix file."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info, content


def pack(folder: Path, name: str, extra: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """A folder as the archive of this name has it, with the folder itself on top.

    Args:
        folder: packed with all it holds.
        name: its ending says how.
        extra: further members.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [(path.relative_to(folder.parent).as_posix(), path.read_bytes()) for path in files]
    members = [*found, *extra]
    if name.endswith(".zip"):
        return zip_of((f"{folder.name}/", b""), *members)
    top = tar_member(folder.name, kind=tarfile.DIRTYPE, mode=0o755)
    return tar_of(top, *(tar_member(*member) for member in members))
