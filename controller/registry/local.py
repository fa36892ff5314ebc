"""``LocalArtifactRegistry``: repositories in a container registry close to the developer.

A port of the seed's Rust client of the same name. Docstrings list differences under "Unlike the seed"; everything else
is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Self
from urllib.parse import urlsplit

from controller.binding import RegistryBinding
from controller.configfile import parse_binding
from controller.errors import (
    InvalidNameError,
    OperationNotSupported,
    RegistryError,
    ResourceNotFound,
)
from controller.names import RepositoryPath, join_path, repository_path
from controller.registry.client import RegistryClient
from controller.registry.connection import RequestObserver
from controller.registry.protocol import (
    ArtifactRegistryCredentials,
    ArtifactRegistryPermissions,
    CrossAccountAccess,
    CrossAccountPermissions,
    Ensured,
    EnsuredRepository,
    Origin,
    RepositoryResponse,
)
from controller.registry.repositories import LATEST, Repositories
from controller.registry.transport import Timeouts, Transport

_NO_CROSS_ACCOUNT_ACCESS: Final = "a local artifact registry has no accounts"

_log = logging.getLogger(__name__)


class LocalArtifactRegistry:
    """The repositories of one registry binding.

    Unlike the seed:

    - The constructor only validates the binding. The registry's URL may have a scheme and a trailing slash; in the seed
      both broke references.
    - All calls share one connection pool, where the seed opens a connection for each; every call has timeouts.
    - The path prefix is the binding's name, as in the seed, unless the binding sets ``pathPrefix``.
    - Names are validated before a URL is built, so no name leads to another path.

    Args:
        binding_name: The binding's name in the configuration.
        binding: The binding, as read or as its raw fields.
        timeouts: Timeouts of each request; None for the default.
        before_request: Called before each request; its exceptions propagate, and nothing is sent.
        on_request: Called after each request that was sent.
        transport: Replaces the network; None for the network.

    Raises:
        BindingConfigInvalid: It is not the local variant, or one of its fields is invalid.
    """

    def __init__(
        self,
        binding_name: str,
        binding: RegistryBinding | Mapping[str, Any],
        *,
        timeouts: Timeouts | None = None,
        before_request: Callable[[], None] = lambda: None,
        on_request: RequestObserver | None = None,
        transport: Transport | None = None,
    ) -> None:
        checked = parse_binding(binding_name, binding)
        self._prefix = checked.prefix(binding_name)
        self._url = checked.registry_url
        # Keeps the scheme's default port, too: without a port, Docker looks for `registry/x` on Docker Hub.
        self._host = urlsplit(self._url).netloc
        self._client = RegistryClient(
            binding_name,
            checked,
            timeouts=timeouts,
            before_request=before_request,
            on_request=on_request,
            transport=transport,
        )
        self._repositories = Repositories(self._client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def ping(self) -> None:
        """Return if the registry responds.

        Raises:
            RegistryError: It does not.
        """
        await self._client.ping()

    @property
    def registry_endpoint(self) -> str:
        """The registry's base URL: ``http://`` and the host, unless the binding's URL has a scheme."""
        return self._url

    @property
    def upstream_repository_prefix(self) -> str:
        """The prefix to which the seed's proxy forwards pushes."""
        return "artifacts/default"

    def path(self, name: str) -> RepositoryPath:
        """Return a repository's path in the registry.

        Raises:
            InvalidNameError: The name is invalid or too long.
        """
        return join_path(self._prefix, name)

    def uri(self, name: str) -> str:
        """Return a repository's address without scheme and tag.

        Raises:
            InvalidNameError: The name is invalid or too long.
        """
        return f"{self._host}/{self.path(name)}"

    def reference(self, name: str) -> str:
        """Return the reference of a repository's ``latest``.

        Raises:
            InvalidNameError: The name is invalid or too long.
        """
        return f"{self.uri(name)}:{LATEST}"

    async def ensure_repository(self, name: str, *, known_origin: Origin | None = None) -> EnsuredRepository:
        """Create a repository unless it exists (see :meth:`controller.registry.repositories.Repositories.ensure`).

        Args:
            name: The repository's name, without the path prefix.
            known_origin: The origin that an earlier call returned; saves looking it up.

        Raises:
            InvalidNameError: The name is invalid or too long.
            RegistryError: The repository is not known to exist.
        """
        path = self.path(name)
        ensured = await self.ensure(path, known_origin=known_origin)
        return EnsuredRepository(name, path, self.uri(name), ensured.origin, ensured.created)

    async def ensure(self, path: RepositoryPath, *, known_origin: Origin | None = None) -> Ensured:
        """Create a repository unless it exists, by its full path in the registry.

        Raises:
            RegistryError: The repository is not known to exist.
        """
        return await self._repositories.ensure(path, known_origin=known_origin)

    async def user_tags(self, path: RepositoryPath) -> tuple[str, ...]:
        """Return the tags of a repository besides the marker (see :meth:`Repositories.user_tags`).

        Args:
            path: Its full path in the registry.

        Raises:
            RegistryError: They cannot be read, or the registry does not list tags.
        """
        return await self._repositories.user_tags(path)

    async def create_repository(self, name: str) -> RepositoryResponse:
        """Create a repository unless it exists.

        Unlike the seed: an existing ``latest`` is never overwritten, and none is added beside other tags. The seed
        always pushes its marker, which takes ``latest`` away from an image.

        Raises:
            InvalidNameError: The name is invalid or too long.
            RegistryError: The repository is not known to exist.
        """
        ensured = await self.ensure_repository(name)
        return RepositoryResponse(ensured.name, ensured.uri)

    async def get_repository(self, name: str) -> RepositoryResponse:
        """Return an existing repository.

        Unlike the seed: a repository with other tags, but no ``latest``, is found, too.

        Raises:
            InvalidNameError: The name is invalid or too long.
            ResourceNotFound: The registry stated clearly that it does not exist.
            RegistryError: It is unknown whether it exists.
        """
        path = self.path(name)
        if not await self._repositories.has_latest(path) and await self._repositories.inspect(path) is None:
            raise ResourceNotFound(name, endpoint=self._url)
        return RepositoryResponse(name, self.uri(name))

    async def delete_repository(self, name: str) -> None:
        """Do nothing: this client has no state, and a registry's content belongs to whoever pushed it."""
        _log.debug("Repository '%s' is not deleted from the registry", name)

    async def add_cross_account_access(self, name: str, access: CrossAccountAccess) -> None:
        """Raise: not supported.

        Raises:
            OperationNotSupported: Always.
        """
        del name, access
        raise OperationNotSupported("add_cross_account_access", _NO_CROSS_ACCOUNT_ACCESS)

    async def remove_cross_account_access(self, name: str, access: CrossAccountAccess) -> None:
        """Raise: not supported.

        Raises:
            OperationNotSupported: Always.
        """
        del name, access
        raise OperationNotSupported("remove_cross_account_access", _NO_CROSS_ACCOUNT_ACCESS)

    async def get_cross_account_access(self, name: str) -> CrossAccountPermissions:
        """Raise: not supported.

        Raises:
            OperationNotSupported: Always.
        """
        del name
        raise OperationNotSupported("get_cross_account_access", _NO_CROSS_ACCOUNT_ACCESS)

    async def generate_credentials(
        self, name: str, permissions: ArtifactRegistryPermissions, *, ttl_seconds: int | None = None
    ) -> ArtifactRegistryCredentials:
        """Return empty credentials without expiry; the operator's own credentials are never returned."""
        del name, permissions, ttl_seconds
        return ArtifactRegistryCredentials(username="", password="")

    async def get_manifest(self, path: str, reference: str) -> tuple[bytes, str]:
        """Return a manifest's bytes and its media type (an OCI image manifest where the registry states none).

        Unlike the seed: all four manifest types are accepted, since registries respond 404 where the stored type is not
        accepted; the digest is verified; a response that is not a manifest is an error.

        Args:
            path: Full path in the registry, with the prefix, as in the seed.
            reference: Tag or digest.

        Raises:
            InvalidNameError: Path or reference is invalid.
            RegistryError: The response is not the manifest; the error has its status.
        """
        manifest = await self._client.get_manifest(repository_path(path), reference)
        return manifest.content, manifest.media_type

    async def head_manifest(self, path: str, reference: str) -> tuple[str, str] | None:
        """Return a manifest's media type and digest, or None if it is missing or anything fails.

        Unlike the seed: where a registry states no digest, the manifest is fetched and hashed; the seed returns None
        for every manifest of such a registry.

        Args:
            path: Full path in the registry, with the prefix, as in the seed.
            reference: Tag or digest.
        """
        try:
            head = await self._client.head_manifest(repository_path(path), reference)
            if head.media_type and head.digest:
                return head.media_type, head.digest
            manifest = await self._client.get_manifest(repository_path(path), reference)
        except (RegistryError, InvalidNameError) as error:
            _log.debug("No manifest %s of %s: %s", reference, path, error)
            return None
        return manifest.media_type, manifest.digest

    async def head_blob(self, path: str, digest: str) -> int | None:
        """Return a blob's size in bytes, or None if it is missing or anything fails.

        Args:
            path: Full path in the registry, with the prefix, as in the seed.
            digest: The blob's digest.
        """
        try:
            return await self._client.head_blob(repository_path(path), digest)
        except (RegistryError, InvalidNameError) as error:
            _log.debug("No blob %s of %s: %s", digest, path, error)
            return None
