"""The client of the API server, against a server that may say anything."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import yaml
from yarl import URL

from controller import USER_AGENT
from controller.api.v1alpha1 import Key
from controller.errors import KubernetesError, KubernetesUnavailable
from controller.kube.access import ClusterAccess
from controller.kube.client import KubernetesClient
from controller.kube.kubeconfig import KubeconfigSource
from controller.kube.paging import MAX_PAGE
from controller.kube.watchtrace import AskedToWait, EmptyLists, Patience
from tests.fakes.raw_server import RawServer, Writer, raw_server
from tests.unit.objects import make_object

NONSENSE = [
    b"{}",
    b"[]",
    b'"text"',
    b"<html>",
    b'{"kind": "ArtifactRepo',
    b'{"kind": "ArtifactRepositoryList", "metadata": {}, "items": null}',
    b'{"kind": "ArtifactRepositoryList", "metadata": null, "items": []}',
    b'{"kind": "ArtifactRepositoryList", "metadata": {}, "items": [null]}',
    b'{"kind": "ArtifactRepositoryList", "metadata": {"continue": 5}, "items": []}',
    b'{"kind": "Status", "status": "Success", "metadata": {}}',
    b'{"metadata": null, "spec": "text"}',
    b'{"metadata": {"name": 1, "namespace": [], "uid": {}, "resourceVersion": 5, "generation": "x"}}',
    b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b"\xff\xfe",
    b"",
]

Asking = Callable[[KubernetesClient], Any]


@asynccontextmanager
async def client_of(
    tmp_path: Path, status: str, body: bytes, **headers: str
) -> AsyncIterator[tuple[KubernetesClient, RawServer]]:
    """Return a client whose server always responds the same."""

    async def respond(_head: str, writer: Writer) -> None:
        await writer.respond(status, body, **headers)

    async with client_to(tmp_path, respond) as pair:
        yield pair


@asynccontextmanager
async def client_to(
    tmp_path: Path, respond: Callable[[str, Writer], Awaitable[None]]
) -> AsyncIterator[tuple[KubernetesClient, RawServer]]:
    """Return a client and its server."""
    async with raw_server(respond) as server:
        kubeconfig = tmp_path / "kubeconfig"
        cluster, user = {"name": "c", "cluster": {"server": server.url}}, {"name": "u", "user": {}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        content = {"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "x"}
        kubeconfig.write_text(yaml.safe_dump(content))
        client = KubernetesClient(ClusterAccess(KubeconfigSource(kubeconfig)))
        try:
            yield client, server
        finally:
            await client.close()


async def pages(client: KubernetesClient) -> list[Any]:
    """List all objects."""
    return [page.objects async for page in client.list_pages("")]


@pytest.mark.parametrize("large", [0, 1, 40], ids="{} large objects".format)
async def test_pages_are_limited_by_bytes(tmp_path: Path, large: int) -> None:
    """Whatever the sizes of objects, all are listed once; pages that turn out too large are few, and not read."""
    sizes = [1000] * 1500 + [1_300_000] * large + [1000] * 1500
    read: list[int] = []

    async def respond(head: str, writer: Writer) -> None:
        query = parse_qs(urlsplit(head.split(" ")[1]).query)
        limit, start = int(query["limit"][0]), int(query.get("continue", ["0"])[0])
        items, end = sizes[start : start + limit], start + limit
        body = listed(items, start, more=str(end) if end < len(sizes) else "")
        read.append(len(body) if len(items) > 1 else 0)
        await writer.respond("200 OK", body)

    async with client_to(tmp_path, respond) as (client, _):
        names = [object_.key.name for page in await pages(client) for object_ in page]
    assert names == [f"name-{number}" for number in range(len(sizes))]
    assert sum(size > MAX_PAGE for size in read) <= 12
    assert len(read) < 25 + 2 * large


@pytest.mark.parametrize(
    ("offers", "read"),
    [(["later"], ["name-0", "name-1", "name-2"]), ([""], None), (["later", "even-later"], None)],
    ids=["with a token for the rest", "without one", "again and again"],
)
async def test_a_list_goes_on_after_its_state_has_expired(
    tmp_path: Path, offers: list[str], read: list[str] | None
) -> None:
    """A list that is read slowly outlives the state it began with; where the server offers no rest, it fails."""
    left = iter(offers)

    async def respond(head: str, writer: Writer) -> None:
        token = parse_qs(urlsplit(head.split(" ")[1]).query).get("continue", [""])[0]
        match token:
            case "":
                await writer.respond("200 OK", listed([10], 0, more="early"))
            case "early" | "later" if (offer := next(left, None)) is not None:
                status = {"kind": "Status", "message": "expired", "metadata": {"continue": offer}, "code": 410}
                await writer.respond("410 Gone", json.dumps(status).encode())
            case _:
                await writer.respond("200 OK", listed([10, 10], 1, more=""))

    async with client_to(tmp_path, respond) as (client, _):
        if read is None:
            with pytest.raises(KubernetesError, match="expired"):
                await pages(client)
        else:
            assert [object_.key.name for page in await pages(client) for object_ in page] == read


@pytest.mark.parametrize(
    ("url", "status", "sent", "reported"),
    [
        ("/things?limit=500", 200, "/things?limit=500&fieldSelector=metadata.name%3D", 1),
        ("/things?limit=500", 403, "/things?limit=500&fieldSelector=metadata.name%3D", 0),
        ("/things?watch=true", 200, "/things?watch=true", 0),
        ("/others?limit=500", 200, "/others?limit=500", 0),
    ],
)
async def test_lists_of_the_watch_are_empty(url: str, status: int, sent: str, reported: int) -> None:
    """Only lists of the objects select none, keep the rest of their query, and are reported once they are accepted."""
    seen: list[URL] = []
    lists: list[None] = []

    async def respond(head: str, writer: Writer) -> None:
        seen.append(URL(head.split(" ")[1], encoded=True))
        await writer.respond(f"{status} Status")

    middleware = EmptyLists("things", lambda: lists.append(None))
    async with (
        raw_server(respond) as server,
        aiohttp.ClientSession(middlewares=(middleware,)) as session,
        session.get(URL(server.url + url, encoded=True)),
    ):
        assert [(one.path, one.query) for one in seen] == [(URL(sent).path, URL(sent).query)]
        assert len(lists) == reported


def listed(sizes: Sequence[int], start: int, *, more: str) -> bytes:
    """Return a page of a list."""
    items = [
        {
            "metadata": {
                "namespace": "team",
                "name": f"name-{number}",
                "uid": "u",
                "resourceVersion": "1",
                "generation": 1,
                "labels": {"x": "x" * size},
            }
        }
        for number, size in enumerate(sizes, start)
    ]
    content = {"kind": "ArtifactRepositoryList", "metadata": {"continue": more}, "items": items}
    return json.dumps(content).encode()


REQUESTS: dict[str, Asking] = {
    "get": lambda client: client.get(Key("team", "web")),
    "patch": lambda client: client.patch_status(make_object(), {"uri": "x"}),
    "list": pages,
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[-70:]))
async def test_nonsense_is_an_error_that_is_retried(tmp_path: Path, request_: Asking, body: bytes) -> None:
    """Whatever the body is, the error is the one that callers retry."""
    async with client_of(tmp_path, "200 OK", body) as (client, _):
        with pytest.raises(KubernetesUnavailable):
            await request_(client)


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[-70:]))
async def test_a_failure_with_any_body(tmp_path: Path, body: bytes) -> None:
    """The message of a failure may be missing."""
    async with client_of(tmp_path, "403 Forbidden", body) as (client, _):
        with pytest.raises(KubernetesError, match="403"):
            await client.get(Key("team", "web"))


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        ("429 Too Many Requests", "20", 20.0),
        ("503 Service Unavailable", "20", 20.0),
        ("429 Too Many Requests", "99999999", 60.0),
        ("429 Too Many Requests", "Tue, 24 Nov 2099 12:00:30 GMT", 60.0),
        ("429 Too Many Requests", "soon", 0.0),
        ("403 Forbidden", "20", 0.0),
    ],
)
async def test_retry_after(tmp_path: Path, status: str, header: str, seconds: float) -> None:
    """For 429 and 5xx, in seconds or as a date, within bounds."""
    async with client_of(tmp_path, status, b"", Retry_After=header) as (client, _):
        with pytest.raises(KubernetesError) as raised:
            await client.get(Key("team", "web"))
    assert raised.value.retry_after == seconds


async def test_identity(tmp_path: Path) -> None:
    """Each request has the operator's User-Agent, and a write of status names its field manager."""
    body = json.dumps({"metadata": {"name": "x"}}).encode()
    async with client_of(tmp_path, "200 OK", body) as (client, server):
        with pytest.raises(KubernetesUnavailable):
            await client.patch_status(make_object(), {"uri": "x"})
        assert f"user-agent: {USER_AGENT}" in server.heads[0]
        assert "/status?fieldManager=artifact-repository-controller " in server.heads[0].partition("\r\n")[0]


@pytest.mark.looptime
@pytest.mark.parametrize(("status", "header"), [(429, "20"), (503, "20"), (429, "Tue, 24 Nov 2099 12:00:30 GMT")])
async def test_the_watch_waits_as_long_as_it_is_asked(status: int, header: str) -> None:
    """Kopf's session sends nothing before that time, whatever kopf makes of the response."""

    class Answer:
        """A response."""

        def __init__(self) -> None:
            self.status, self.headers = status, {"Retry-After": header}

        def release(self) -> None:
            """Nothing is open."""

    async def send(_: object) -> Any:
        sent.append(loop.time())
        return Answer()

    loop, patience = asyncio.get_running_loop(), Patience()
    sent: list[float] = []
    request: Any = None
    for _ in range(3):
        with pytest.raises(AskedToWait, match="asks to wait"):
            await patience(request, send)
    assert all(later - earlier >= 20 for earlier, later in pairwise(sent))
    assert issubclass(AskedToWait, aiohttp.ClientConnectionError)  # what kopf retries
