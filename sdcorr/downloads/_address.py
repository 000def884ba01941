"""Which addresses of the web are taken, and where a redirect leads."""

from __future__ import annotations

import re
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx2

_SCHEMES = ("http", "https")
_VISIBLE = re.compile("[!-~]+")
_LABEL = re.compile("[A-Za-z0-9_-]{1,63}")  # RFC 1035, 2.3.4
_USER = re.compile("[^/?#]*@")


def check_address(url: str) -> None:
    """Raise ValueError, with what to tell the user, for an address that is not taken."""
    if not _VISIBLE.fullmatch(url):
        raise ValueError(
            f"expected an address in visible ASCII, all else as %20 and the like, got {shown(url)}"
        )
    try:
        parts = urlsplit(url)
        host, is_known = parts.hostname or "", bool(httpx2.URL(url).host) and parts.port != 0
    except (httpx2.InvalidURL, ValueError):  # of IPv6, IDNA, the port
        host, is_known = "", False
    if url.partition(":")[0].lower() not in _SCHEMES:
        raise ValueError(
            f"expected an address that begins with http:// or https://, got {shown(url)}"
        )
    if _USER.match(url.partition("//")[2]):
        raise ValueError(
            "expected an address without a name and a password, as it is shown and stored, got "
            f"{shown(url)}"
        )
    if not (is_known and _is_host(host)):
        raise ValueError(f"expected an address with a host and maybe a port, got {shown(url)}")


def shown(url: str) -> str:
    """An address as a message quotes it: short, without a password.

    Example:
        >>> shown("ftp://me:word@example.org/a.zip")
        "'ftp://...@example.org/a.zip'"
    """
    return repr(_USER.sub("...@", url[:2000])[:200])


def leads_to(url: str, place: str) -> str:
    """The address to which a redirect of ``url`` leads; ValueError where none may be followed.

    Args:
        url: that was asked.
        place: its Location, which may be relative.

    Example:
        >>> leads_to("https://example.org/a/b", "../c#d")
        'https://example.org/c'
    """
    try:
        target = urldefrag(urljoin(url, place)).url if _VISIBLE.fullmatch(place) else place
    except ValueError:  # brackets that are no IPv6
        target = place
    try:
        check_address(target)
    except ValueError as error:
        raise ValueError(f"redirects elsewhere: {error}") from error
    if urlsplit(url).scheme == "https" != urlsplit(target).scheme:
        raise ValueError(f"redirects from https to http ({shown(target)})")
    return target


def _is_host(name: str) -> bool:
    """Whether it is IPv6, which httpx2 has looked at, or each label is one that sockets take."""
    labels = name.removesuffix(".").split(".")
    return ":" in name or (len(name) < 254 and all(map(_LABEL.fullmatch, labels)))
