"""Registry client on the fake: what it learns about a registry, and which input never leads to a request.

How a config blob is added to a new repository:

==========================================  ===============================================  =======
what the registry does                      requests                                         learned
==========================================  ===============================================  =======
mounts (Distribution)                       POST 201                                         MOUNT
source without the blob                     POST 202, PUT; HEAD of the source 404            nothing
ignores mounts, one store (crane, crate)    POST 202, PUT; HEAD of the source 200            CHECK
...                                         HEAD 200
ignores mounts, a store per repository      HEAD 404, POST 202, PUT; HEAD of the source 200  UPLOAD
...                                         POST, PUT
forbids the mount (no right to the source)  POST 401/403, POST, PUT                          UPLOAD
requires the body in a PATCH (crate)        POST, PUT 500, POST, PATCH, PUT                  patch
...                                         POST, PATCH, PUT
==========================================  ===============================================  =======
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from controller.binding import RegistryBinding
from controller.errors import (
    InvalidNameError,
    NameRefused,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
    ResourceNotFound,
)
from controller.names import RepositoryPath, repository_path
from controller.registry.client import ManifestHead, RegistryClient
from controller.registry.marker import CONFIG, CONFIG_DIGEST, MANIFEST, MANIFEST_DIGEST, MANIFEST_MEDIA_TYPE
from tests.fakes.registry import FakeRegistry

Responder = Callable[[httpx.Request], httpx.Response | None]


@pytest.fixture
def fake() -> FakeRegistry:
    """A registry."""
    return FakeRegistry()


@pytest.fixture
def client(fake: FakeRegistry) -> RegistryClient:
    """A client of it."""
    return RegistryClient("test", RegistryBinding(registry_url="http://registry:5000"), transport=fake)


def override(fake: FakeRegistry, respond: Responder) -> None:
    """Override the fake's responses where this does not return None."""

    async def asynchronous(request: httpx.Request) -> httpx.Response | None:
        return respond(request)

    fake.override = asynchronous


async def put_blob(client: RegistryClient, path: str, source: str | None) -> int:
    """Push the config blob."""
    mount_from = None if source is None else RepositoryPath(source)
    return await client.put_blob(RepositoryPath(path), CONFIG, CONFIG_DIGEST, mount_from=mount_from)


def methods(fake: FakeRegistry) -> list[str]:
    """Return the methods of the requests since the last call."""
    methods = [request.method for request in fake.requests]
    fake.requests.clear()
    return methods


def is_mount(request: httpx.Request) -> bool:
    """Return whether a request is a mount."""
    return "mount" in request.url.params


class TestBlobs:
    """Adding a blob to a repository."""

    async def test_mount_takes_one_request(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A successful mount is a single request, every time."""
        assert await put_blob(client, "a/1", None) == 2
        assert methods(fake) == ["POST", "PUT"]
        for path in ("a/2", "a/3"):
            assert await put_blob(client, path, "a/1") == 1
            assert methods(fake) == ["POST"]
            assert fake.repositories[path].blobs == {CONFIG_DIGEST: CONFIG}

    async def test_shared_store_is_checked_first(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """Where mounts are ignored, the client checks for the blob first, and finds it in a shared store."""
        shared: dict[str, bytes] = {}

        def respond(request: httpx.Request) -> httpx.Response | None:
            if is_mount(request):
                request.url = request.url.copy_with(query=None)
            if request.method == "HEAD" and CONFIG_DIGEST in shared:
                return httpx.Response(200)
            if request.method == "PUT":
                shared[CONFIG_DIGEST] = request.content
            return None

        override(fake, respond)
        assert await put_blob(client, "a/1", None) == 2
        assert await put_blob(client, "a/2", "a/1") == 3
        methods(fake)
        for path in ("a/3", "a/4"):
            assert await put_blob(client, path, "a/1") == 1
            assert methods(fake) == ["HEAD"]

    async def test_separate_stores_end_mounting_and_checking(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """Where mounts are ignored and the check fails, the client stops doing both."""

        def respond(request: httpx.Request) -> None:
            if is_mount(request):
                request.url = request.url.copy_with(query=None)

        override(fake, respond)
        assert await put_blob(client, "a/1", None) == 2
        assert [await put_blob(client, f"a/{number}", "a/1") for number in range(2, 6)] == [3, 4, 2, 2]
        upload = ["POST", "PUT"]
        assert methods(fake) == [*upload, *upload, "HEAD", "HEAD", *upload, "HEAD", *upload, *upload]

    async def test_missing_source_does_not_end_mounting(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A source without the blob costs an upload, but does not end mounting."""
        await put_blob(client, "a/1", None)
        assert await put_blob(client, "a/2", "gone") == 3
        assert methods(fake) == ["POST", "PUT", "POST", "PUT", "HEAD"]
        assert await put_blob(client, "a/3", "a/1") == 1

    async def test_missing_source_of_concurrent_uploads(self, client: RegistryClient) -> None:
        """Many concurrent uploads from a missing source do not end mounting either."""
        results = await asyncio.gather(*(put_blob(client, f"a/{number}", "gone") for number in range(16)))
        assert set(results) == {3}
        assert await put_blob(client, "a/last", "a/1") == 1

    @pytest.mark.parametrize("status", [401, 403])
    async def test_forbidden_mount_ends_mounting(self, fake: FakeRegistry, client: RegistryClient, status: int) -> None:
        """If the source may not be read, the blob is uploaded, and no other mount is attempted."""

        def respond(request: httpx.Request) -> httpx.Response | None:
            headers = {"www-authenticate": 'Basic realm="x"'}
            return httpx.Response(status, headers=headers) if is_mount(request) else None

        override(fake, respond)
        assert await put_blob(client, "a/1", None) == 2
        assert [await put_blob(client, f"a/{number}", "a/1") for number in (2, 3)] == [3, 2]

    async def test_failed_mount_does_not_name_the_source(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """The source is a repository of another object, perhaps of another tenant, whose name is not revealed."""

        def respond(request: httpx.Request) -> httpx.Response | None:
            body = {"errors": [{"code": "UNAVAILABLE", "message": f"{request.url} is busy"}]}
            return httpx.Response(503, json=body) if is_mount(request) else None

        override(fake, respond)
        with pytest.raises(RegistryUnavailable) as raised:
            await put_blob(client, "team/web", "other/secret")
        assert raised.value.cause == "503 (UNAVAILABLE)"
        assert "secret" not in str(raised.value)

    async def test_unknown_source_costs_an_upload(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A source that the registry reports as unknown costs an upload."""

        def respond(request: httpx.Request) -> httpx.Response | None:
            body = {"errors": [{"code": "NAME_UNKNOWN"}]}
            return httpx.Response(404, json=body) if is_mount(request) else None

        override(fake, respond)
        assert await put_blob(client, "a/2", "a/1") == 3

    async def test_rejected_name_does_not_end_mounting(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A 404 to the upload, too, concerns the name, and does not end mounting."""
        override(fake, lambda request: httpx.Response(404) if "/deep/" in request.url.path else None)
        await put_blob(client, "a/1", None)
        methods(fake)
        with pytest.raises(NameRefused):
            await put_blob(client, "a/deep/b", "a/1")
        assert methods(fake) == ["POST", "POST"]
        assert await put_blob(client, "a/2", "a/1") == 1

    async def test_patch_is_used_once_required(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A registry that fails on a PUT with a body gets a PATCH, from then on at once."""

        def respond(request: httpx.Request) -> httpx.Response | None:
            return httpx.Response(500) if request.method == "PUT" and request.content else None

        override(fake, respond)
        assert await put_blob(client, "a/1", None) == 5
        assert methods(fake) == ["POST", "PUT", "POST", "PATCH", "PUT"]
        assert await put_blob(client, "a/2", None) == 3
        assert fake.repositories["a/2"].blobs == {CONFIG_DIGEST: CONFIG}

    @pytest.mark.parametrize(
        ("status", "requests"), [(500, ["POST", "PUT", "POST", "PATCH", "PUT"]), (503, ["POST", "PUT"])]
    )
    async def test_real_failure_is_not_learned(
        self, fake: FakeRegistry, client: RegistryClient, status: int, requests: list[str]
    ) -> None:
        """A registry that really fails is not assumed to require a PATCH."""
        override(fake, lambda request: httpx.Response(status) if request.method == "PUT" else None)
        with pytest.raises(RegistryUnavailable):
            await put_blob(client, "a/1", None)
        assert methods(fake) == requests
        fake.override = None
        assert await put_blob(client, "a/1", None) == 2

    async def test_query_of_the_location_is_kept(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """The query of the Location, where Distribution keeps its state, is part of the PUT, unchanged."""
        await put_blob(client, "a/1", None)
        put = fake.requests[-1].url.raw_path.decode()
        assert put.endswith(f"?_state=state%20of%201&digest={CONFIG_DIGEST}")

    async def test_blob_size(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A blob's size is its Content-Length; 0 where that is not a number."""
        await put_blob(client, "a/1", None)
        assert await client.head_blob(RepositoryPath("a/1"), CONFIG_DIGEST) == len(CONFIG)
        for length in ("", "-1", "9e9", "٣"):
            headers = {"content-length": length.encode()} if length else {}
            override(fake, lambda _, headers=headers: httpx.Response(200, headers=headers))  # type: ignore[misc]
            assert await client.head_blob(RepositoryPath("a/1"), CONFIG_DIGEST) == 0


class TestManifests:
    """Manifests."""

    async def test_push_and_fetch(self, client: RegistryClient) -> None:
        """A pushed manifest is returned with digest and type, by tag and by digest."""
        await put_blob(client, "a/b", None)
        await client.put_manifest(RepositoryPath("a/b"), "latest", MANIFEST, MANIFEST_MEDIA_TYPE)
        assert await client.head_manifest(RepositoryPath("a/b"), "latest") == ManifestHead(
            MANIFEST_MEDIA_TYPE, MANIFEST_DIGEST
        )
        for reference in ("latest", MANIFEST_DIGEST):
            manifest = await client.get_manifest(RepositoryPath("a/b"), reference)
            assert (manifest.content, manifest.media_type, manifest.digest) == (
                MANIFEST,
                MANIFEST_MEDIA_TYPE,
                MANIFEST_DIGEST,
            )

    async def test_default_media_type(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A manifest without Content-Type is an OCI image manifest."""
        override(fake, lambda _: httpx.Response(200, content=MANIFEST))
        assert (await client.get_manifest(RepositoryPath("a/b"), "latest")).media_type == MANIFEST_MEDIA_TYPE
        assert await client.head_manifest(RepositoryPath("a/b"), "latest") == ManifestHead(None, None)

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_requested_digest_is_verified(
        self, fake: FakeRegistry, client: RegistryClient, algorithm: str
    ) -> None:
        """A manifest requested by digest must have it, whatever the registry's header states."""
        headers = {"content-type": MANIFEST_MEDIA_TYPE, "docker-content-digest": MANIFEST_DIGEST}
        override(fake, lambda _: httpx.Response(200, content=MANIFEST, headers=headers))
        with pytest.raises(RegistryError, match="does not match its digest"):
            await client.get_manifest(RepositoryPath("a/b"), f"{algorithm}:{'0' * 64}")

    async def test_missing_blob_is_not_a_not_found(self, client: RegistryClient) -> None:
        """A manifest without its blob is rejected with the specification's code, not as not found."""
        with pytest.raises(RegistryError) as raised:
            await client.put_manifest(RepositoryPath("a/b"), "latest", MANIFEST, MANIFEST_MEDIA_TYPE)
        assert not isinstance(raised.value, ResourceNotFound)
        assert (raised.value.status, raised.value.codes) == (400, ("MANIFEST_BLOB_UNKNOWN",))

    async def test_read_only(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A read-only registry is reported at the first write."""
        fake.read_only = True
        with pytest.raises(RegistryReadOnly):
            await put_blob(client, "a/b", None)
        with pytest.raises(RegistryReadOnly):
            await put_blob(client, "a/b", "a/1")


class TestTags:
    """Lists of tags."""

    async def test_unknown_repository(self, client: RegistryClient) -> None:
        """An unknown repository is reported with the specification's code."""
        with pytest.raises(ResourceNotFound) as raised:
            await client.list_tags(RepositoryPath("a/b"), at_most=2)
        assert raised.value.codes == ("NAME_UNKNOWN",)

    @pytest.mark.parametrize("page", [1, 2, 3])
    async def test_pages_are_followed(self, fake: FakeRegistry, client: RegistryClient, page: int) -> None:
        """Pages are followed until there are enough tags or no more pages."""
        await put_blob(client, "a/b", None)
        for tag in ("c", "a", "b"):
            await client.put_manifest(RepositoryPath("a/b"), tag, MANIFEST, MANIFEST_MEDIA_TYPE)

        def smaller(request: httpx.Request) -> None:
            if "n" in request.url.params:
                request.url = request.url.copy_set_param("n", page)

        override(fake, smaller)
        assert await client.list_tags(RepositoryPath("a/b"), at_most=2) == ("a", "b")
        assert await client.list_tags(RepositoryPath("a/b"), at_most=9) == ("a", "b", "c")

    async def test_registry_that_ignores_n(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A list that is longer than requested is cut."""
        override(fake, lambda _: httpx.Response(200, json={"tags": ["a", "b", "c"]}))
        assert await client.list_tags(RepositoryPath("a/b"), at_most=2) == ("a", "b")

    @pytest.mark.parametrize("body", [{"name": "a/b", "tags": None}, {"name": "a/b"}, {"tags": []}])
    async def test_no_tags(self, fake: FakeRegistry, client: RegistryClient, body: object) -> None:
        """Null, absent and empty all mean no tags."""
        override(fake, lambda _: httpx.Response(200, json=body))
        assert await client.list_tags(RepositoryPath("a/b"), at_most=2) == ()


INVALID_NAMES = [
    *("", ".", "..", "a/..", "../a", "a/../b", "a//b", "/a", "a/", "a%2Fb", "a%2f..%2fb", "a?b", "a#b", "a b", "a\n"),
    *("A", "aB", "a\\b", "a:b", "a@b", "ä", "\u0430", "a\u200b", "a_-b", "a___b", "-a", "a-"),
    *("a" * 246, "http://elsewhere/a", "a\r\nHost: b"),
]
INVALID_REFERENCES = [
    *(
        "",
        "..",
        "a/b",
        "a?b",
        "a#b",
        "-a",
        "sha256:",
        "a" * 129,
        "latest\n",
        "sha256:../..",
        "%2e%2e",
        "ä",
        "sha256:0?x",
    ),
]


@pytest.mark.parametrize("path", INVALID_NAMES)
def test_invalid_name_is_not_a_path(path: str) -> None:
    """Every method takes a RepositoryPath, which cannot be made from an invalid name."""
    with pytest.raises(InvalidNameError):
        repository_path(path)


@pytest.mark.parametrize("reference", INVALID_REFERENCES)
async def test_invalid_reference_leads_to_no_request(
    fake: FakeRegistry, client: RegistryClient, reference: str
) -> None:
    """Neither a tag nor a digest: rejected before there is a URL."""
    for call in (
        client.get_manifest(RepositoryPath("a/b"), reference),
        client.head_manifest(RepositoryPath("a/b"), reference),
        client.put_manifest(RepositoryPath("a/b"), reference, MANIFEST, MANIFEST_MEDIA_TYPE),
        client.head_blob(RepositoryPath("a/b"), reference),
    ):
        with pytest.raises(InvalidNameError):
            await call
    with pytest.raises(InvalidNameError):
        await client.put_blob(RepositoryPath("a/b"), CONFIG, reference, mount_from=None)
    assert fake.requests == []


async def test_the_cause_of_a_500_is_read(fake: FakeRegistry, client: RegistryClient) -> None:
    """The response to a HEAD has no body, so a GET finds out what the registry says about its error."""
    body = {"errors": [{"code": "UNKNOWN", "message": "link file is empty"}]}
    override(fake, lambda request: httpx.Response(500, json=body if request.method == "GET" else None))
    with pytest.raises(RegistryUnavailable, match="link file is empty"):
        await client.head_manifest(RepositoryPath("a/b"), "latest")
    assert methods(fake) == ["HEAD", "GET"]
