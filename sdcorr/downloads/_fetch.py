"""Fetch a file over HTTP, as often as it takes, each time from where the last time ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn

import httpx2

from sdcorr.downloads._catalogue import Remote
from sdcorr.downloads._content import HEAD, problem_of
from sdcorr.downloads._part import Part, Version, in_words, mark_of
from sdcorr.downloads._watch import Watch
from sdcorr.downloads._web import ask, open_client
from sdcorr.errors import BadDownload

_LENGTH = re.compile("[0-9]{1,18}")  # more digits are of no file
_RANGE = re.compile("bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")
_AGAIN = (408, 425, 429)  # and all from 500: the server asks for patience


@dataclass(frozen=True)
class Patience:
    """How long is waited, and how often begun again.

    Args:
        tries: in a row that bring no byte that was not here before.
        pause: seconds before the second try; each further pause in a row is twice as long.
        timeout: seconds of silence, also while connecting, after which a try ends.
        sleep: what waits.
    """

    tries: int = 5
    pause: float = 0.5
    timeout: float = 30.0
    sleep: Callable[[float], None] = time.sleep


class _Broken(Exception):
    """A try that came to nothing, where another one may."""


def fetch(remote: Remote, part: Part, most: int, patience: Patience, watch: Watch) -> None:
    """Bring a part up to the whole file.

    Args:
        remote: what is fetched.
        part: what there is of it; goes on where it ended if the server still has that version.
        most: bytes that it may have.
        patience: with the server.
        watch: is told of bytes and of broken tries.

    Raises:
        BadDownload: no connection, no such file, a web page or something else in its place, or a
            server that breaks off again and again. What came stays for the next time.
        BadOutput: the disk is full; likewise.
    """
    before, row = part.size if part.version(remote.url) else 0, 0
    with open_client(patience.timeout) as client:
        job = _Try(client, remote, part, most, watch)
        while True:
            try:
                job.run()
                return
            except _Broken as error:
                reason = str(error)
            row = 0 if part.size > before else row + 1
            before = max(before, part.size)
            if row >= patience.tries:
                break
            pause = patience.pause * 2 ** max(0, row - 1)
            watch.say(f"{remote.name}: {reason}; trying again in {pause:g} s")
            patience.sleep(pause)
    if part.size:
        raise BadDownload(
            f"cannot fetch {remote.url}: {reason}; what came is kept: give the same command again "
            f"and it goes on, or fetch it by other means and put it at {part.final}"
        )
    raise BadDownload(
        f"cannot fetch {remote.url}: {reason}; fetch it by other means, put it at {part.final}, "
        "and give the same command again"
    )


@dataclass(frozen=True)
class _Try:
    """One request for what is missing of a file, and what its answer brings; see ``fetch``."""

    client: httpx2.Client
    remote: Remote
    part: Part
    most: int
    watch: Watch

    def run(self) -> None:
        """Bring the part up to the whole file, or raise _Broken."""
        version = self.part.version(self.remote.url)
        if version and version.total == self.part.size:
            return
        headers = {"Accept-Encoding": "identity"}  # the file as it is, or lengths mean nothing
        if version:
            headers["Range"] = f"bytes={self.part.size}-"
            if version.mark:
                headers["If-Range"] = version.mark
        try:
            with closing(self._ask(headers)) as answer:
                self._take(answer, version)
        except httpx2.TimeoutException as error:
            raise _Broken("no answer for too long") from error
        except httpx2.RequestError as error:
            kind = "no connection" if isinstance(error, httpx2.ConnectError) else "broken off"
            raise _Broken(f"{kind} ({error or type(error).__name__})") from error

    def _ask(self, headers: dict[str, str]) -> httpx2.Response:
        try:
            return ask(self.client, self.remote.url, headers)
        except ValueError as error:
            self._refuse(str(error))

    def _take(self, answer: httpx2.Response, version: Version | None) -> None:
        """Add what an answer brings to the part."""
        code = answer.status_code
        if code in _AGAIN or code >= 500:
            raise _Broken(f"the server answers {code} {answer.reason_phrase}")
        if code == 416 and version:  # less is there than was here
            self.part.drop()
            raise _Broken("the file became shorter")
        if code == 206 and version:
            total: int | None = self._goes_on(answer, version)
            chunks: Iterator[bytes] = answer.iter_raw()
        elif code == 200:
            now = _version_of(answer, self.remote.url)
            total, chunks = now.total, self._checked(answer, now)
        else:
            self._refuse(f"answers {code} {answer.reason_phrase}")
        self._check_size(total)
        for chunk in chunks:
            self._append(chunk, total)
        if total is not None and self.part.size != total:
            raise _Broken(f"{self.part.size} bytes came, {total} were promised")

    def _append(self, chunk: bytes, total: int | None) -> None:
        """Add bytes, unless they are more than was promised or may be."""
        size = self.part.size + len(chunk)
        if total is not None and size > total:
            self.part.drop()
            raise _Broken(f"more bytes came than the {total} that were promised")
        self._check_size(size)
        self.part.append(chunk)
        self.watch(self.remote.name, size, total)

    def _check_size(self, size: int | None) -> None:
        if size is not None and size > self.most:
            self.part.drop()
            self._refuse(f"has more than {in_words(self.most)}, the most that is taken")

    def _checked(self, answer: httpx2.Response, now: Version) -> Iterator[bytes]:
        """Chunks of a file from its beginning; nothing is begun before they look right."""
        head, chunks = b"", answer.iter_raw()
        for chunk in chunks:
            head += chunk
            if len(head) >= HEAD:
                break
        if now.total and not head:
            raise _Broken("nothing came")
        problem = problem_of(head, self.remote.name)
        if answer.headers.get("content-type", "").startswith("text/html") and problem:
            problem = "a web page"
        if problem:
            self._refuse(f"answers with what is {problem}, where {self.remote.name} was expected")
        self.part.begin(now)
        yield head
        yield from chunks

    def _goes_on(self, answer: httpx2.Response, version: Version) -> int:
        """Bytes of the whole file, of an answer that brings the rest of it."""
        now = _version_of(answer, version.url)
        found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        start, total = map(int, found.groups()) if found else (-1, -1)
        known = (version.etag, version.modified, version.total)
        fresh = (now.etag, now.modified, total)
        differs = any(old and new and old != new for old, new in zip(known, fresh, strict=True))
        if start != self.part.size or differs:
            self.part.drop()
            raise _Broken("the file changed or its rest did not come: it is begun anew")
        self.part.check_room(total - start)
        return total

    def _refuse(self, problem: str) -> NoReturn:
        """Raise BadDownload for what no further try would mend."""
        raise BadDownload(
            f"{self.remote.url} {problem}; open the address in a browser, save the file as "
            f"{self.part.final}, and give the same command again, or name a mirror with --url"
        )


def _version_of(answer: httpx2.Response, url: str) -> Version:
    etag = mark_of(answer.headers.get("etag"))
    length = answer.headers.get("content-length", "")
    return Version(
        url,
        etag=None if etag is None or etag.startswith("W/") else etag,
        modified=mark_of(answer.headers.get("last-modified")),
        total=int(length) if _LENGTH.fullmatch(length) else None,
    )
