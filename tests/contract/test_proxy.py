"""A registry behind an HTTP proxy: tunnels for https://, plain requests for http://, with and without a login."""

from __future__ import annotations

import base64
import ssl
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from controller.errors import RegistryUnavailable
from controller.reconcile.explanations import explain
from controller.registry.local import LocalArtifactRegistry
from controller.registry.protocol import Origin
from devcluster.certificates import CertificateAuthority
from devcluster.registries import Registry, RegistryKind
from tests.contract.conftest import Starter, binding
from tests.fakes.http_proxy import http_proxy

pytestmark = pytest.mark.timeout(300)

USER, PASSWORD, QUOTED = "robot", "p@ss/w0rd%", "p%40ss%2Fw0rd%25"
LOGIN = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
SECRETS = (PASSWORD, QUOTED, LOGIN.removeprefix("Basic "), base64.b64encode(PASSWORD.encode()).decode())


@dataclass
class Place:
    """A registry, and what it takes to trust it and a proxy of the same CA."""

    registry: Registry
    fields: dict[str, object]
    proxy_tls: ssl.SSLContext


@pytest.fixture(scope="module")
def secure(start: Starter, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A registry with TLS."""
    authority = CertificateAuthority(tmp_path_factory.mktemp("ca"))
    certificate = authority.issue("proxy")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    registry = start(RegistryKind.DISTRIBUTION_3, tls=authority.issue("registry"), ca_file=authority.ca_file)
    return Place(registry, {"tls": {"caFile": str(authority.ca_file)}}, tls)


@pytest.fixture(params=["http", "https"])
def place(request: pytest.FixtureRequest, running: Callable[[RegistryKind], Registry], secure: Place) -> Place:
    """A registry without, or with TLS."""
    return secure if request.param == "https" else Place(running(RegistryKind.DISTRIBUTION_3), {}, secure.proxy_tls)


def with_login(url: str, password: str = QUOTED) -> str:
    """Return a proxy's URL with a user and a password."""
    return url.replace("://", f"://{USER}:{password}@")


async def test_create_and_verify(place: Place, name: str) -> None:
    """Everything goes through the proxy, with its login; the registry is never contacted directly."""
    async with http_proxy() as proxy:
        proxy.authorization = LOGIN
        fields = {**place.fields, "proxy": with_login(proxy.url)}
        async with LocalArtifactRegistry("artifacts", binding(place.registry.url, **fields)) as registry:
            await registry.ping()
            assert (await registry.ensure_repository(name)).created
            assert not (await registry.ensure_repository(name, known_origin=Origin.CREATED)).created
        host = urlsplit(place.registry.url).netloc
        lines = {head.partition("\r\n")[0].rpartition(" ")[0] for head in proxy.heads}
        if place.fields:
            assert lines == {f"CONNECT {host}"}
        else:
            assert lines
            assert all(f"{place.registry.url}/v2/" in line for line in lines)


async def test_proxy_with_tls(secure: Place, name: str) -> None:
    """A proxy may itself be contacted by TLS; its certificate is verified like the registry's."""
    async with http_proxy(tls=secure.proxy_tls) as proxy:
        fields = {**secure.fields, "proxy": proxy.url}
        async with LocalArtifactRegistry("artifacts", binding(secure.registry.url, **fields)) as registry:
            assert (await registry.ensure_repository(name)).created
        assert proxy.heads


@pytest.mark.parametrize(
    ("proxy_password", "problem"), [(None, "requires a login (407)"), ("wr0ng-s3cret", "rejects the login (407)")]
)
async def test_login_that_the_proxy_rejects(place: Place, name: str, proxy_password: str | None, problem: str) -> None:
    """The message names proxy and problem, and the account is left alone for a while."""
    async with http_proxy() as proxy:
        proxy.authorization = LOGIN
        url = with_login(proxy.url, proxy_password) if proxy_password else proxy.url
        error = await failure(place, name, url)
        assert error.cause == f"proxy {proxy.url} {problem}"
        assert error.advice == "check user and password in proxy"
        assert error.retry_after == 60


async def test_proxy_that_forbids_the_registry(secure: Place, name: str) -> None:
    """The message for a refused tunnel names the proxy."""
    async with http_proxy() as proxy:
        proxy.refusal = "403 Forbidden"
        error = await failure(secure, name, with_login(proxy.url))
        assert error.cause == f"proxy {proxy.url} responds 403"


async def test_proxy_that_is_down(place: Place, name: str) -> None:
    """The message says that the connection is through a proxy."""
    async with http_proxy() as proxy:
        url = proxy.url
    error = await failure(place, name, with_login(url))
    assert error.cause == f"connection refused (through proxy {url})"


async def failure(place: Place, name: str, proxy: str) -> RegistryUnavailable:
    """Return the error of a create, after checking that it shows no secret, in whatever form it is shown."""
    fields = {**place.fields, "proxy": proxy}
    async with LocalArtifactRegistry("artifacts", binding(place.registry.url, **fields)) as registry:
        with pytest.raises(RegistryUnavailable) as raised:
            await registry.ensure_repository(name)
    error = raised.value
    shown = [repr(registry), str(explain(error)), *traceback.format_exception(error)]
    link: BaseException | None = error
    while link is not None:
        shown += [str(link), repr(link)]
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    assert not [text for text in shown for secret in (*SECRETS, "wr0ng-s3cret") if secret in text]
    return error


def test_repr_hides_the_login() -> None:
    """No repr of a binding or a proxy contains the login."""
    bound = binding("http://registry:5000", proxy=with_login("http://proxy:3128"))
    assert not [secret for secret in SECRETS if secret in f"{bound!r}{bound.http_proxy!r}"]
