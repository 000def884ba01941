"""Ask over HTTP for a file, and follow redirects to it without reading what they say."""

from __future__ import annotations

from collections.abc import Mapping

# httpx2 comes with huggingface_hub. Beside urllib it has one time limit for connecting and for
# each silence, tells broken transfers from short ones, takes the system's certificates, and
# honours HTTPS_PROXY, NO_PROXY and the like.
import httpx2

from sdcorr.downloads._address import leads_to
from sdcorr.errors import BadDownload

_HOPS = 10  # redirects in a row


class _Moved(Exception):
    """An answer that only says where the file is."""


def open_client(timeout: float) -> httpx2.Client:
    """A client for ``ask``.

    Args:
        timeout: seconds of silence, also while connecting.

    Raises:
        BadDownload: the environment names a proxy that cannot be used.
    """
    try:
        return httpx2.Client(
            timeout=httpx2.Timeout(timeout), event_hooks={"response": [_stop_where_moved]}
        )
    except (ImportError, ValueError) as error:  # SOCKS without its package; no address
        raise BadDownload(
            f"the proxy that the environment names cannot be used: {error}; change or unset "
            "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
        ) from error


def ask(client: httpx2.Client, url: str, headers: Mapping[str, str]) -> httpx2.Response:
    """The answer at the end of all redirects, its body not read yet; to be closed.

    Raises:
        ValueError: a redirect that may not be followed.
        httpx2.RequestError: no answer.
    """
    for _ in range(_HOPS + 1):
        request = client.build_request("GET", url, headers=headers)
        try:
            return client.send(request, stream=True)
        except _Moved as moved:
            url = leads_to(url, str(moved))
    raise ValueError(f"redirects more than {_HOPS} times")


def _stop_where_moved(answer: httpx2.Response) -> None:
    """Raise _Moved for a redirect, upon which it is closed.

    httpx2 reads the bodies of redirects that it follows into memory, whatever their size, and
    looks into Location before it hands out one that it does not follow.
    """
    if answer.has_redirect_location:
        raise _Moved(answer.headers["location"])
