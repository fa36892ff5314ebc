"""Registries under test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from controller.binding import RegistryBinding
from controller.configfile import parse_binding
from controller.registry.local import LocalArtifactRegistry
from devcluster.registries import Registry, RegistryKind, start_registry
from devcluster.tools import Tool, provide
from tests.contract.wire import tap
from tests.fakes.registry import FakeRegistry

FAKE: Final = "fake"
CREATE_REQUESTS: Final[dict[str, int]] = {RegistryKind.CONTAINER_REGISTRY: 4}
"""Requests of a create once warm; the default is three. The crate lists no tags, so ``latest`` is read, too."""

SUBJECTS: Final[tuple[str, ...]] = (FAKE, *RegistryKind)
LISTING_TAGS: Final = tuple(kind for kind in SUBJECTS if kind != RegistryKind.CONTAINER_REGISTRY)
"""Registries whose tags/list tells anything; on the crate no client can see a repository's other tags."""
TAKING_INDEXES: Final = tuple(kind for kind in SUBJECTS if kind != RegistryKind.CONTAINER_REGISTRY)
"""Registries to which an image index can be pushed."""
DELETING_MANIFESTS: Final = (FAKE, RegistryKind.DISTRIBUTION_3, RegistryKind.DISTRIBUTION_2)
"""Registries that delete a manifest by its digest."""

Starter = Callable[..., Registry]


@pytest.fixture(scope="session")
def crane() -> Path:
    """The client ``crane``."""
    return provide(Tool.CRANE)


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Return a function that starts a registry, which runs until the end of the session."""
    with ExitStack() as running:

        def start_until_end(kind: RegistryKind, **options: Any) -> Registry:
            directory = tmp_path_factory.mktemp(kind.value)
            return running.enter_context(start_registry(kind, directory=directory, **options))

        yield start_until_end


@pytest.fixture(scope="session")
def running(start: Starter) -> Callable[[RegistryKind], Registry]:
    """Return the session's registry of a kind, started at first use."""
    started: dict[RegistryKind, Registry] = {}

    def get(kind: RegistryKind) -> Registry:
        if kind not in started:
            started[kind] = start(kind)
        return started[kind]

    return get


@dataclass
class Subject:
    """One registry under test.

    Args:
        kind: Which one.
        url: Where our client reaches it.
        other: Another client of it, which is not ours.
        requests: ``METHOD target`` of each request of our client, in order.
        fake: The registry itself, where it is the fake.
    """

    kind: str
    url: str
    other: httpx.AsyncClient
    requests: list[str]
    fake: FakeRegistry | None = None

    @property
    def takes_deep_paths(self) -> bool:
        """Whether a path may have more than two levels."""
        return self.kind != RegistryKind.CONTAINER_REGISTRY

    def open(self, *, prefix: str | None = None) -> LocalArtifactRegistry:
        """Return a ``LocalArtifactRegistry`` for it, with a binding named ``artifacts``."""
        return LocalArtifactRegistry("artifacts", binding(self.url, pathPrefix=prefix), transport=self.fake)

    def since(self, mark: int) -> list[str]:
        """Return the requests after the first ``mark`` ones."""
        return self.requests[mark:]


def binding(url: str, **fields: object) -> RegistryBinding:
    """Return a binding as in the configuration."""
    return parse_binding("artifacts", {"registryUrl": url, **fields})


class _NotingFake(FakeRegistry):
    """The fake, recording requests as the wire tap does."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self._notes = notes

    async def respond(self, request: httpx.Request) -> httpx.Response:
        if request.headers["user-agent"].startswith("artifact-repository-controller/"):
            self._notes.append(f"{request.method} {request.url.raw_path.decode()}")
        return await super().respond(request)


@pytest.fixture(params=SUBJECTS)
async def subject(
    request: pytest.FixtureRequest, running: Callable[[RegistryKind], Registry]
) -> AsyncIterator[Subject]:
    """Each registry in turn; a test that cannot apply to all of them names its own (``indirect=True``)."""
    async with AsyncExitStack() as stack:
        if request.param == FAKE:
            notes: list[str] = []
            fake = _NotingFake(notes)
            url = "http://fake:5000"
            other = await stack.enter_async_context(httpx.AsyncClient(base_url=url, transport=fake))
            yield Subject(FAKE, url, other, notes, fake)
        else:
            registry = running(request.param)
            wire = await stack.enter_async_context(tap(registry.url))
            other = await stack.enter_async_context(httpx.AsyncClient(base_url=registry.url, trust_env=False))
            yield Subject(request.param, wire.url, other, wire.requests)


@pytest.fixture
async def registry(subject: Subject) -> AsyncIterator[LocalArtifactRegistry]:
    """The client of the registry under test."""
    async with subject.open() as opened:
        yield opened


@pytest.fixture
def name() -> str:
    """A repository name that no other test uses."""
    return f"repository-{uuid.uuid4().hex[:12]}"
