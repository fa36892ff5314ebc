"""Which proxy is used for the API server; the cases are those of Go's httpproxy package."""

import pytest

from controller.errors import KubernetesError
from controller.kube.proxy import proxy_for

PROXY = "http://proxy:3128"


def chosen(server: str, no_proxy: str = "", **environment: str) -> str | None:
    """Return the proxy for a server."""
    return proxy_for(server, proxy_url="", environment={"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy, **environment})


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.8.7", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_never_proxied(host: str) -> None:
    """Whatever the environment says."""
    assert chosen(f"https://{host}:6443") is None


@pytest.mark.parametrize(
    ("no_proxy", "server"),
    [
        ("10.0.0.0/8", "https://10.96.0.1"),
        ("10.1.2.3/8", "https://10.96.0.1:443"),
        ("fd00::/8", "https://[fd00::1]:443"),
        ("10.96.0.1", "https://10.96.0.1:443"),
        ("10.96.0.1:443", "https://10.96.0.1"),
        ("[fd00::1]:6443", "https://[fd00::1]:6443"),
        ("fd00::1", "https://[fd00::1]"),
        ("corp", "https://api.corp"),
        ("corp", "https://corp"),
        (".corp", "https://api.corp:6443"),
        ("*.corp", "https://api.corp"),
        ("api.corp:6443", "https://api.corp:6443"),
        ("API.corp", "https://api.CORP"),
        ("*", "https://anything"),
        ("a, 10.0.0.0/8 ,b", "https://10.0.0.1"),
    ],
)
def test_excluded(no_proxy: str, server: str) -> None:
    """Networks, addresses, domains and ports in NO_PROXY."""
    assert chosen(server, no_proxy) is None


@pytest.mark.parametrize(
    ("no_proxy", "server"),
    [
        ("", "https://10.96.0.1"),
        ("10.0.0.0/8", "https://11.0.0.1"),
        ("10.0.0.0/8", "https://api.corp"),
        ("10.0.0.0/99", "https://10.0.0.1"),
        ("10.96.0.1:6443", "https://10.96.0.1"),
        (".corp", "https://corp"),
        ("*.corp", "https://corp"),
        ("corp", "https://mycorp"),
        ("corp:6443", "https://api.corp"),
        ("localhost", "https://example"),
        (",, ,:443", "https://example"),
    ],
)
def test_not_excluded(no_proxy: str, server: str) -> None:
    """Entries that do not apply."""
    assert chosen(server, no_proxy) == PROXY


def test_variables() -> None:
    """Each scheme has its own, in capitals first; a scheme may be missing."""
    environment = {"https_proxy": "low:1", "HTTP_PROXY": "http://plain:1", "ALL_PROXY": "http://all:1"}
    assert proxy_for("https://a", proxy_url="", environment=environment) == "http://low:1"
    assert proxy_for("http://a", proxy_url="", environment=environment) == "http://plain:1"
    assert proxy_for("https://a", proxy_url="", environment={"https_proxy": "http://a", "HTTPS_PROXY": PROXY}) == PROXY
    assert proxy_for("https://a", proxy_url="", environment={}) is None


def test_the_kubeconfig_goes_first() -> None:
    """proxy-url applies to every host, even loopback."""
    environment = {"HTTPS_PROXY": "http://other:1", "NO_PROXY": "*"}
    assert proxy_for("https://127.0.0.1", proxy_url=PROXY, environment=environment) == PROXY


@pytest.mark.parametrize("url", ["socks5://user:s3cret@proxy:1080", "http://", "http://[", "http://proxy:0", "x"])
def test_refused(url: str) -> None:
    """One sentence without the password."""
    with pytest.raises(KubernetesError, match="from proxy-url, is not an http:// or https:// URL") as raised:
        proxy_for("https://a", proxy_url=url, environment={})
    assert "s3cret" not in str(raised.value)
