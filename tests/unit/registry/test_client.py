"""The client's ways of working, over the fake: what it learns of a registry, and what never reaches a wire.

How a config blob gets into a new repository:

==========================================  ===============================================  =======
what the registry does                      requests                                         learned
==========================================  ===============================================  =======
mounts (Distribution)                       POST 201                                         MOUNT
the source has no blob any more             POST 202, PUT; HEAD of the source 404            nothing
ignores mounts, one store (crane, crate)    POST 202, PUT; HEAD of the source 200            LOOK
...                                         HEAD 200
ignores mounts, a store for each            HEAD 404, POST 202, PUT; HEAD of the source 200  NEVER
...                                         POST, PUT
forbids the mount (no right to the source)  POST 401/403, POST, PUT                          NEVER
wants the body in a PATCH (crate)           POST, PUT 500, POST, PATCH, PUT                  patch
...                                         POST, PATCH, PUT
==========================================  ===============================================  =======
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from controller.config import RegistryBinding
from controller.errors import (
    InvalidNameError,
    NameRefused,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
    ResourceNotFound,
)
from controller.registry.client import ManifestHead, RegistryClient
from controller.registry.marker import CONFIG, CONFIG_DIGEST, MANIFEST, MANIFEST_DIGEST, MANIFEST_MEDIA_TYPE
from tests.fakes.registry import FakeRegistry

Answer = Callable[[httpx.Request], httpx.Response | None]


@pytest.fixture
def fake() -> FakeRegistry:
    """A registry."""
    return FakeRegistry()


@pytest.fixture
def client(fake: FakeRegistry) -> RegistryClient:
    """A client of it."""
    return RegistryClient("test", RegistryBinding(registry_url="http://registry:5000"), transport=fake)


def instead(fake: FakeRegistry, answer: Answer) -> None:
    """Let the fake answer so, where this is not None."""

    async def asynchronous(request: httpx.Request) -> httpx.Response | None:
        return answer(request)

    fake.answer_instead = asynchronous


async def put_blob(client: RegistryClient, path: str, source: str | None) -> int:
    """Push the config blob."""
    return await client.put_blob(path, CONFIG, CONFIG_DIGEST, mount_from=source)


def asked(fake: FakeRegistry) -> list[str]:
    """Return the methods of the requests since the last call."""
    methods = [request.method for request in fake.requests]
    fake.requests.clear()
    return methods


def is_mount(request: httpx.Request) -> bool:
    """Tell whether a request asks for a mount."""
    return "mount" in request.url.params


class TestBlobs:
    """How a blob gets into a repository."""

    async def test_mount(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """Where a mount works it is one request, each time."""
        assert await put_blob(client, "a/1", None) == 2
        assert asked(fake) == ["POST", "PUT"]
        for path in ("a/2", "a/3"):
            assert await put_blob(client, path, "a/1") == 1
            assert asked(fake) == ["POST"]
            assert fake.repositories[path].blobs == {CONFIG_DIGEST: CONFIG}

    async def test_one_store(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """Where mounts are ignored, the client looks whether the blob is there already, and finds it."""
        shared: dict[str, bytes] = {}

        def answer(request: httpx.Request) -> httpx.Response | None:
            if is_mount(request):
                request.url = request.url.copy_with(query=None)
            if request.method == "HEAD" and CONFIG_DIGEST in shared:
                return httpx.Response(200)
            if request.method == "PUT":
                shared[CONFIG_DIGEST] = request.content
            return None

        instead(fake, answer)
        assert await put_blob(client, "a/1", None) == 2
        assert await put_blob(client, "a/2", "a/1") == 3
        asked(fake)
        for path in ("a/3", "a/4"):
            assert await put_blob(client, path, "a/1") == 1
            assert asked(fake) == ["HEAD"]

    async def test_a_store_for_each(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """Where mounts are ignored and looking does not help, the client soon does neither."""

        def answer(request: httpx.Request) -> None:
            if is_mount(request):
                request.url = request.url.copy_with(query=None)

        instead(fake, answer)
        assert await put_blob(client, "a/1", None) == 2
        assert [await put_blob(client, f"a/{number}", "a/1") for number in range(2, 6)] == [3, 4, 2, 2]
        upload = ["POST", "PUT"]
        assert asked(fake) == [*upload, *upload, "HEAD", "HEAD", *upload, "HEAD", *upload, *upload]

    async def test_source_is_gone(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A source without the blob costs an upload, and teaches nothing: a wiped registry still mounts."""
        await put_blob(client, "a/1", None)
        assert await put_blob(client, "a/2", "gone") == 3
        assert asked(fake) == ["POST", "PUT", "POST", "PUT", "HEAD"]
        assert await put_blob(client, "a/3", "a/1") == 1

    async def test_wiped_in_the_middle(self, client: RegistryClient) -> None:
        """Many creates at once from a source that is gone do not end mounting either."""
        results = await asyncio.gather(*(put_blob(client, f"a/{number}", "gone") for number in range(16)))
        assert set(results) == {3}
        assert await put_blob(client, "a/last", "a/1") == 1

    @pytest.mark.parametrize("status", [401, 403])
    async def test_forbidden(self, fake: FakeRegistry, client: RegistryClient, status: int) -> None:
        """Where the source may not be read, the blob is uploaded, and no mount is tried again."""

        def answer(request: httpx.Request) -> httpx.Response | None:
            headers = {"www-authenticate": 'Basic realm="x"'}
            return httpx.Response(status, headers=headers) if is_mount(request) else None

        instead(fake, answer)
        assert await put_blob(client, "a/1", None) == 2
        assert [await put_blob(client, f"a/{number}", "a/1") for number in (2, 3)] == [3, 2]

    async def test_unknown_source(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A source that the registry calls unknown costs an upload."""

        def answer(request: httpx.Request) -> httpx.Response | None:
            body = {"errors": [{"code": "NAME_UNKNOWN"}]}
            return httpx.Response(404, json=body) if is_mount(request) else None

        instead(fake, answer)
        assert await put_blob(client, "a/2", "a/1") == 3

    async def test_refused_name(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A bare 404 to the mount means the name, and nothing is learned about mounts from it."""
        instead(fake, lambda request: httpx.Response(404) if "/deep/" in request.url.path else None)
        await put_blob(client, "a/1", None)
        asked(fake)
        with pytest.raises(NameRefused):
            await put_blob(client, "a/deep/b", "a/1")
        assert asked(fake) == ["POST"]
        assert await put_blob(client, "a/2", "a/1") == 1

    async def test_body_in_a_patch(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A registry that fails at a PUT with a body gets it in a PATCH, at once from then on."""

        def answer(request: httpx.Request) -> httpx.Response | None:
            return httpx.Response(500) if request.method == "PUT" and request.content else None

        instead(fake, answer)
        assert await put_blob(client, "a/1", None) == 5
        assert asked(fake) == ["POST", "PUT", "POST", "PATCH", "PUT"]
        assert await put_blob(client, "a/2", None) == 3
        assert fake.repositories["a/2"].blobs == {CONFIG_DIGEST: CONFIG}

    @pytest.mark.parametrize(
        ("status", "requests"), [(500, ["POST", "PUT", "POST", "PATCH", "PUT"]), (503, ["POST", "PUT"])]
    )
    async def test_real_failure(
        self, fake: FakeRegistry, client: RegistryClient, status: int, requests: list[str]
    ) -> None:
        """A registry that really fails is not taken for one with a preference."""
        instead(fake, lambda request: httpx.Response(status) if request.method == "PUT" else None)
        with pytest.raises(RegistryUnavailable):
            await put_blob(client, "a/1", None)
        assert asked(fake) == requests
        fake.answer_instead = None
        assert await put_blob(client, "a/1", None) == 2

    async def test_sessions_state_is_kept(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """The query of the Location, where Distribution keeps its state, goes on into the PUT as it is."""
        await put_blob(client, "a/1", None)
        put = fake.requests[-1].url.raw_path.decode()
        assert put.endswith(f"?_state=state%20of%201&digest={CONFIG_DIGEST}")

    async def test_size(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A blob's size is what the registry says; 0 where it says nothing that is a number."""
        await put_blob(client, "a/1", None)
        assert await client.head_blob("a/1", CONFIG_DIGEST) == len(CONFIG)
        for length in ("", "-1", "9e9", "٣"):
            headers = {"content-length": length.encode()} if length else {}
            instead(fake, lambda _, headers=headers: httpx.Response(200, headers=headers))  # type: ignore[misc]
            assert await client.head_blob("a/1", CONFIG_DIGEST) == 0


class TestManifests:
    """Manifests."""

    async def test_push_and_fetch(self, client: RegistryClient) -> None:
        """What was pushed comes back with digest and type, by tag and by digest."""
        await put_blob(client, "a/b", None)
        await client.put_manifest("a/b", "latest", MANIFEST, MANIFEST_MEDIA_TYPE)
        assert await client.head_manifest("a/b", "latest") == ManifestHead(MANIFEST_MEDIA_TYPE, MANIFEST_DIGEST)
        for reference in ("latest", MANIFEST_DIGEST):
            manifest = await client.get_manifest("a/b", reference)
            assert (manifest.content, manifest.media_type, manifest.digest) == (
                MANIFEST,
                MANIFEST_MEDIA_TYPE,
                MANIFEST_DIGEST,
            )

    async def test_type_that_is_not_told(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A manifest without Content-Type is an OCI image manifest."""
        instead(fake, lambda _: httpx.Response(200, content=MANIFEST))
        assert (await client.get_manifest("a/b", "latest")).media_type == MANIFEST_MEDIA_TYPE
        assert await client.head_manifest("a/b", "latest") == ManifestHead(None, None)

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_not_the_one_asked_for(self, fake: FakeRegistry, client: RegistryClient, algorithm: str) -> None:
        """A manifest that was asked for by digest must have it, whatever the registry's header says."""
        headers = {"content-type": MANIFEST_MEDIA_TYPE, "docker-content-digest": MANIFEST_DIGEST}
        instead(fake, lambda _: httpx.Response(200, content=MANIFEST, headers=headers))
        with pytest.raises(RegistryError, match="does not have the digest"):
            await client.get_manifest("a/b", f"{algorithm}:{'0' * 64}")

    async def test_blob_is_missing(self, client: RegistryClient) -> None:
        """A manifest without its blob is refused with the specification's code, and is no not-found."""
        with pytest.raises(RegistryError) as raised:
            await client.put_manifest("a/b", "latest", MANIFEST, MANIFEST_MEDIA_TYPE)
        assert not isinstance(raised.value, ResourceNotFound)
        assert (raised.value.status, raised.value.codes) == (400, ("MANIFEST_BLOB_UNKNOWN",))

    async def test_read_only(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A registry in maintenance says so at the first write."""
        fake.read_only = True
        with pytest.raises(RegistryReadOnly):
            await put_blob(client, "a/b", None)
        with pytest.raises(RegistryReadOnly):
            await put_blob(client, "a/b", "a/1")


class TestTags:
    """Lists of tags."""

    async def test_unknown_repository(self, client: RegistryClient) -> None:
        """A repository that the registry does not know comes with the specification's code."""
        with pytest.raises(ResourceNotFound) as raised:
            await client.list_tags("a/b", at_most=2)
        assert raised.value.codes == ("NAME_UNKNOWN",)

    @pytest.mark.parametrize("page", [1, 2, 3])
    async def test_pages(self, fake: FakeRegistry, client: RegistryClient, page: int) -> None:
        """Pages are followed until there are enough tags, or no more."""
        await put_blob(client, "a/b", None)
        for tag in ("c", "a", "b"):
            await client.put_manifest("a/b", tag, MANIFEST, MANIFEST_MEDIA_TYPE)

        def smaller(request: httpx.Request) -> None:
            if "n" in request.url.params:
                request.url = request.url.copy_set_param("n", page)

        instead(fake, smaller)
        assert await client.list_tags("a/b", at_most=2) == ("a", "b")
        assert await client.list_tags("a/b", at_most=9) == ("a", "b", "c")

    async def test_registry_that_ignores_n(self, fake: FakeRegistry, client: RegistryClient) -> None:
        """A list that is longer than asked for is cut."""
        instead(fake, lambda _: httpx.Response(200, json={"tags": ["a", "b", "c"]}))
        assert await client.list_tags("a/b", at_most=2) == ("a", "b")

    @pytest.mark.parametrize("body", [{"name": "a/b", "tags": None}, {"name": "a/b"}, {"tags": []}])
    async def test_no_tags(self, fake: FakeRegistry, client: RegistryClient, body: object) -> None:
        """Null, absent and empty all mean that there is none."""
        instead(fake, lambda _: httpx.Response(200, json=body))
        assert await client.list_tags("a/b", at_most=2) == ()


NO_NAMES = [
    *("", ".", "..", "a/..", "../a", "a/../b", "a//b", "/a", "a/", "a%2Fb", "a%2f..%2fb", "a?b", "a#b", "a b", "a\n"),
    *("A", "aB", "a\\b", "a:b", "a@b", "ä", "\u0430", "a\u200b", "a_-b", "a___b", "-a", "a-"),
    *("a" * 246, "http://elsewhere/a", "a\r\nHost: b"),
]
NO_REFERENCES = [
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

CALLS: list[Callable[[RegistryClient, str], Awaitable[object]]] = [
    lambda client, path: client.get_manifest(path, "latest"),
    lambda client, path: client.head_manifest(path, "latest"),
    lambda client, path: client.put_manifest(path, "latest", MANIFEST, MANIFEST_MEDIA_TYPE),
    lambda client, path: client.list_tags(path, at_most=2),
    lambda client, path: client.head_blob(path, CONFIG_DIGEST),
    lambda client, path: client.put_blob(path, CONFIG, CONFIG_DIGEST, mount_from=None),
    lambda client, path: client.put_blob(path, CONFIG, CONFIG_DIGEST, mount_from="a/b"),
    lambda client, path: client.put_blob("a/b", CONFIG, CONFIG_DIGEST, mount_from=path),
]


@pytest.mark.parametrize("path", NO_NAMES)
async def test_no_name_reaches_the_wire(fake: FakeRegistry, client: RegistryClient, path: str) -> None:
    """What is no repository name is refused before there is a URL, in every place where a path goes in."""
    for call in CALLS:
        with pytest.raises(InvalidNameError):
            await call(client, path)
    assert fake.requests == []


@pytest.mark.parametrize("reference", NO_REFERENCES)
async def test_no_reference_reaches_the_wire(fake: FakeRegistry, client: RegistryClient, reference: str) -> None:
    """What is neither a tag nor a digest is refused before there is a URL."""
    for call in (
        client.get_manifest("a/b", reference),
        client.head_manifest("a/b", reference),
        client.put_manifest("a/b", reference, MANIFEST, MANIFEST_MEDIA_TYPE),
        client.head_blob("a/b", reference),
    ):
        with pytest.raises(InvalidNameError):
            await call
    with pytest.raises(InvalidNameError):
        await client.put_blob("a/b", CONFIG, reference, mount_from=None)
    assert fake.requests == []
