"""Uploads: add a blob to a repository by the cheapest means that the registry supports.

What a registry supports is learned from its responses, never from a product's name, and kept as long as its client.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from enum import Enum, auto
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    ProtocolViolation,
    RegistryError,
    RegistryUnavailable,
)
from controller.names import RepositoryPath, validate_digest
from controller.registry.connection import Connection, Request, pull, push
from controller.registry.refusals import SESSION_LOST
from controller.registry.responses import Response, resolve, with_query

_OPENED: Final = (HTTPStatus.ACCEPTED, HTTPStatus.CREATED)
_RECEIVED: Final = (HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT, HTTPStatus.CREATED, HTTPStatus.OK)
_STORED: Final = (HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT)
"""Statuses of a successful upload. Docker's first description of the protocol had 204 for a PATCH, and some registries
acknowledge the blob with another one than 201; the manifest's PUT shows whether they have it."""

_REFUSALS_WITH_5XX: Final = frozenset({HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.NOT_IMPLEMENTED})
_OCTETS: Final = "application/octet-stream"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Blob:
    content: bytes
    digest: str


class _Reuse(Enum):
    """How to add a blob to a repository when another repository most likely has it."""

    MOUNT = auto()
    """Mount it from there; a registry that does not mount opens an upload session instead."""

    CHECK = auto()
    """A mount was ignored. The registry may have one blob store for all repositories: check for the blob first."""

    UPLOAD = auto()
    """Mounts are ignored or refused: upload it."""


class Uploads:
    """The blobs of one registry.

    Args:
        connection: The registry.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reuse = _Reuse.MOUNT
        self._requires_patch = False

    async def head(self, path: RepositoryPath, digest: str) -> int:
        """Return a blob's size in bytes; 0 where the registry states none.

        Raises:
            ResourceNotFound: The blob does not exist.
        """
        response = await self._connection.send(
            Request(
                method="HEAD",
                url=self._connection.url(path, f"blobs/{validate_digest(digest)}"),
                operation=f"look up blob {digest} of {path}",
                resource=f"{path}@{digest}",
                scopes=pull(path),
                accept=_OCTETS,
            )
        )
        length = response.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() else 0

    async def put(self, path: RepositoryPath, content: bytes, digest: str, *, mount_from: RepositoryPath | None) -> int:
        """Add a blob to a repository by the cheapest means that this registry is known to support.

        Args:
            path: The repository.
            content: The blob.
            digest: Its digest.
            mount_from: A repository that most likely has it; None for none.

        Returns:
            The number of requests, without those for credentials.
        """
        blob = _Blob(content, validate_digest(digest))
        if mount_from is None or self._reuse is _Reuse.UPLOAD:
            return await self._upload(path, blob)
        checked = self._reuse is _Reuse.CHECK
        if checked:
            with contextlib.suppress(RegistryError):
                await self.head(path, digest)
                return 1
        return checked + await self._mount_or_upload(path, blob, mount_from, checked=checked)

    def stop_mounting(self) -> None:
        """Upload every blob from now on."""
        self._reuse = _Reuse.UPLOAD

    async def start_and_cancel(self, path: RepositoryPath) -> None:
        """Open an upload session and cancel it, which shows that a push would be accepted.

        A registry that does not cancel sessions discards them by itself, as those of clients that were killed.
        """
        session = await self._open_session(path)
        cancel = self._session_request("DELETE", path, session, b"", expected=_RECEIVED)
        with contextlib.suppress(RegistryError):
            await self._connection.send(replace(cancel, content=None, content_type=None))

    async def _mount_or_upload(
        self, path: RepositoryPath, blob: _Blob, source: RepositoryPath, *, checked: bool
    ) -> int:
        """Mount a blob; upload it where the registry refuses for whatever reason, as it then can show the real one."""
        try:
            response = await self._connection.send(self._mount_request(path, blob, source))
        except RegistryError as error:
            if not (_is_refusal(error) or isinstance(error, ProtocolViolation)):
                raise error.shared() from error  # its text may name the source, which is another object's repository
            requests = 1 + await self._upload(path, blob)
            # The source may be gone: that alone does not show that mounts are refused.
            is_first = error.status == HTTPStatus.NOT_FOUND and self._reuse is _Reuse.MOUNT
            self._reuse = _Reuse.CHECK if is_first else _Reuse.UPLOAD
            _log.debug("A mount was refused: %s", error)
            return requests
        if response.status == HTTPStatus.CREATED:
            self._reuse = _Reuse.MOUNT
            return 1
        if not response.headers.get("location"):
            return 1 + await self._upload(path, blob)
        requests = await self._finish_upload(path, blob, response)
        return requests + await self._learn_from_ignored_mount(source, blob, checked=checked)

    async def _learn_from_ignored_mount(self, source: RepositoryPath, blob: _Blob, *, checked: bool) -> int:
        """Stop mounting after a mount that was ignored, unless the source itself lacks the blob."""
        with contextlib.suppress(RegistryError):
            await self.head(source, blob.digest)
            self._reuse = _Reuse.UPLOAD if checked else _Reuse.CHECK
        return 1

    def _mount_request(self, path: RepositoryPath, blob: _Blob, source: RepositoryPath) -> Request:
        query = urlencode({"mount": blob.digest, "from": source}, safe=":/")
        return Request(
            method="POST",
            url=self._connection.url(path, f"blobs/uploads/?{query}"),
            operation=f"mount a blob into {path}",
            resource=path,
            scopes=(*push(path), *pull(source)),
            expected=(HTTPStatus.CREATED, HTTPStatus.ACCEPTED),
        )

    async def _upload(self, path: RepositoryPath, blob: _Blob) -> int:
        return await self._finish_upload(path, blob, await self._open_session(path))

    async def _open_session(self, path: RepositoryPath) -> Response:
        return await self._connection.send(
            Request(
                method="POST",
                url=self._connection.url(path, "blobs/uploads/"),
                operation=f"push a blob to {path}",
                resource=path,
                scopes=push(path),
                expected=_OPENED,
            )
        )

    async def _finish_upload(self, path: RepositoryPath, blob: _Blob, session: Response) -> int:
        """Upload a blob to a session that was just opened; return the number of requests, including the opening one.

        A refused PUT is followed by one more attempt in a new session, by PATCH and PUT: some registries require that
        (Artifactory, the crate container-registry), and a session may have been lost. A real failure fails again.
        """
        if self._requires_patch:
            return await self._upload_by_patch(path, blob, session)
        try:
            await self._commit(path, blob, session, content=blob.content)
        except RegistryError as error:
            if not _is_refusal(error) or isinstance(error, AuthenticationFailed | AccessDenied):
                raise
            requests = 2 + await self._upload_by_patch(path, blob, await self._open_session(path))
            self._requires_patch = SESSION_LOST.isdisjoint(error.codes)
            return requests
        return 2

    async def _upload_by_patch(self, path: RepositoryPath, blob: _Blob, session: Response) -> int:
        patch = self._session_request("PATCH", path, session, blob.content, expected=_RECEIVED)
        patched = await self._connection.send(patch)
        # Without a new Location, the session stays where it was.
        await self._commit(path, blob, patched if patched.headers.get("location") else session, content=b"")
        return 3

    async def _commit(self, path: RepositoryPath, blob: _Blob, session: Response, *, content: bytes) -> None:
        query = f"digest={blob.digest}"
        await self._connection.send(self._session_request("PUT", path, session, content, query=query, expected=_STORED))

    def _session_request(
        self,
        method: str,
        path: RepositoryPath,
        session: Response,
        content: bytes,
        *,
        expected: tuple[int, ...],
        query: str = "",
    ) -> Request:
        operation = f"push a blob to {path}"
        location = session.headers.get("location")
        url = resolve(location, response=session, operation=operation, endpoint=self._connection.endpoint)
        return Request(
            method=method,
            # Not by httpx's params=, which would drop the Location's query, where Distribution keeps its state.
            url=with_query(url, query) if query else url,
            operation=operation,
            resource=path,
            scopes=push(path),
            expected=expected,
            content=content,
            content_type=_OCTETS,
        )


def _is_refusal(error: RegistryError) -> bool:
    """Return whether a registry refused a request in this form, so that another form may work.

    No response, 429, 502 or 503 mean "not now" instead. Some registries refuse with 500.
    """
    if isinstance(error, RegistryUnavailable):
        return error.status in _REFUSALS_WITH_5XX
    return error.status is not None and not isinstance(error, ProtocolViolation)
