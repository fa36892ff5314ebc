"""The metrics server: TLS, and who may read."""

import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from controller.errors import ConfigError, KubernetesUnavailable
from controller.httpserver import serve
from controller.kube.tokenreview import TokenReviewer
from controller.metrics import Metrics
from controller.metricsserver import metrics_application, server_certificate
from controller.reconcile.interfaces import SystemClock
from devcluster.process import free_port


class Reviews:
    """An API server that knows two tokens, of which one belongs to a user who may read metrics."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.answer: Callable[[], dict[str, Any]] | None = None

    async def request(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Answer a review."""
        assert (method, body is not None) == ("POST", True)
        spec = body["spec"] if body else {}
        self.sent.append(path.rpartition("/")[2])
        if self.answer is not None:
            return self.answer()
        if path.endswith("tokenreviews"):
            known = spec["token"] in ("reader", "other")
            return {"status": {"authenticated": known, "user": {"username": spec["token"], "groups": ["g"]}}}
        assert spec["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
        assert spec["groups"] == ["g"]
        return {"status": {"allowed": spec["user"] == "reader"}}


async def read(address: str, token: str | None = None) -> httpx.Response:
    """Request the metrics."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        return await client.get(f"http://{address}/metrics", headers=headers)


async def test_authorization() -> None:
    """Only a bearer whose user may get /metrics reads them; each decision is asked for once a minute."""
    api = Reviews()
    address = f"127.0.0.1:{free_port()}"
    application = metrics_application(Metrics(), TokenReviewer(api, SystemClock()).authorize)
    async with serve(application, address):
        assert (await read(address)).status_code == HTTPStatus.UNAUTHORIZED
        assert (await read(address, "unknown")).status_code == HTTPStatus.UNAUTHORIZED
        assert (await read(address, "other")).status_code == HTTPStatus.FORBIDDEN
        allowed = await read(address, "reader")
        assert allowed.status_code == HTTPStatus.OK
        assert "artifact_repository_objects" in allowed.text
        before = list(api.sent)
        for token in ("unknown", "other", "reader"):
            await read(address, token)
        assert api.sent == before


@pytest.mark.parametrize("answer", [{}, {"status": None}, {"status": {"authenticated": "true"}}, {"status": []}])
async def test_nonsense_is_a_refusal(answer: dict[str, Any]) -> None:
    """A review without a clear answer refuses the request."""
    api = Reviews()
    api.answer = lambda: answer
    assert await TokenReviewer(api, SystemClock()).authorize("reader") == HTTPStatus.UNAUTHORIZED


async def test_no_review_is_a_refusal() -> None:
    """Where the API server cannot review a token, the response is 503, and the next request asks again."""
    api = Reviews()

    def fail() -> dict[str, Any]:
        raise KubernetesUnavailable("shutting down", status=503)

    api.answer = fail
    address = f"127.0.0.1:{free_port()}"
    async with serve(metrics_application(Metrics(), TokenReviewer(api, SystemClock()).authorize), address):
        assert (await read(address, "reader")).status_code == HTTPStatus.SERVICE_UNAVAILABLE
        api.answer = None
        assert (await read(address, "reader")).status_code == HTTPStatus.OK


async def test_decisions_are_bounded() -> None:
    """Tokens that nobody knows do not fill the memory."""
    reviewer = TokenReviewer(Reviews(), SystemClock())
    for number in range(1000):
        await reviewer.authorize(f"token-{number}")
    assert len(reviewer._decisions) <= 256


async def test_tls(tmp_path: Path) -> None:
    """With a certificate the metrics are served by HTTPS only."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    address = f"localhost:{free_port()}"
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)
    async with serve(metrics_application(Metrics()), address, tls=server_certificate(tmp_path)):
        async with httpx.AsyncClient(verify=client_tls, trust_env=False) as client:
            assert (await client.get(f"https://{address}/metrics")).status_code == HTTPStatus.OK
        with pytest.raises(httpx.HTTPError):
            await read(address)


def test_a_certificate_that_is_missing(tmp_path: Path) -> None:
    """A missing or invalid certificate is an error that names the files."""
    with pytest.raises(ConfigError, match=r"tls\.crt"):
        server_certificate(tmp_path)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("no certificate")
    with pytest.raises(ConfigError, match=r"tls\.crt"):
        server_certificate(tmp_path)
