"""URLs in the configuration: proxies with a login, and credentials over plain http."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import main
from controller.configfile import parse_binding
from controller.errors import BindingConfigInvalid
from controller.redaction import redact
from controller.urls import Proxy

SECRET = "s3cr3t-w0rd"
FILES = {"basic": {"usernameFile": "/u", "passwordFile": "/p"}}


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("http://proxy:3128", "http://proxy:3128", None),
        ("https://Proxy.Example/", "https://proxy.example", None),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128", None),
        (f"http://robot:{SECRET}@proxy:3128", "http://proxy:3128", f"robot:{SECRET}"),
        ("http://dom%5Crobot:p%40%2F%25@proxy:3128", "http://proxy:3128", "dom\\robot:p@/%"),
        ("http://token-of-it@proxy:3128", "http://proxy:3128", "token-of-it:"),
        ("http://robot:a:b@proxy:3128", "http://proxy:3128", "robot:a:b"),
    ],
)
def test_proxy(text: str, url: str, login: str | None) -> None:
    """A proxy is its URL without user and password, and a header."""
    proxy = Proxy.parse(text)
    header = None if login is None else f"Basic {base64.b64encode(login.encode()).decode()}"
    assert (proxy.url, proxy.authorization) == (url, header)
    assert header is None or header not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        f"robot:{SECRET}@proxy:3128",
        f"socks5://robot:{SECRET}@proxy:1080",
        f"http://robot:{SECRET}@",
        f"http://robot:{SECRET}@proxy:port",
        f"http://robot:{SECRET}@proxy:0",
        f"http://robot:{SECRET}@proxy:99999",
        f"http://robot:{SECRET}@0.0.0.0:3128",
        f"http://robot:x@{SECRET}@proxy:3128",
        f"http://robot:{SECRET}@proxy:3128/path",
        f"http://robot:{SECRET}@pro xy:3128",
        f"http://robot:{SECRET}@[::1",
        f"http://proxy:3128?password={SECRET}",
    ],
)
def test_unusable_proxy_is_not_repeated(text: str) -> None:
    """An unusable proxy is refused with an example; neither message nor cause contains a part of the URL."""
    with pytest.raises(BindingConfigInvalid, match="proxy: not a proxy URL: write for example") as raised:
        parse_binding("a", {"registryUrl": "http://registry:5000", "proxy": text})
    link: BaseException | None = raised.value
    while link is not None:
        assert SECRET not in f"{link} {link!r}"
        link = link.__cause__


def test_login_of_a_proxy_is_redacted() -> None:
    """Whatever repeats the login, as it is written or sent, shows none of it."""
    parse_binding("a", {"registryUrl": "r", "proxy": "http://robot:qu%40ted-0ne@proxy:3128"})
    sent = base64.b64encode(b"robot:qu@ted-0ne").decode()
    for form in ("qu@ted-0ne", "robot:qu%40ted-0ne", sent):
        assert form not in redact(f"proxy says {form}")


@pytest.mark.parametrize(
    "lines",
    [
        [f"proxy: http://robot:{SECRET}@proxy:3128", "proxi: x"],
        [f"proxy: http://robot:{SECRET}@proxy:nowhere"],
        [f"proxy: http://robot: {SECRET}@proxy:3128"],
        [f'proxy: "http://robot:{SECRET}@proxy:3128'],
        [f"proxy: [http://robot:{SECRET}@proxy:3128]"],
        [f"proxy: http://robot:{SECRET}@proxy:3128", "  registryUrl: x"],
    ],
)
def test_check_shows_no_login(tmp_path: Path, lines: list[str]) -> None:
    """The command ``check`` repeats no line of an invalid file that may contain a login."""
    fields = "".join(f"    {line}\n" for line in lines)
    (tmp_path / "config.yaml").write_text(
        f"defaultRegistry: a\nregistries:\n  a:\n    registryUrl: http://registry:5000\n{fields}"
    )
    result = CliRunner().invoke(main, ["check", "--config", str(tmp_path / "config.yaml")])
    assert result.exit_code == 1
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("fields", "receiver"),
    [
        ({"registryUrl": "http://registry.example.com:5000"}, "registry.example.com:5000"),
        ({"registryUrl": "http://registry.team.svc.cluster.local"}, "registry.team.svc.cluster.local"),
        ({"registryUrl": "http://10.0.0.5:5000"}, "10.0.0.5:5000"),
        ({"registryUrl": "http://registry", "proxy": "http://u:p@proxy.example.com:3128"}, "proxy.example.com:3128"),
        (
            {
                "registryUrl": "https://r.example",
                "credentials": {**FILES, "tokenRealms": ["http://auth.example/token"]},
            },
            "auth.example",
        ),
    ],
)
def test_credentials_over_plain_http(fields: dict[str, object], receiver: str) -> None:
    """Credentials are not sent unencrypted to another host, unless the configuration says so; without any, it may."""
    with pytest.raises(BindingConfigInvalid, match=f"sent to {receiver} unencrypted: .*allowPlainHttp: true"):
        parse_binding("a", {"credentials": FILES, **fields})
    parse_binding("a", {"credentials": FILES, **fields, "allowPlainHttp": True})
    parse_binding("a", {**fields, "credentials": None})


@pytest.mark.parametrize("url", ["localhost:5000", "http://127.0.0.1:5000", "http://registry:5000", "r.example"])
def test_credentials_for_a_near_registry(url: str) -> None:
    """Loopback and one-word hosts get credentials over http://, and other hosts over https:// by default."""
    parse_binding("a", {"registryUrl": url, "credentials": FILES})


def test_verified_proxy() -> None:
    """An https:// proxy would be affected by insecureSkipVerify, so the two are refused together."""
    fields = {"registryUrl": "https://r.example", "tls": {"insecureSkipVerify": True}}
    with pytest.raises(BindingConfigInvalid, match="would not be verified"):
        parse_binding("a", {**fields, "proxy": "https://proxy:3128"})
    parse_binding("a", {**fields, "proxy": "http://proxy:3128"})
