"""Downloads of published archives: verified, resumed, with a progress bar, and given up soon where that is hopeless."""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import IO, Final

import click
import httpx

from devcluster.errors import DevClusterError
from devcluster.progress import HEARTBEAT_SECONDS, Progress

_REACH_SECONDS: Final = 5.0
"""For how long a host may be silent, at the start or in between."""
_DOWNLOAD_SECONDS: Final = 240.0
"""A download that takes longer is not worth waiting for: the build takes about as long."""
_ATTEMPTS: Final = 4
_MEGABYTE: Final = 1_000_000


class DownloadFailed(DevClusterError):
    """An archive cannot be had; the message says why."""


class OutOfReach(DownloadFailed):
    """Its host does not answer."""


@dataclass(frozen=True)
class Archive:
    """A published archive of programs.

    Args:
        url: Where it is.
        digest: What it has to hash to: ``sha256:`` or ``sha512:`` and hexadecimal digits.
    """

    url: str
    digest: str

    @property
    def name(self) -> str:
        """The last part of its URL."""
        return self.url.rpartition("/")[2]


def download(archive: Archive, file: Path, *, progress: Progress) -> None:
    """Download an archive and verify it; what was cut off is resumed.

    Args:
        archive: Which one.
        file: Where it is written.
        progress: Takes a line now and then where there is no terminal for a progress bar.

    Raises:
        OutOfReach: Its host does not answer within seconds.
        DownloadFailed: Its host refuses, stalls again and again or is too slow, or the content is not what was pinned.
    """
    _reach(archive)
    deadline = time.monotonic() + _DOWNLOAD_SECONDS
    failure: Exception | None = None
    with _client(archive) as client, file.open("w+b") as target:
        for _ in range(_ATTEMPTS):
            try:
                _receive(client, archive, target, deadline, progress)
                break
            except httpx.HTTPStatusError as error:
                failure = DownloadFailed(f"HTTP {error.response.status_code}")
                if not error.response.is_server_error:
                    raise DownloadFailed(f"{archive.url}: {failure}") from error
            except (httpx.HTTPError, OSError) as error:
                failure = error
        else:
            raise DownloadFailed(f"{archive.url}: {failure or 'cut off'}, {_ATTEMPTS} times") from failure
        _verify(archive, target)


def _client(archive: Archive) -> httpx.Client:
    """Return a client that follows redirects, as releases on GitHub need, as long as they keep TLS."""

    def refuse_plain_text(request: httpx.Request) -> None:
        if archive.url.startswith("https:") and request.url.scheme != "https":
            raise DownloadFailed(f"{archive.url} redirects to {request.url}, without TLS")

    hooks = {"request": [refuse_plain_text]}
    return httpx.Client(follow_redirects=True, timeout=_REACH_SECONDS, event_hooks=hooks)


def _reach(archive: Archive) -> None:
    """Ask the host for the archive's headers, in a thread, since the resolution of a name knows no timeout.

    Raises:
        OutOfReach: It does not answer in time.
        DownloadFailed: It redirects to an address without TLS.
    """
    answers: list[Exception | None] = []

    def ask() -> None:
        try:
            with _client(archive) as client:
                client.head(archive.url)
            answers.append(None)
        except (httpx.HTTPError, OSError, DownloadFailed) as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    failure = answers[0] if answers else TimeoutError(f"no answer within {_REACH_SECONDS:g} s")
    if isinstance(failure, DownloadFailed):
        raise failure
    if failure is not None:
        raise OutOfReach(f"{archive.url} is out of reach: {failure}") from failure


def _receive(client: httpx.Client, archive: Archive, target: IO[bytes], deadline: float, progress: Progress) -> None:
    """Write the rest of an archive, or all of it if the server cannot resume.

    Raises:
        DownloadFailed: It takes too long.
        httpx.HTTPError: The server refuses, or the connection ends early.
    """
    have = target.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", archive.url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        answer.raise_for_status()
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            have = target.truncate(target.seek(0))
        total = have + int(answer.headers.get("Content-Length", 0))
        with _shown(archive, total, have, progress) as advance:
            for chunk in answer.iter_raw():
                target.write(chunk)
                advance(len(chunk))
                if time.monotonic() > deadline:
                    raise DownloadFailed(f"{archive.url} takes longer than {_DOWNLOAD_SECONDS:g} s")


def _verify(archive: Archive, content: BufferedRandom) -> None:
    """Compare what was received with the pinned digest.

    Raises:
        DownloadFailed: They differ.
    """
    algorithm, _, pinned = archive.digest.partition(":")
    content.seek(0)
    digest = hashlib.file_digest(content, algorithm).hexdigest()
    if digest != pinned:
        raise DownloadFailed(
            f"{archive.url} is not what was pinned: its {algorithm} is {digest[:16]}…, not {pinned[:16]}…"
        )


@contextmanager
def _shown(archive: Archive, total: int, have: int, progress: Progress) -> Iterator[Callable[[int], None]]:
    """Yield what is told of each chunk: a progress bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        label = f"downloading {archive.name}"
        with click.progressbar(length=total, label=label, file=sys.stderr, show_eta=True) as bar:
            bar.update(have)
            yield bar.update
        return
    progress(f"downloading {archive.name}, {total / _MEGABYTE:.0f} MB")
    told = time.monotonic()

    def advance(size: int) -> None:
        nonlocal have, told
        have += size
        if time.monotonic() - told >= HEARTBEAT_SECONDS:
            told = time.monotonic()
            progress(f"  … {have / _MEGABYTE:.0f} of {total / _MEGABYTE:.0f} MB")

    yield advance
