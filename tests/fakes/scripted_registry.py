"""Registry on loopback that answers by rules, and otherwise as Distribution does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any, Final

import httpx

from controller.registry import marker
from tests.cases.models import Answer, ScriptedRegistry
from tests.fakes.raw_server import Writer, raw_server
from tests.fakes.registry import FakeRegistry, FakeRepository, StoredManifest

_INDEX: Final = "application/vnd.oci.image.index.v1+json"
HELD: Final = {
    "image": StoredManifest(
        b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [{"size": 1}]}',
        marker.MANIFEST_MEDIA_TYPE,
    ),
    "index": StoredManifest(
        b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}', _INDEX
    ),
    "marker": StoredManifest(marker.MANIFEST, marker.MANIFEST_MEDIA_TYPE),
}
"""What a repository may hold from the start, by its name in a case."""


class Script:
    """Answers to requests, by the rules of a case.

    Args:
        case: The rules, and what the registry holds.

    Attributes:
        content: The registry for what no rule matches.
        host: Its ``host:port``.
    """

    def __init__(self, case: ScriptedRegistry) -> None:
        self.content = FakeRegistry()
        self.host = ""
        self._answers = case.answers
        self._used: Counter[int] = Counter()
        for path, tags in case.holds.items():
            repository = self.content.repositories.setdefault(path, FakeRepository())
            for tag, what in tags.items():
                digest = marker.sha256_digest(HELD[what].content)
                repository.manifests[digest] = HELD[what]
                repository.tags[tag] = digest

    async def respond(self, request: httpx.Request) -> tuple[httpx.Response, bool]:
        """Return the response to a request, and whether it is sent in chunks."""
        for number, answer in enumerate(self._answers):
            if self._used[number] != answer.times and _matches(answer, request):
                self._used[number] += 1
                return await self._answer(answer, request), answer.chunked
        return await self.content.respond(request), False

    async def _answer(self, answer: Answer, request: httpx.Request) -> httpx.Response:
        headers = {name: self._placed(value) for name, value in answer.headers.items()}
        if answer.status is not None:
            return httpx.Response(answer.status, headers=headers, **self._body(answer, request))
        response = await self.content.respond(request)
        if answer.status_instead is not None and response.is_success:
            response.status_code = answer.status_instead
        response.headers.update(headers)
        return response

    def _body(self, answer: Answer, request: httpx.Request) -> dict[str, Any]:
        if answer.generate is not None:
            name = request.url.path.removeprefix("/v2/").removesuffix("/tags/list")
            return {"json": {"name": name, "tags": [f"{number:040x}" for number in range(answer.generate.count)]}}
        if answer.json_body is not None:
            return {"json": json.loads(self._placed(json.dumps(answer.json_body)))}
        return {} if answer.text is None else {"content": self._placed(answer.text).encode()}

    def _placed(self, text: str) -> str:
        return text.replace("{host}", self.host)


def _matches(answer: Answer, request: httpx.Request) -> bool:
    methods, _, target = answer.on.partition(" ")
    scopes = " ".join(request.url.params.get_list("scope"))
    return (
        (methods == "*" or request.method in methods.split("|"))
        and fnmatchcase(request.url.raw_path.decode(), target)
        and answer.body in (None, "full" if request.content else "empty")
        and answer.authorization in (None, request.headers.get("authorization"))
        and (answer.scope is None or fnmatchcase(scopes, answer.scope))
    )


@asynccontextmanager
async def scripted_registry(case: ScriptedRegistry) -> AsyncIterator[Script]:
    """Run the registry of a case on a free loopback port."""
    script = Script(case)

    async def respond(head: str, writer: Writer) -> None:
        request = _request(head, script.host, server.bodies[-1])
        response, chunked = await script.respond(request)
        await _send(response, writer, head=request.method == "HEAD", chunked=chunked)

    async with raw_server(respond) as server:
        script.host = server.url.removeprefix("http://")
        yield script


def _request(head: str, host: str, body: bytes) -> httpx.Request:
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(": ") for line in lines)
    headers = [(name, value) for name, _, value in pairs]
    return httpx.Request(method, f"http://{host}{target}", headers=headers, content=body)


async def _send(response: httpx.Response, writer: Writer, *, head: bool, chunked: bool) -> None:
    body = b"" if head else response.content
    lines = [f"HTTP/1.1 {response.status_code} {_phrase(response.status_code)}"]
    framing = ("content-length", "transfer-encoding")
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name not in framing]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        body = b"" if head else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif response.status_code != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {response.headers.get('content-length', '0') if head else len(body)}")
    await writer.send(("\r\n".join(lines) + "\r\n\r\n").encode() + body)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
