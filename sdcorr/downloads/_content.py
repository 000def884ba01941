"""What a file holds by its first bytes: an archive, a list, or a web page in their place."""

from __future__ import annotations

from pathlib import Path

HEAD = 512  # bytes that tell
_BOM = b"\xef\xbb\xbf"
_LISTS = (b"source_image,target_image,class", b"imageA,imageB")  # of PF-PASCAL, PF-WILLOW
_ARCHIVES = {".gz": (b"\x1f\x8b",), ".zip": (b"PK\x03\x04", b"PK\x05\x06")}


def is_page(head: bytes) -> bool:
    """Whether a file that begins so is HTML, as servers send where they mean no."""
    return head.removeprefix(_BOM).lstrip()[:1] == b"<"


def problem_of(head: bytes, name: str) -> str | None:
    """What is wrong with the file of this name that begins so, or None.

    Example:
        >>> problem_of(b"PK", "a.tar.gz")
        "no .gz archive (it begins with b'PK')"
    """
    if is_page(head):
        return "a web page"
    if not head:
        return "empty"
    ending = Path(name).suffix
    if ending in _ARCHIVES:
        if not head.startswith(_ARCHIVES[ending]):
            return f"no {ending} archive (it begins with {head[:8]!r})"
    elif not head.removeprefix(_BOM).startswith(_LISTS):
        known = " or ".join(line.decode() for line in _LISTS)
        return f"no list of pairs (it begins with {head[:8]!r}, and lists begin with {known})"
    return None


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)
