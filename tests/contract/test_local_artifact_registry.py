"""The contract of ``LocalArtifactRegistry``, on the fake and on every real registry.

=====================  =========================================================================================
existing content       result of create and ensure; of get
=====================  =========================================================================================
nothing                the marker is pushed (three requests once warm, four on the crate); ResourceNotFound
the marker             nothing is written; origin Created; verified by one request
a user's ``latest``    nothing is written; origin Adopted (also for an image index)
other tags only        nothing is written, in particular no ``latest``; origin Adopted; found
the marker and others  nothing is written; origin Adopted
``latest`` is dangling the marker is pushed
=====================  =========================================================================================
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.errors import NameRefused, ResourceNotFound
from controller.registry import marker
from controller.registry.local import LocalArtifactRegistry
from controller.registry.protocol import EnsuredRepository, Origin, RepositoryResponse
from devcluster.registries import Registry, RegistryKind
from tests.contract import images
from tests.contract.conftest import CREATE_REQUESTS, DELETING_MANIFESTS, LISTING_TAGS, TAKING_INDEXES, Subject

# The first test of a registry builds it if it is not in the cache.
pytestmark = pytest.mark.timeout(900)

WRITES = ("POST", "PATCH", "PUT", "DELETE")
NO_DIGEST = f"sha256:{'0' * 64}"


def writes(requests: list[str]) -> list[str]:
    """Return the requests that may change something."""
    return [request for request in requests if request.startswith(WRITES)]


@pytest.mark.parametrize("subject", LISTING_TAGS, indirect=True)
async def test_user_tags(subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
    """The marker is no tag; an image is one, also as ``latest``, where it replaces the marker."""
    path = registry.path(name)
    await registry.create_repository(name)
    assert await registry.user_tags(path) == ()
    await images.push_image(subject.other, path, "v1")
    assert await registry.user_tags(path) == ("v1",)
    await images.push_image(subject.other, path, "latest")
    assert sorted(await registry.user_tags(path)) == ["latest", "v1"]


class TestNothingThere:
    """Repositories that do not exist."""

    async def test_create_makes_it_exist(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Create returns name and URI; afterwards get returns the same."""
        host = subject.url.removeprefix("http://")
        expected = RepositoryResponse(name, f"{host}/artifacts/{name}", None)
        assert await registry.create_repository(name) == expected
        assert await registry.get_repository(name) == expected
        assert registry.reference(name) == f"{expected.uri}:latest"

    async def test_marker_is_complete(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Another client reads the marker's canonical bytes and its config blob."""
        await registry.create_repository(name)
        path = f"artifacts/{name}"
        assert await images.fetch(subject.other, path, "latest") == (marker.MANIFEST, marker.MANIFEST_MEDIA_TYPE)
        blob = await subject.other.get(f"/v2/{path}/blobs/{marker.CONFIG_DIGEST}")
        assert (blob.status_code, blob.content) == (200, marker.CONFIG)

    async def test_ensure_reports_whether_it_created(self, registry: LocalArtifactRegistry, name: str) -> None:
        """The first call reports that it pushed the marker, the next one that it did not."""
        first = await registry.ensure_repository(name)
        assert first == EnsuredRepository(name, f"artifacts/{name}", registry.uri(name), Origin.CREATED, created=True)
        second = await registry.ensure_repository(name)
        assert (second.origin, second.created) == (Origin.CREATED, False)

    async def test_get_raises_not_found(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Get raises ResourceNotFound with the requested id, and writes nothing."""
        with pytest.raises(ResourceNotFound) as raised:
            await registry.get_repository(name)
        assert (raised.value.resource_id, raised.value.status) == (name, 404)
        assert not writes(subject.requests)

    async def test_get_raises_not_found_beside_a_longer_name(self, registry: LocalArtifactRegistry, name: str) -> None:
        """A prefix of another repository's name is not found."""
        await registry.create_repository(f"{name}-and-more")
        with pytest.raises(ResourceNotFound):
            await registry.get_repository(name)

    async def test_sixteen_at_once(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Sixteen concurrent creates of one repository all succeed, and the marker is pushed once."""
        results = await asyncio.gather(*(registry.ensure_repository(name) for _ in range(16)))
        assert sorted(result.created for result in results) == [False] * 15 + [True]
        assert {result.origin for result in results} == {Origin.CREATED}
        assert sum(request.startswith("PUT ") and "/manifests/" in request for request in subject.requests) == 1

    async def test_sixteen_repositories_at_once(self, registry: LocalArtifactRegistry, name: str) -> None:
        """Sixteen repositories created concurrently all exist, even before anything is known about the registry."""
        names = [f"{name}-{number}" for number in range(16)]
        results = await asyncio.gather(*(registry.ensure_repository(each) for each in names))
        assert all(result.created for result in results)
        found = await asyncio.gather(*(registry.get_repository(each) for each in names))
        assert [each.name for each in found] == names

    async def test_three_levels(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """A path of four levels works; on a registry with at most two levels it raises NameRefused."""
        deep = f"team/sub/{name}"
        if subject.takes_deep_paths:
            assert (await registry.ensure_repository(deep)).created
            assert (await registry.get_repository(deep)).uri.endswith(f"/artifacts/{deep}")
            return
        with pytest.raises(NameRefused, match="name rejected") as raised:
            await registry.ensure_repository(deep)
        assert raised.value.status == 404
        # The rejection of one name does not affect others.
        assert (await registry.ensure_repository(name)).created

    async def test_root_of_the_registry(self, subject: Subject, name: str) -> None:
        """With an empty path prefix, repositories are at the registry's root, and existing ones are adopted."""
        await images.push_image(subject.other, f"root/{name}", "latest")
        async with subject.open(prefix="") as registry:
            assert (await registry.ensure_repository(f"root/{name}")).origin is Origin.ADOPTED
            assert (await registry.ensure_repository(f"root/{name}-2")).uri.endswith(f"/root/{name}-2")
        assert await images.fetch(subject.other, f"root/{name}-2", "latest") is not None


class TestMarkerThere:
    """Repositories with only the marker."""

    async def test_create_again(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Creating again returns the same and writes nothing."""
        first = await registry.create_repository(name)
        mark = len(subject.requests)
        assert await registry.create_repository(name) == first
        assert not writes(subject.since(mark))

    async def test_created_by_another_operator(self, subject: Subject, name: str) -> None:
        """A new client recognises the marker: Created, not Adopted."""
        async with subject.open() as one:
            await one.ensure_repository(name)
        async with subject.open() as another:
            seen = await another.ensure_repository(name)
        assert (seen.origin, seen.created) == (Origin.CREATED, False)

    async def test_serialised_by_another_client(
        self, subject: Subject, registry: LocalArtifactRegistry, name: str
    ) -> None:
        """The marker is recognised in the seed's serialisation."""
        path = f"artifacts/{name}"
        await images.push_blob(subject.other, path, marker.CONFIG)
        content = json.dumps(json.loads(marker.MANIFEST), indent=2).encode()
        headers = {"content-type": marker.MANIFEST_MEDIA_TYPE}
        pushed = await subject.other.put(f"/v2/{path}/manifests/latest", content=content, headers=headers)
        assert pushed.status_code == 201
        assert (await registry.ensure_repository(name)).origin is Origin.CREATED
        assert await images.fetch(subject.other, path, "latest") == (content, marker.MANIFEST_MEDIA_TYPE)

    @pytest.mark.parametrize("subject", LISTING_TAGS, indirect=True)
    async def test_marker_and_another_tag(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """A repository with the marker and another tag is Adopted when first seen, and the marker stays."""
        await registry.create_repository(name)
        await images.push_image(subject.other, f"artifacts/{name}", "v1")
        mark = len(subject.requests)
        assert (await registry.ensure_repository(name)).origin is Origin.ADOPTED
        assert not writes(subject.since(mark))

    async def test_delete_does_nothing(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Delete succeeds without a request; the repository stays."""
        await registry.create_repository(name)
        mark = len(subject.requests)
        await registry.delete_repository(name)
        assert subject.since(mark) == []
        assert (await registry.get_repository(name)).name == name


class TestUsersContent:
    """Repositories with content of others, which must not change."""

    async def use(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Run all operations that must not change a repository, and assert that nothing was written."""
        mark = len(subject.requests)
        await registry.create_repository(name)
        await registry.get_repository(name)
        for known in (None, Origin.ADOPTED, Origin.CREATED):
            ensured = await registry.ensure_repository(name, known_origin=known)
            assert (ensured.origin, ensured.created) == (known or Origin.ADOPTED, False)
        assert not writes(subject.since(mark))

    async def test_latest(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """A user's ``latest`` is adopted and stays byte-identical."""
        path = f"artifacts/{name}"
        image = await images.push_image(subject.other, path, "latest")
        await self.use(subject, registry, name)
        assert await images.fetch(subject.other, path, "latest") == (image.content, image.media_type)

    @pytest.mark.parametrize("subject", TAKING_INDEXES, indirect=True)
    async def test_index_as_latest(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """A user's multi-platform ``latest`` is adopted and stays byte-identical."""
        path = f"artifacts/{name}"
        index = await images.push_index(subject.other, path, "latest")
        await self.use(subject, registry, name)
        assert await images.fetch(subject.other, path, "latest") == (index.content, index.media_type)

    @pytest.mark.parametrize("subject", LISTING_TAGS, indirect=True)
    @pytest.mark.parametrize("others", [("v1",), ("a", "b", "c"), ("latest-2", "zz")])
    async def test_other_tags_only(
        self, subject: Subject, registry: LocalArtifactRegistry, name: str, others: tuple[str, ...]
    ) -> None:
        """A repository without ``latest`` is adopted; no ``latest`` is added, and its tags stay the same."""
        path = f"artifacts/{name}"
        pushed = {tag: await images.push_image(subject.other, path, tag, layer=tag.encode()) for tag in others}
        await self.use(subject, registry, name)
        assert await images.tags(subject.other, path) == sorted(others)
        for tag, image in pushed.items():
            assert await images.fetch(subject.other, path, tag) == (image.content, image.media_type)

    async def test_pushed_meanwhile(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """A user's push over the marker stays, and so does the repository's known origin."""
        await registry.ensure_repository(name)
        path = f"artifacts/{name}"
        image = await images.push_image(subject.other, path, "latest")
        ensured = await registry.ensure_repository(name, known_origin=Origin.CREATED)
        assert (ensured.origin, ensured.created) == (Origin.CREATED, False)
        assert await images.fetch(subject.other, path, "latest") == (image.content, image.media_type)

    async def test_others_are_left_alone(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Every request is for the requested repository.

        Another one is only used as a mount's source; where mounts are ignored, its blob is looked up.
        """
        for each in (name, f"{name}-2"):
            mark = len(subject.requests)
            await registry.create_repository(each)
            for request in subject.since(mark):
                own = request.split(" ")[1].startswith(f"/v2/artifacts/{each}/")
                assert own or request == f"HEAD /v2/artifacts/{name}/blobs/{marker.CONFIG_DIGEST}"


class TestGone:
    """Repositories that were deleted."""

    @pytest.mark.parametrize("subject", DELETING_MANIFESTS, indirect=True)
    @pytest.mark.parametrize("known", [None, Origin.CREATED])
    async def test_created_again(
        self, subject: Subject, registry: LocalArtifactRegistry, name: str, known: Origin | None
    ) -> None:
        """A repository whose manifests were deleted is created again, even if its tag is still listed."""
        await registry.ensure_repository(name)
        path = f"artifacts/{name}"
        if subject.fake is not None:
            subject.fake.repositories[path].manifests.clear()
        else:
            deleted = await subject.other.delete(f"/v2/{path}/manifests/{marker.MANIFEST_DIGEST}")
            assert deleted.status_code == 202
        with pytest.raises(ResourceNotFound):
            await registry.get_repository(name)
        ensured = await registry.ensure_repository(name, known_origin=known)
        assert (ensured.origin, ensured.created) == (Origin.CREATED, True)
        assert await images.fetch(subject.other, path, "latest") == (marker.MANIFEST, marker.MANIFEST_MEDIA_TYPE)


class TestOnTheWire:
    """Request counts."""

    async def test_create(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Once warm, a create takes three requests (four on the crate)."""
        for number in range(3):
            await registry.ensure_repository(f"{name}-{number}")
        mark = len(subject.requests)
        await registry.ensure_repository(name)
        assert len(subject.since(mark)) == CREATE_REQUESTS.get(subject.kind, 3)

    async def test_verify(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """A known repository is verified by one request."""
        await registry.ensure_repository(name)
        mark = len(subject.requests)
        await registry.ensure_repository(name, known_origin=Origin.CREATED)
        assert subject.since(mark) == [f"HEAD /v2/artifacts/{name}/manifests/latest"]

    async def test_restarted_operator_is_warm(self, subject: Subject, name: str) -> None:
        """After verifying one created repository, the next create mounts from it instead of uploading."""
        async with subject.open() as before:
            await before.ensure_repository(name)
        async with subject.open() as registry:
            await registry.ensure_repository(name, known_origin=Origin.CREATED)
            mark = len(subject.requests)
            await registry.ensure_repository(f"{name}-2")
        mounts = [request for request in subject.since(mark) if "mount=" in request]
        assert len(mounts) == 1
        assert f"from=artifacts/{name}" in mounts[0]

    async def test_window(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Between the last read and the push of the marker are at most two requests, cold or warm."""
        for number in range(3):
            mark = len(subject.requests)
            await registry.ensure_repository(f"{name}-{number}")
            requests = subject.since(mark)
            assert requests[-1] == f"PUT /v2/artifacts/{name}-{number}/manifests/latest"
            questions = [
                index
                for index, request in enumerate(requests)
                if request.startswith("GET ") and ("/tags/list" in request or "/manifests/latest" in request)
            ]
            assert len(requests) - 2 - questions[-1] <= 2

    async def test_ping(self, subject: Subject, registry: LocalArtifactRegistry) -> None:
        """Ping is one request without a repository."""
        await registry.ping()
        assert subject.requests == ["GET /v2/"]


class TestManifestsAndBlobs:
    """Read operations, with full paths in the registry."""

    async def test_get_manifest(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """By tag and by digest, the pushed bytes are returned with their media type."""
        path = f"artifacts/{name}"
        image = await images.push_image(subject.other, path, "v1")
        for reference in ("v1", image.digest):
            assert await registry.get_manifest(path, reference) == (image.content, image.media_type)

    async def test_get_manifest_missing(self, registry: LocalArtifactRegistry, name: str) -> None:
        """A missing manifest is an error with its status, in a repository that exists and in one that does not."""
        await registry.create_repository(name)
        for path in (f"artifacts/{name}", f"artifacts/{name}-2"):
            with pytest.raises(ResourceNotFound) as raised:
                await registry.get_manifest(path, "v2")
            assert raised.value.status == 404

    async def test_head_manifest(self, subject: Subject, registry: LocalArtifactRegistry, name: str) -> None:
        """Media type and digest are returned, even where the registry states no digest; None for a missing manifest."""
        path = f"artifacts/{name}"
        image = await images.push_image(subject.other, path, "v1")
        assert await registry.head_manifest(path, "v1") == (image.media_type, image.digest)
        assert await registry.head_manifest(path, "v2") is None
        assert await registry.head_manifest(f"{path}-2", "v1") is None

    async def test_head_blob(self, registry: LocalArtifactRegistry, name: str) -> None:
        """A blob's size is returned; None for a missing blob."""
        await registry.create_repository(name)
        path = f"artifacts/{name}"
        assert await registry.head_blob(path, marker.CONFIG_DIGEST) == len(marker.CONFIG)
        assert await registry.head_blob(path, NO_DIGEST) is None


@pytest.mark.parametrize("kind", list(RegistryKind))
async def test_marker_by_crane(
    kind: RegistryKind, running: Callable[[RegistryKind], Registry], crane: Path, name: str
) -> None:
    """crane, a widely used client, fetches and validates the marker."""
    url = running(kind).url
    async with LocalArtifactRegistry("artifacts", {"registryUrl": url}) as registry:
        await registry.create_repository(name)
        reference = registry.reference(name)
    for arguments, expected in (
        (("manifest", reference), marker.MANIFEST),
        (("digest", reference), f"{marker.MANIFEST_DIGEST}\n".encode()),
        (("config", reference), marker.CONFIG),
    ):
        process = await asyncio.create_subprocess_exec(
            crane, *arguments, "--insecure", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
        assert (process.returncode, output.strip()) == (0, expected.strip()), errors
