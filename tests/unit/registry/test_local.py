"""``LocalArtifactRegistry`` on the fake: cases that real registries do not show on demand.

The contract that real registries and the fake fulfil is in tests/contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    BindingConfigInvalid,
    InvalidNameError,
    NameRefused,
    OperationNotSupported,
    ProtocolViolation,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
    ResourceNotFound,
)
from controller.names import join_path
from controller.registry import marker
from controller.registry.local import LocalArtifactRegistry
from controller.registry.protocol import (
    ArtifactRegistryCredentials,
    ArtifactRegistryPermissions,
    CrossAccountAccess,
    Origin,
    RepositoryResponse,
)
from tests.fakes.registry import FakeRegistry, FakeRepository, StoredManifest

URL = "http://localhost:5001"
IMAGE = StoredManifest(b'{"schemaVersion": 2}', marker.MANIFEST_MEDIA_TYPE)
Responder = Callable[[httpx.Request], httpx.Response | None]


@pytest.fixture
def fake() -> FakeRegistry:
    """A registry."""
    return FakeRegistry()


@pytest.fixture
async def registry(fake: FakeRegistry) -> AsyncIterator[LocalArtifactRegistry]:
    """A client of it."""
    async with LocalArtifactRegistry("artifacts", {"registryUrl": URL}, transport=fake) as opened:
        yield opened


def override(fake: FakeRegistry, respond: Responder) -> None:
    """Override the fake's responses where this does not return None."""

    async def asynchronous(request: httpx.Request) -> httpx.Response | None:
        return respond(request)

    fake.override = asynchronous


def store(fake: FakeRegistry, path: str, **tags: StoredManifest) -> FakeRepository:
    """Store manifests in a repository, as another client would."""
    repository = fake.repositories.setdefault(path, FakeRepository())
    for tag, manifest in tags.items():
        digest = marker.sha256_digest(manifest.content)
        repository.manifests[digest] = manifest
        repository.tags[tag] = digest
    return repository


def writes(fake: FakeRegistry) -> list[str]:
    """Return the paths of all requests that may change something."""
    return [request.url.path for request in fake.requests if request.method not in ("GET", "HEAD")]


class TestConstruction:
    """Construction from a binding."""

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"service": "ecr", "registryUrl": URL}, "service: expected the Local variant"),
            ({"registryUrl": ""}, "registryUrl: must not be empty"),
            ({"registryUrl": "   "}, "registryUrl: must not be empty"),
            ({}, "registryUrl: required, but missing"),
            ({"registryUrl": "ftp://localhost"}, "registryUrl: scheme 'ftp' is not supported"),
            ({"registryUrl": "http://localhost/v2"}, "registryUrl: must end after host and port"),
            ({"registryUrl": "http://user:pw@localhost"}, "registryUrl: must not carry a user"),
            ({"registryUrl": "http://:5000"}, "registryUrl: .* has no usable host"),
        ],
    )
    def test_invalid_binding_is_rejected(self, fields: dict[str, Any], message: str) -> None:
        """Another variant and every invalid URL are rejected with the names of binding and field."""
        with pytest.raises(BindingConfigInvalid, match=f"registry binding 'artifacts' is invalid: {message}"):
            LocalArtifactRegistry("artifacts", fields, transport=FakeRegistry())

    @pytest.mark.parametrize(
        ("url", "endpoint", "host"),
        [
            ("localhost:5001", "http://localhost:5001", "localhost:5001"),
            ("http://localhost:5001", "http://localhost:5001", "localhost:5001"),
            ("http://localhost:5001/", "http://localhost:5001", "localhost:5001"),
            ("https://registry.example.com", "https://registry.example.com", "registry.example.com"),
            ("http://Kind-Registry:5000", "http://kind-registry:5000", "kind-registry:5000"),
            ("http://kind-registry:80", "http://kind-registry:80", "kind-registry:80"),
            ("http://[::1]:5000", "http://[::1]:5000", "[::1]:5000"),
        ],
    )
    def test_endpoint_and_reference(self, url: str, endpoint: str, host: str) -> None:
        """The endpoint gets a scheme unless it has one; references never have one."""
        registry = LocalArtifactRegistry("artifacts", {"registryUrl": url}, transport=FakeRegistry())
        assert registry.registry_endpoint == endpoint
        assert registry.reference("team-a/web") == f"{host}/artifacts/team-a/web:latest"
        assert registry.uri("web") == f"{host}/artifacts/web"

    @pytest.mark.parametrize(
        ("prefix", "path"), [(None, "artifacts/web"), ("", "web"), ("a/b", "a/b/web"), ("artifacts", "artifacts/web")]
    )
    def test_path_prefix(self, prefix: str | None, path: str) -> None:
        """The prefix is the binding's name unless the binding sets one."""
        binding = {"registryUrl": URL, "pathPrefix": prefix}
        assert LocalArtifactRegistry("artifacts", binding, transport=FakeRegistry()).path("web") == path

    def test_upstream_prefix(self, registry: LocalArtifactRegistry) -> None:
        """The prefix is the seed's constant."""
        assert registry.upstream_repository_prefix == "artifacts/default"


class TestWithoutTheRegistry:
    """Operations without requests."""

    async def test_cross_account_access_is_not_supported(self, registry: LocalArtifactRegistry) -> None:
        """All three operations raise OperationNotSupported with their name."""
        access = CrossAccountAccess(("123",))
        for call, operation in (
            (registry.add_cross_account_access("x", access), "add_cross_account_access"),
            (registry.remove_cross_account_access("x", access), "remove_cross_account_access"),
            (registry.get_cross_account_access("x"), "get_cross_account_access"),
        ):
            with pytest.raises(OperationNotSupported, match=f"'{operation}' is not supported") as raised:
                await call
            assert raised.value.operation == operation

    async def test_credentials_are_empty(self, registry: LocalArtifactRegistry, fake: FakeRegistry) -> None:
        """Generated credentials are empty and do not expire."""
        for permissions in ArtifactRegistryPermissions:
            made = await registry.generate_credentials("x", permissions, ttl_seconds=60)
            assert made == ArtifactRegistryCredentials("", "", None)
        assert fake.requests == []

    def test_credentials_hide_the_password(self) -> None:
        """The repr of credentials does not contain the password."""
        assert "s3cr3t" not in repr(ArtifactRegistryCredentials("robot", "s3cr3t"))

    async def test_delete_sends_nothing(self, registry: LocalArtifactRegistry, fake: FakeRegistry) -> None:
        """Delete succeeds without a request."""
        await registry.delete_repository("x")
        assert fake.requests == []


async def hang(_: httpx.Request) -> httpx.Response | None:
    """Never respond."""
    await asyncio.Event().wait()
    return None


UNCLEAR: list[tuple[str, Responder | Exception, type[RegistryError], int | None]] = [
    ("401", lambda _: httpx.Response(401), AuthenticationFailed, 401),
    ("403", lambda _: httpx.Response(403), AccessDenied, 403),
    ("404 NAME_INVALID", lambda _: httpx.Response(404, json={"errors": [{"code": "NAME_INVALID"}]}), NameRefused, 404),
    ("408", lambda _: httpx.Response(408), RegistryUnavailable, 408),
    ("418", lambda _: httpx.Response(418), RegistryError, 418),
    ("429", lambda _: httpx.Response(429), RegistryUnavailable, 429),
    ("500", lambda _: httpx.Response(500), RegistryUnavailable, 500),
    ("502", lambda _: httpx.Response(502, text="<html>"), RegistryUnavailable, 502),
    ("204", lambda _: httpx.Response(204), ProtocolViolation, 204),
    ("HTML", lambda _: httpx.Response(200, html="<html>"), ProtocolViolation, None),
    ("redirect away", lambda _: httpx.Response(302, headers={"location": "http://x/"}), ProtocolViolation, 302),
    ("reset", ConnectionResetError(), RegistryUnavailable, None),
]


@pytest.mark.parametrize(("respond", "expected", "status"), [pytest.param(*case[1:], id=case[0]) for case in UNCLEAR])
async def test_unclear_response_creates_nothing(
    fake: FakeRegistry,
    registry: LocalArtifactRegistry,
    respond: Responder | Exception,
    expected: type[RegistryError],
    status: int | None,
) -> None:
    """A response that is not a definite not-found fails at once with its status; nothing is created.

    It replaces the response to each request in turn, so that no path through create and verify takes it for not found.
    """
    for spoilt in ("HEAD", "/tags/list", "/manifests/latest"):
        for known in (None, Origin.CREATED):
            fake.requests.clear()

            def spoil(request: httpx.Request, spoilt: str = spoilt) -> httpx.Response | None:
                if request.method != spoilt and not request.url.path.endswith(spoilt):
                    # The repository does not exist, and tags/list alone does not show it.
                    return httpx.Response(404) if request.url.path.endswith("/tags/list") else None
                if isinstance(respond, Exception):
                    raise respond
                return respond(request)

            override(fake, spoil)
            if spoilt == "HEAD" and (known is None or status == 403):
                continue  # not sent, or followed by a GET
            with pytest.raises(expected) as raised:
                await registry.ensure_repository("web", known_origin=known)
            assert type(raised.value) is expected
            assert raised.value.status == status or status is None
            with pytest.raises(expected) as raised:
                await registry.get_repository("web")
            assert not isinstance(raised.value, ResourceNotFound)
            assert writes(fake) == []


NOT_FOUND = [
    ("MANIFEST_UNKNOWN", httpx.Response(404, json={"errors": [{"code": "MANIFEST_UNKNOWN"}]})),
    ("NAME_UNKNOWN", httpx.Response(404, json={"errors": [{"code": "NAME_UNKNOWN"}]})),
    ("BLOB_UNKNOWN", httpx.Response(404, json={"errors": [{"code": "BLOB_UNKNOWN"}]})),
    ("bare", httpx.Response(404)),
    ("text", httpx.Response(404, text="404 page not found")),
    ("400", httpx.Response(400, json={"errors": [{"code": "MANIFEST_UNKNOWN"}]})),
]


@pytest.mark.parametrize("response", [pytest.param(response, id=name) for name, response in NOT_FOUND])
async def test_definite_not_found(
    fake: FakeRegistry, registry: LocalArtifactRegistry, response: httpx.Response
) -> None:
    """Every form of a definite not-found is recognised, on a registry that does not list tags."""

    def say(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/tags/list"):
            return httpx.Response(404)
        if request.method == "GET":
            return httpx.Response(response.status_code, headers=response.headers, content=response.content)
        return httpx.Response(404) if request.method == "HEAD" and "manifests" in request.url.path else None

    override(fake, say)
    with pytest.raises(ResourceNotFound, match="resource 'web' was not found"):
        await registry.get_repository("web")
    assert (await registry.ensure_repository("web")).created


class TestRequests:
    """Which requests are sent, and what is concluded from their responses."""

    def lines(self, fake: FakeRegistry) -> list[str]:
        """Return method and last part of each request since the last call."""
        lines = [f"{request.method} {request.url.path.rpartition('/')[2]}" for request in fake.requests]
        fake.requests.clear()
        return lines

    async def test_unknown_name_needs_no_more_reads(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """After NAME_UNKNOWN from tags/list, the next request is the blob's."""
        await registry.ensure_repository("web")
        assert self.lines(fake) == ["GET list", "POST ", "PUT 1", "PUT latest"]
        await registry.ensure_repository("api")
        assert self.lines(fake) == ["GET list", "POST ", "PUT latest"]

    async def test_another_tag_needs_no_more_reads(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """A tag other than ``latest`` is sufficient: the repository is adopted."""
        store(fake, "artifacts/web", latest=IMAGE, v1=IMAGE)
        assert (await registry.ensure_repository("web")).origin is Origin.ADOPTED
        assert self.lines(fake) == ["GET list"]

    @pytest.mark.parametrize(("image", "origin"), [(IMAGE, Origin.ADOPTED), (None, Origin.CREATED)])
    async def test_lone_latest_is_fetched(
        self, fake: FakeRegistry, registry: LocalArtifactRegistry, image: StoredManifest | None, origin: Origin
    ) -> None:
        """A lone ``latest`` is fetched: it determines the origin, and its manifest may not exist."""
        store(fake, "artifacts/web", latest=image or StoredManifest(marker.MANIFEST, marker.MANIFEST_MEDIA_TYPE))
        assert (await registry.ensure_repository("web")).origin is origin
        assert self.lines(fake) == ["GET list", "GET latest"]

    async def test_latest_without_manifest_is_created(
        self, fake: FakeRegistry, registry: LocalArtifactRegistry
    ) -> None:
        """A listed ``latest`` whose manifest is missing is created."""
        override(
            fake,
            lambda request: (
                httpx.Response(200, json={"tags": ["latest"]}) if request.url.path.endswith("/list") else None
            ),
        )
        assert (await registry.ensure_repository("web")).created
        assert self.lines(fake) == ["GET list", "GET latest", "POST ", "PUT 1", "PUT latest"]

    async def test_empty_list_is_not_trusted(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """On a registry that lists nothing, an existing ``latest`` is not overwritten."""
        store(fake, "artifacts/web", latest=IMAGE)
        override(
            fake,
            lambda request: httpx.Response(200, json={"tags": []}) if request.url.path.endswith("/list") else None,
        )
        assert (await registry.ensure_repository("web")).origin is Origin.ADOPTED

    async def test_known_origin_stays(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """A known origin is returned whatever the repository holds now; a single HEAD suffices."""
        store(fake, "artifacts/web", latest=IMAGE)
        assert (await registry.ensure_repository("web", known_origin=Origin.CREATED)).origin is Origin.CREATED
        assert self.lines(fake) == ["HEAD latest"]

    async def test_verify_without_latest_takes_two_requests(
        self, fake: FakeRegistry, registry: LocalArtifactRegistry
    ) -> None:
        """A repository without ``latest`` takes two requests to verify."""
        store(fake, "artifacts/web", v1=IMAGE)
        assert not (await registry.ensure_repository("web", known_origin=Origin.ADOPTED)).created
        assert self.lines(fake) == ["HEAD latest", "GET list"]

    async def test_head_without_manifest_headers_is_not_trusted(
        self, fake: FakeRegistry, registry: LocalArtifactRegistry
    ) -> None:
        """A 200 to HEAD without a manifest's headers may come from any web server: the repository is inspected."""
        store(fake, "artifacts/web", v1=IMAGE)
        override(fake, lambda request: httpx.Response(200) if request.method == "HEAD" else None)
        await registry.ensure_repository("web", known_origin=Origin.ADOPTED)
        assert self.lines(fake) == ["HEAD latest", "GET list"]

    async def test_pushed_during_a_long_upload(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """After a long upload the repository is inspected again: a ``latest`` pushed meanwhile survives."""

        def push_meanwhile(request: httpx.Request) -> httpx.Response | None:
            if request.method == "PUT" and "/uploads/" in request.url.path and request.content:
                return httpx.Response(500)
            if request.method == "PATCH":
                store(fake, "artifacts/web", latest=IMAGE)
            return None

        override(fake, push_meanwhile)
        ensured = await registry.ensure_repository("web")
        assert (ensured.origin, ensured.created) == (Origin.ADOPTED, False)
        assert fake.repositories["artifacts/web"].tags == {"latest": marker.sha256_digest(IMAGE.content)}

    async def test_missing_mount_source_is_replaced(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """If the mount's source was deleted, the blob is uploaded, and the new repository becomes the source."""
        await registry.ensure_repository("web")
        del fake.repositories["artifacts/web"]
        self.lines(fake)
        await registry.ensure_repository("api")
        assert self.lines(fake)[:3] == ["GET list", "POST ", "PUT 2"]
        await registry.ensure_repository("third")
        assert self.lines(fake) == ["GET list", "POST ", "PUT latest"]

    async def test_create_after_a_failed_push(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """A rejected push is an error, and the next call starts over."""
        override(fake, lambda request: httpx.Response(503) if request.method == "PUT" else None)
        with pytest.raises(RegistryUnavailable) as raised:
            await registry.ensure_repository("web")
        assert raised.value.status == 503
        fake.override = None
        assert (await registry.ensure_repository("web")).created

    async def test_read_only_registry_still_verifies(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """On a read-only registry, verifying works and creating raises RegistryReadOnly."""
        store(fake, "artifacts/web", latest=IMAGE)
        fake.read_only = True
        assert (await registry.get_repository("web")) == RepositoryResponse("web", "localhost:5001/artifacts/web")
        with pytest.raises(RegistryReadOnly, match="405"):
            await registry.create_repository("api")


class TestConcurrency:
    """Concurrent calls."""

    async def test_one_writer_per_repository(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """Writes to one repository never overlap; writes to different ones do."""
        writing: dict[str, int] = {}
        together = 0

        async def watch(request: httpx.Request) -> None:
            nonlocal together
            path = request.url.path.split("/")[3]
            writing[path] = writing.get(path, 0) + 1
            assert writing[path] == 1
            together = max(together, sum(writing.values()))
            await asyncio.sleep(0)
            writing[path] -= 1

        fake.override = watch
        names = ["a", "b", "c"] * 5
        await asyncio.gather(*(registry.ensure_repository(name) for name in names))
        assert together == 3
        assert sum(path.endswith("/manifests/latest") for path in writes(fake)) == 3

    async def test_locks_are_dropped(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """Locks are dropped after use, also when calls fail or are cancelled: memory does not grow with names."""
        await asyncio.gather(*(registry.ensure_repository(f"r-{number % 3}") for number in range(9)))
        fake.override = hang
        tasks = [asyncio.create_task(registry.ensure_repository("stuck")) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert registry._repositories._writers == {}

    async def test_cancelled_writer_releases_its_lock(
        self, fake: FakeRegistry, registry: LocalArtifactRegistry
    ) -> None:
        """A call that waits for another one proceeds when that is cancelled."""
        fake.override = hang
        stuck = asyncio.create_task(registry.ensure_repository("web"))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(registry.ensure_repository("web"))
        await asyncio.sleep(0)
        fake.override = None
        stuck.cancel()
        assert (await waiting).created
        with pytest.raises(asyncio.CancelledError):
            await stuck


class TestHeads:
    """The two operations that return None for everything that cannot be read."""

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 204, 302])
    async def test_failures_are_none(self, fake: FakeRegistry, registry: LocalArtifactRegistry, status: int) -> None:
        """As in the seed, every failure is None."""
        override(fake, lambda _: httpx.Response(status))
        assert await registry.head_manifest("artifacts/web", "latest") is None
        assert await registry.head_blob("artifacts/web", marker.CONFIG_DIGEST) is None

    async def test_invalid_names_are_none(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """An invalid name is None as well, without a request."""
        assert await registry.head_manifest("../x", "latest") is None
        assert await registry.head_manifest("x", "../latest") is None
        assert await registry.head_blob("x", "sha256:../..") is None
        assert fake.requests == []

    async def test_missing_digest_is_computed(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """Where a HEAD states no digest, the manifest is fetched and hashed."""
        store(fake, "x", latest=IMAGE)
        headers = {"content-type": IMAGE.media_type}
        override(fake, lambda request: httpx.Response(200, headers=headers) if request.method == "HEAD" else None)
        digest = marker.sha256_digest(IMAGE.content)
        assert await registry.head_manifest("x", "latest") == (IMAGE.media_type, digest)


async def test_get_manifest_validates_its_arguments(fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
    """Path and reference are validated before there is a URL."""
    for path, reference in (("../x", "latest"), ("x", "..")):
        with pytest.raises(InvalidNameError):
            await registry.get_manifest(path, reference)
    assert fake.requests == []


@given(st.text(max_size=300))
async def test_no_name_leaves_its_path(name: str) -> None:
    """Any text is a name whose requests stay below its path, or is rejected without a request."""
    fake = FakeRegistry()
    registry = LocalArtifactRegistry("artifacts", {"registryUrl": URL}, transport=fake)
    try:
        path = join_path("artifacts", name)
    except InvalidNameError:
        for call in (registry.ensure_repository, registry.create_repository, registry.get_repository):
            with pytest.raises(InvalidNameError):
                await call(name)
        with pytest.raises(InvalidNameError):
            registry.reference(name)
        assert fake.requests == []
    else:
        assert (await registry.ensure_repository(name)).path == path
        for request in fake.requests:
            assert request.url.raw_path.decode().startswith(f"/v2/{path}/")
            assert request.url.host == "localhost"


async def test_frozen_process_reads_again(fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
    """If a user pushes while more than a second passes between read and push, the image is seen and stays."""
    await registry.ensure_repository("warm")

    async def push_meanwhile(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST":
            await asyncio.sleep(1.05)
            store(fake, "artifacts/web", latest=IMAGE)
        return None

    fake.override = push_meanwhile
    ensured = await registry.ensure_repository("web")
    assert (ensured.origin, ensured.created) == (Origin.ADOPTED, False)
    repository = fake.repositories["artifacts/web"]
    assert repository.manifests[repository.tags["latest"]] == IMAGE


class TestRegistriesThatDiffer:
    """Behaviour of other registries for which a case of the contract suite says too little."""

    @pytest.mark.parametrize("status", [400, 403, 405, 501])
    async def test_refused_head_becomes_a_get(
        self, fake: FakeRegistry, registry: LocalArtifactRegistry, status: int
    ) -> None:
        """Where HEAD is refused, one GET verifies, and a missing repository is still created."""
        store(fake, "artifacts/web", latest=IMAGE)
        override(fake, lambda request: httpx.Response(status) if request.method == "HEAD" else None)
        assert not (await registry.ensure_repository("web", known_origin=Origin.ADOPTED)).created
        assert [request.method for request in fake.requests] == ["HEAD", "GET"]
        assert (await registry.ensure_repository("api", known_origin=Origin.ADOPTED)).origin is Origin.ADOPTED
        assert await registry.head_manifest("artifacts/web", "latest") is not None

    async def test_missing_right_to_list_is_named(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """Without the right to list tags, a missing ``latest`` does not mean that there is no repository."""
        store(fake, "artifacts/web", v1=IMAGE)
        override(fake, lambda request: httpx.Response(403) if request.url.path.endswith("/list") else None)
        with pytest.raises(AccessDenied) as raised:
            await registry.ensure_repository("web")
        assert raised.value.advice == "allow the operator to list tags"
        assert writes(fake) == []

    async def test_layered_marker_is_learned(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """After one refusal of an image without layers, both blobs of the other marker are mounted."""

        def refuse(request: httpx.Request) -> httpx.Response | None:
            if request.url.path.endswith("/manifests/latest") and request.content == marker.MANIFEST:
                return httpx.Response(400, json={"errors": [{"code": "MANIFEST_INVALID"}]})
            return None

        override(fake, refuse)
        assert (await registry.ensure_repository("web")).created
        fake.requests.clear()
        assert (await registry.ensure_repository("api")).created
        assert [request.method for request in fake.requests] == ["GET", "POST", "POST", "PUT"]
        assert (await registry.ensure_repository("api")).origin is Origin.CREATED

    async def test_image_pushed_during_the_second_attempt_survives(
        self, fake: FakeRegistry, registry: LocalArtifactRegistry
    ) -> None:
        """Before a second marker is pushed, the repository is inspected again."""

        def refuse(request: httpx.Request) -> httpx.Response | None:
            if request.method == "PUT" and request.url.path.endswith("/manifests/latest"):
                store(fake, "artifacts/web", latest=IMAGE)
                return httpx.Response(400, json={"errors": [{"code": "MANIFEST_INVALID"}]})
            return None

        override(fake, refuse)
        ensured = await registry.ensure_repository("web")
        assert (ensured.origin, ensured.created) == (Origin.ADOPTED, False)
        assert fake.repositories["artifacts/web"].tags == {"latest": marker.sha256_digest(IMAGE.content)}

    async def test_vanished_repository_is_uploaded(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """Nothing is mounted for a repository that existed before, and its marker is read back."""
        await registry.ensure_repository("web")
        fake.requests.clear()
        assert (await registry.ensure_repository("api", known_origin=Origin.CREATED)).created
        methods = [request.method for request in fake.requests]
        assert methods == ["HEAD", "GET", "POST", "PUT", "PUT", "HEAD"]
        assert all(b"mount=" not in request.url.query for request in fake.requests)

    async def test_unserved_marker_is_replaced(
        self, fake: FakeRegistry, registry: LocalArtifactRegistry, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A marker that is accepted but not served is replaced by another one, which is no re-creation."""

        def hide(request: httpx.Request) -> httpx.Response | None:
            latest = fake.repositories.get("artifacts/web", FakeRepository()).tags.get("latest")
            hidden = latest == marker.MANIFEST_DIGEST and request.method in ("GET", "HEAD")
            return httpx.Response(404) if hidden else None

        override(fake, hide)
        ensured = await registry.ensure_repository("web", known_origin=Origin.CREATED)
        assert (ensured.origin, ensured.created) == (Origin.CREATED, False)
        assert "restart it after a garbage collection" in caplog.text
        assert not (await registry.ensure_repository("web", known_origin=Origin.CREATED)).created

    async def test_registry_that_serves_no_marker(self, fake: FakeRegistry, registry: LocalArtifactRegistry) -> None:
        """If the other marker is not served, either, that is the error."""
        override(fake, lambda request: httpx.Response(404) if request.method in ("GET", "HEAD") else None)
        with pytest.raises(ProtocolViolation, match="accepted, but not served") as raised:
            await registry.ensure_repository("web", known_origin=Origin.CREATED)
        assert "restart the registry" in str(raised.value.advice)
