"""The configuration file: valid files, and messages for invalid ones."""

import contextlib
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from controller.binding import RepositoryPolicy
from controller.config import Timings, field_names
from controller.configfile import load_config, parse_binding, parse_config, read_yaml
from controller.durations import format_duration, parse_duration
from controller.errors import BindingConfigInvalid, ConfigError
from controller.urls import normalise_registry_url

MINIMAL = "defaultRegistry: a\nregistries: {a: {registryUrl: http://registry:5000}}\n"


NO_HOSTS = (
    *("http://x", "x:99999", "x:65536", "x:0", "x:-1", "x:http", "x:", ":5000", "x y", "x..y", "x-", "-x", "[:::]"),
    *("[1.2.3.4]", "::1", "256.1.1.1", "a" * 64, "x/y", "x@y", "x:5000:5000"),
)
"""Not the host of an image reference."""


def binding(fields: str) -> str:
    """Return a configuration whose one registry has these fields besides its URL."""
    return f"defaultRegistry: a\nregistries: {{a: {{registryUrl: 'https://r:5000', {fields}}}}}\n"


def test_minimal_configuration() -> None:
    """Every field except the address has a default."""
    config = parse_config(MINIMAL)
    registry = config.registries["a"]
    assert registry.registry_url == "http://registry:5000"
    assert registry.prefix("a") == "a"
    assert registry.repository_template == "{namespace}/{name}"
    assert registry.repository_policy is RepositoryPolicy.ANY
    assert config.timings.resync_interval == timedelta(minutes=10)


def test_the_general_policy_is_that_of_registries_without_one() -> None:
    """A registry's own policy takes precedence; only those with Any and for all namespaces are unrestricted."""
    config = parse_config("""
        defaultRegistry: a
        repositoryPolicy: Namespaced
        registries:
          a: {registryUrl: http://a:5000}
          b: {registryUrl: http://b:5000, repositoryPolicy: Any}
          c: {registryUrl: http://c:5000, repositoryPolicy: Any, namespaces: [platform]}
    """)
    policies = {name: registry.repository_policy for name, registry in config.registries.items()}
    assert policies == {"a": RepositoryPolicy.NAMESPACED, "b": RepositoryPolicy.ANY, "c": RepositoryPolicy.ANY}
    assert config.unrestricted == ["b"]


def test_all_fields() -> None:
    """Each field is read from its camelCase name."""
    config = parse_config("""
        defaultRegistry: artifacts
        registries:
          artifacts:
            service: local
            registryUrl: https://kind-registry:5000
            pathPrefix: ""
            dataDir: /var/lib/registry
            references: {host: "localhost:5001", containerRuntime: "localhost:5002", clusterNetwork: kind-registry:5000}
            repositoryTemplate: "{namespace}.{name}"
            repositoryPolicy: Namespaced
            credentials:
              basic: {usernameFile: /secret/username, passwordFile: /secret/password}
              tokenRealms: [https://auth.example.com/token]
            tls: {caFile: /ca/ca.crt}
        timings: {resyncInterval: 1h30m, unavailableAfter: 2m, progressDeadline: 5m, probeInterval: 500ms}
    """)
    registry = config.registries["artifacts"]
    assert registry.prefix("artifacts") == ""
    assert registry.references is not None
    assert registry.references.container_runtime == "localhost:5002"
    assert registry.credentials is not None
    assert registry.credentials.basic is not None
    assert registry.credentials.basic.password_file == Path("/secret/password")
    assert config.timings.resync_interval == timedelta(minutes=90)
    assert config.timings.probe_interval == timedelta(milliseconds=500)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be a YAML mapping"),
        ("[]", "must be a YAML mapping"),
        ("a: [", "not valid YAML"),
        ("{}", "defaultRegistry: required, but missing; registries: required, but missing"),
        ("defaultRegistry: b\nregistries: {a: {registryUrl: r}}", "no registry is named 'b': use one of: a"),
        ("defaultRegistry: a\nregistries: {a: {}}", "registries.a.registryUrl: required, but missing"),
        ("defaultRegistry: a\nregistries: {a: {registryUrl: ''}}", "registries.a.registryUrl: must not be empty"),
        ("defaultRegistry: A\nregistries: {A: {registryUrl: r}}", "registries.A: invalid name: use lower-case letters"),
        (
            "defaultRegistry: a\nregistries: [{a: {registryUrl: r}}]",
            "registries: expected a mapping: write its fields as",
        ),
        ("defaultRegistry: a\nregistries: {a: http://r}", "registries.a: expected a mapping: write its fields as"),
        ("defaultRegistry: a\nregistries: {}", "registries: configure at least one registry, such as artifacts: {"),
        (binding("registryURL: x"), "registries.a.registryURL: unknown field: write registryUrl instead"),
        (binding("service: ecr"), "registries.a.service: expected the Local variant: write service: local"),
        (binding("pathPrefix: ../x"), "registries.a.pathPrefix: '../x' is not a repository name"),
        (binding(f"pathPrefix: {'p' * 45}"), "registries.a.pathPrefix: repository name has 45 characters, at most 44"),
        (binding("repositoryTemplate: x"), "registries.a.repositoryTemplate: 'x' lacks {name}"),
        (binding("namespaces: []"), "registries.a.namespaces: list at least one namespace, or omit the field"),
        (binding("namespaces: [Team]"), "registries.a.namespaces: 'Team' is not the name of a namespace"),
        (binding("namespaces: ['team-?']"), "namespaces: 'team-?' is not the name of a namespace: write for example"),
        (binding("namespaces: ['[a-z]*']"), "namespaces: '[a-z]*' is not the name of a namespace"),
        (binding("namespaces: [a, ' b']"), "namespaces: ' b' is not the name of a namespace"),
        (binding("namespaces: team"), "registries.a.namespaces: expected a list: write [one, two]"),
        (f"{MINIMAL}repositoryPolicy: Nobody", "repositoryPolicy: expected 'Any' or 'Namespaced'"),
        (
            binding("repositoryTemplate: '{name}'") + "repositoryPolicy: Namespaced",
            "registries.a: repositoryTemplate must start with",
        ),
        (binding("repositoryPolicy: Nobody"), "registries.a.repositoryPolicy: expected 'Any' or 'Namespaced'"),
        (
            binding("repositoryPolicy: Namespaced, repositoryTemplate: '{name}'"),
            "registries.a: repositoryTemplate must start with '{namespace}/' or '{namespace}.'",
        ),
        (
            binding("repositoryPolicy: Namespaced, repositoryTemplate: '{namespace}-{name}'"),
            "registries.a: repositoryTemplate must start with '{namespace}/' or '{namespace}.'",
        ),
        (
            binding("repositoryPolicy: Namespaced, repositoryTemplate: '{name}/{namespace}'"),
            "registries.a: repositoryTemplate must start with",
        ),
        (
            binding("repositoryPolicy: Namespaced, repositoryTemplate: 'apps/{namespace}/{name}'"),
            "registries.a: repositoryTemplate must start with",
        ),
        *(
            (binding(f"references: {{host: '{host}'}}"), f"references.host: '{host}' is not a host")
            for host in NO_HOSTS
        ),
        *(
            (binding(f"credentials: {{tokenRealms: ['{url}']}}"), f"credentials.tokenRealms: '{url}' is not a URL")
            for url in ("auth", "https://x:99999/token", "https://x:0", "https://x:http", "https://[x/t", "https://u@x")
        ),
        (
            binding("credentials: {dockerConfigFile: /x, basic: {usernameFile: /u, passwordFile: /p}}"),
            "registries.a.credentials: set either basic or dockerConfigFile",
        ),
        (binding('tls: {caFile: "a\\0b"}'), "registries.a.tls.caFile: must not contain a NUL character"),
        (binding("tls: {caFile: /x, insecureSkipVerify: true}"), "registries.a.tls: caFile has no effect"),
        (
            "defaultRegistry: a\nregistries: {a: {registryUrl: 'http://r', tls: {}}}",
            "registries.a: tls requires a registryUrl that starts with https://",
        ),
        (f"{MINIMAL}timings: {{resyncInterval: 10}}", "timings.resyncInterval: not a duration: write for example 90s"),
        (f"{MINIMAL}timings: {{resyncInterval: 0s}}", "timings.resyncInterval: must be between 1s and 168h"),
        (f"{MINIMAL}timings: {{resyncInterval: 1ms}}", "timings.resyncInterval: must be between 1s and 168h"),
        (f"{MINIMAL}timings: {{resyncInterval: 99999999999h}}", "timings.resyncInterval: must be between 1s and 168h"),
        (f"{MINIMAL}timings: {{resyncInterval: {'9' * 400}h}}", "timings.resyncInterval: must be between 1s and 168h"),
        (f"{MINIMAL}timings: {{resyncInterval: '10m\n'}}", "timings.resyncInterval: not a duration"),
        (f"{MINIMAL}timings: {{resync_interval: 5m}}", "write resyncInterval instead of resync_interval"),
        ("default_registry: a\nregistries: {}", "default_registry: unknown field: write defaultRegistry instead"),
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a' in line 3, first in 1"),
        (f"{MINIMAL}timings:\n  x: 1\n  'x': 2\n", "duplicate key 'x' in line 5, first in 4"),
        ("registries: {a: {}, a: {}}", "duplicate key 'a' in line 1, first in 1"),
        (f"{MINIMAL}timings: {{resyncInterval: ''}}", "timings.resyncInterval: not a duration"),
    ],
)
def test_errors_name_the_path_of_the_field(text: str, complaint: str) -> None:
    """Each message has the path of the field and says what to write instead."""
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        parse_config(text)


TEMPLATE_WITHOUT_QUOTES = "repositoryTemplate: {namespace}/{name}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaultRegistry: a\nregistries:\n", "registries: configure at least one registry, such as"),
        ("defaultRegistry: a\nregistries: {a: }", "registries.a: empty: write a value, or remove the field"),
        (f"{MINIMAL}timings:", "timings: empty: write a value, or remove the field"),
        (f"{MINIMAL}timings: true", "timings: expected a mapping: write its fields as 'name: value'"),
        (f"{MINIMAL}creations: [5]", "creations: expected a mapping: write its fields as 'name: value', without a"),
        (
            "defaultRegistry: A\nregistries: {Team-A: {registryUrl: r}}",
            "registries.Team-A: invalid name: use lower-case letters",
        ),
        ("defaultRegistry: A\nregistries: {Team-A: {registryUrl: r}}", "such as team-a"),
        ("defaultRegistry: ä\nregistries: {ä: {registryUrl: r}}", "such as artifacts"),
        (
            "defaultRegistry: ''\nregistries: {'': {registryUrl: r}}",
            "registries.'': invalid name: use lower-case",
        ),
        (
            f"defaultRegistry: a\nregistries: {{{'a' * 45}: {{registryUrl: r}}}}",
            "a: invalid name: use lower-case",
        ),
        (
            "defaultRegistry: '1'\nregistries: {1: {registryUrl: r}}",
            "registries.1: the name is not text: put it in quo",
        ),
        ("defaultRegistry: 1\nregistries: {a: {registryUrl: r}}", "defaultRegistry: expected text: put it in quotes"),
        (
            "defaultRegistry: [a]\nregistries: {a: {registryUrl: r}}",
            "defaultRegistry: expected text, not a list or a m",
        ),
        ('defaultRegistry: "a\\ab"\nregistries: {a: {registryUrl: r}}', r"no registry is named 'a\x07b'"),
        (binding("references: {host: 5001}"), "references.host: expected text: put it in quotes"),
        (binding("tls: {caFile: 5}"), "tls.caFile: expected text: put it in quotes"),
        (binding("tls: {caFile: ''}"), "tls.caFile: not a file: write its path, such as"),
        (binding("allowPlainHttp: maybe"), "allowPlainHttp: expected true or false"),
        (binding("allowPlainHttp: []"), "allowPlainHttp: expected true or false"),
        (binding("reportTags: many"), "reportTags: expected a whole number, such as 10"),
        (binding("reportTags: yes"), "reportTags: expected a whole number, such as 10"),
        (binding("credentials: {}"), "credentials: set basic or dockerConfigFile, or remove the field"),
        (f"{MINIMAL}creations: {{perSecond: yes}}", "creations.perSecond: expected a number, such as 10 or 0.5"),
        (f"{MINIMAL}creations: {{burst: on}}", "creations.burst: expected a whole number, such as 10"),
        (binding("reportTags: 1.5"), "reportTags: expected a whole number, such as 10"),
        (binding("reportTags: -1"), "reportTags: must be at least 0"),
        (binding(f"reportTags: {10**30}"), "reportTags: must be at most 100"),
        (f"{MINIMAL}creations: {{perSecond: fast}}", "creations.perSecond: expected a number, such as 10 or 0.5"),
        (f"{MINIMAL}creations: {{perSecond: .inf}}", "creations.perSecond: expected a number, such as 10 or 0.5"),
        (f"{MINIMAL}creations: {{perSecond: 0}}", "creations.perSecond: must be more than 0"),
        (f"{MINIMAL}creations: {{burst: 1000001}}", "creations.burst: must be at most 1000000"),
        (f"{MINIMAL}creations: {{burst: {'9' * 5000}}}", "an invalid number or date: put it in quotes if it is text"),
        (
            binding("registry-url: x"),
            "registries.a.registry-url: unknown field: write registryUrl instead of registry-u",
        ),
        (binding("pathprefix: x"), "registries.a.pathprefix: unknown field: write pathPrefix instead of pathprefix"),
        (binding("credentials: {basic: {username: x}}"), "username: unknown field: write usernameFile instead of user"),
        (binding("references: {laptop: x}"), "laptop: unknown field: docs/configuration.md lists all fields"),
        (
            binding("resyncInterval: 5m"),
            "registries.a.resyncInterval: not a field at this place: check the indentation",
        ),
        ('defaultRegistry: a\nregistries: {a: {registryUrl: "http://r\\nx"}}', "is not a URL: write for example"),
        (
            binding("repositoryTemplate: '{{name}}'"),
            "'{{name}}' makes no repository names: around {namespace} and {name}",
        ),
        (
            f"defaultRegistry: a\nregistries:\n  a:\n    {TEMPLATE_WITHOUT_QUOTES}\n",
            "put text with '{' or ': ' in quotes",
        ),
        ("defaultRegistry: a\n\tregistries: {}", "indent with spaces, and put text with"),
        ("defaultRegistry: \0", "not valid YAML: character 18 cannot be printed: remove it"),
        (
            "kind: ConfigMap\nmetadata: {name: x}\ndata: {}",
            "this is a Kubernetes object: give the configuration itself",
        ),
        (f"config: {{{MINIMAL.splitlines()[0]}}}", "these are Helm values: give the configuration itself"),
    ],
)
def test_errors_say_what_to_write_instead(text: str, message: str) -> None:
    """Common mistakes get advice in the words of the file, without those of pydantic, Python or the YAML parser."""
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse_config(text)
    assert "Input" not in str(caught.value)


def test_a_wrong_policy_is_reported_once() -> None:
    """An invalid general policy is not reported again for each registry."""
    with pytest.raises(ConfigError, match=r"^repositoryPolicy: expected 'Any' or 'Namespaced'$"):
        parse_config(f"{MINIMAL}repositoryPolicy: any")


def _bomb(levels: int, value: str) -> str:
    """Return a file in which each level repeats the one before it."""
    lines = [f"a{level}: &a{level} {value.format(f'*a{level - 1}')}" for level in range(1, levels)]
    return "\n".join(["a0: &a0 {x: 1}", *lines])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (_bomb(12, "{{<<: [{0}, {0}, {0}]}}"), "aliases repeat more than 10000 nodes"),
        (_bomb(30, "{{<<: [{0}, {0}]}}"), "aliases repeat more than 10000 nodes"),
        (_bomb(12, "[{0}, {0}, {0}]"), "aliases repeat more than 10000 nodes"),
        ("a: &a {b: *a}", "an alias in the node that it repeats"),
        ("[" * 8000, "nested deeper than 20 levels (line 1, column 21)"),
        ("{a: " * 8000, "nested deeper than 20 levels"),
        ("- " * 8000, "nested deeper than 20 levels"),
        ("".join(f"{' ' * level}a:\n" for level in range(300)), "nested deeper than 20 levels"),
    ],
    ids=["merge", "merge-twice", "list", "recursive", "flow", "flow-mapping", "sequence", "block"],
)
def test_a_bomb_is_refused_quickly(text: str, complaint: str) -> None:
    """Aliases and nesting that would cost minutes or the stack are refused with one sentence."""
    began = time.process_time()
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        parse_config(text)
    assert time.process_time() - began < 0.5


def test_aliases_are_allowed() -> None:
    """Forty registries may share their fields by a merge key."""
    names = [f"r{number}" for number in range(40)]
    registries = "".join(f"  {name}: {{<<: *common, pathPrefix: {name}}}\n" for name in names)
    first = "  artifacts: &common {registryUrl: 'http://registry:5000', repositoryPolicy: Any}\n"
    config = parse_config(f"defaultRegistry: artifacts\nregistries:\n{first}{registries}")
    assert {binding.registry_url for binding in config.registries.values()} == {"http://registry:5000"}


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("localhost:5000", "http://localhost:5000"),
        ("http://localhost:5000/", "http://localhost:5000"),
        ("https://Registry.Example", "https://registry.example"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        (" r ", "http://r"),
        ("kind-registry:5000", "http://kind-registry:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("a.localhost", "http://a.localhost"),
        ("registry.example.com", "https://registry.example.com"),
        ("registry.team.svc:5000", "https://registry.team.svc:5000"),
        ("10.0.0.5:5000", "https://10.0.0.5:5000"),
        ("[fd00::1]:5000", "https://[fd00::1]:5000"),
        ("http://registry.example.com", "http://registry.example.com"),
    ],
)
def test_registry_urls_are_normalised(url: str, normal: str) -> None:
    """A missing scheme is added and a trailing slash removed."""
    assert normalise_registry_url(url) == normal


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ftp://r", "scheme 'ftp' is not supported"),
        ("http://user:secret@r", "name the files of a Secret"),
        ("http://user:/secret@r", "name the files of a Secret"),
        ("http://r/path", "use pathPrefix for a path"),
        ("http://r?x=1", "use pathPrefix for a path"),
        ("http://r:99999", "is not a URL"),
        ("http://r:-1", "is not a URL"),
        ("http://r:http", "is not a URL"),
        ("http://r:0", "has no usable host"),
        ("r:99999", "is not a URL"),
        ("http://r:", "has no usable host"),
        ("http://[:::]", "has no usable host|is not a URL"),
        ("http://", "has no usable host"),
        ("http://a b", "has no usable host"),
    ],
)
def test_unusable_registry_urls(url: str, complaint: str) -> None:
    """Unusable URLs are rejected, and a password in one does not appear in the message."""
    with pytest.raises(ValueError, match=complaint) as caught:
        normalise_registry_url(url)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    "field",
    [
        "registryUrl: '{}'",
        "registryUrl: a, references: {{host: '{}'}}",
        "registryUrl: a, credentials: {{tokenRealms: ['{}']}}",
    ],
)
@pytest.mark.parametrize(
    "value", ["http://bob:s3cr3t@r", "bob:s3cr3t@r", "http://bob:a/s3cr3t@[r", "https://bob:s3cr3t@@r:x"]
)
def test_no_message_shows_a_password(field: str, value: str) -> None:
    """A URL with user and password is refused, and the message leaves the password out."""
    with pytest.raises(ConfigError) as caught:
        parse_config(f"defaultRegistry: a\nregistries: {{a: {{{field.format(value)}}}}}\n")
    assert "s3cr3t" not in str(caught.value)


FRAGMENTS = [
    *("a: ", "- ", "[", "]", "{", "}", "'", '"', "x", "1", "=", "+", "~", "\n", " ", "&a ", "*a", "<<: ", "? ", "|\n"),
    *(
        f"!!{tag} "
        for tag in ["int", "float", "bool", "null", "timestamp", "binary", "set", "omap", "pairs", "str", "map", "seq"]
    ),
    *("!!python/name:os.system ", "2001-99-99", "2001-01-01 99:99:99", "0x", "1:60", "1e999", "%YAML 1.1\n---\n"),
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join) | st.text())
@example("[" * 600)
@example("!!float ")
@example("!!bool x")
@example("!!timestamp x")
def test_invalid_yaml_is_a_configuration_error(text: str) -> None:
    """Any text is either parsed or rejected with ConfigError, so that no edit of a file ends a running operator."""
    with contextlib.suppress(ConfigError):
        read_yaml(text)


def test_an_invalid_binding_raises_binding_config_invalid() -> None:
    """An invalid binding raises BindingConfigInvalid with the name of the binding."""
    with pytest.raises(BindingConfigInvalid, match="'b' is invalid: registryUrl: required"):
        parse_binding("b", {})
    with pytest.raises(BindingConfigInvalid, match="expected the Local variant"):
        parse_binding("b", {"service": "ecr", "registryUrl": "r"})


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """The message starts with the path of the file."""
    with pytest.raises(ConfigError, match=r"missing\.yaml: no such file: write it there"):
        load_config(tmp_path / "missing.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.yaml: cannot be read: save it as UTF-8 \(byte 1 is not\)"):
        load_config(bad)
    bad.write_text("a: b")
    with pytest.raises(ConfigError, match=r"bad\.yaml: .*a: unknown field"):
        load_config(bad)


@pytest.mark.parametrize("text", ["1ms", "500ms", "1s", "60s", "90s", "2m", "10m", "1h", "36h"])
def test_formatted_durations_parse_to_the_same_value(text: str) -> None:
    """A formatted duration looks like one in the configuration, and parses to the same value."""
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize("name", Timings.model_fields)
def test_timings_are_bounded_as_described(name: str) -> None:
    """Each duration has a lower and an upper bound, which are accepted and stated in its description."""
    field = Timings.model_fields[name]
    bounds = re.search(r"; (\w+) to (\w+)\.$", field.description or "")
    assert bounds is not None
    least, most = (parse_duration(text) for text in bounds.groups())
    for good in (least, most):
        assert getattr(Timings.model_validate({name: good}), name) == good
    for bad in (least - timedelta(milliseconds=1), most + timedelta(milliseconds=1), timedelta.max):
        with pytest.raises(ValueError, match=f"must be between {bounds[1]} and {bounds[2]}"):
            Timings.model_validate({name: bad})


def test_merge_keys_may_be_overridden() -> None:
    """A field beside a merge key is no duplicate, however mappings refer to each other."""
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n"
    assert read_yaml(text) == {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}, "c": {"x": 2, "y": 3}}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["a", "http://r"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(sorted(field_names())) | st.text() | st.integers() | st.none(), inner)
        ),
        max_leaves=8,
    )
)
def test_any_content_is_accepted_or_rejected_with_a_sentence(content: object) -> None:
    """Whatever types the values have, the message is one that can be printed."""
    said = ""
    try:
        parse_config(yaml.safe_dump(content, allow_unicode=True))
    except ConfigError as error:
        said = str(error)
    said.encode()


def test_files_have_a_maximum_size(tmp_path: Path) -> None:
    """A file that is larger than any ConfigMap is not read to its end."""
    with pytest.raises(ConfigError, match="/dev/zero: larger than 1048576 bytes"):
        load_config(Path("/dev/zero"), again=False)
    with pytest.raises(ConfigError, match="a directory: name the configuration file in it"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("pathPrefix: x", "pathPrefix: x/y", True),
        ("pathPrefix: ''", "pathPrefix: y", True),
        ("pathPrefix: x", "pathPrefix: x/y, registryUrl: 'http://r:80'", True),
        ("pathPrefix: x", "pathPrefix: x, repositoryPolicy: Any", True),
        ("pathPrefix: x", "pathPrefix: x", False),
        ("pathPrefix: x", "pathPrefix: xy", False),
        ("pathPrefix: x", "pathPrefix: x/y, registryUrl: http://other", False),
        ("pathPrefix: x, repositoryPolicy: Any", "pathPrefix: x/y, repositoryPolicy: Any", False),
    ],
)
def test_prefixes_that_bypass_the_policy(first: str, second: str, *, shared: bool) -> None:
    """Two entries of one registry with nested prefixes are refused if the policy of one would be bypassed."""
    default = {"registryUrl": "http://r", "repositoryPolicy": "Namespaced"}
    registries = {name: default | yaml.safe_load(f"{{{text}}}") for name, text in (("a", first), ("b", second))}
    text = yaml.safe_dump({"defaultRegistry": "a", "registries": registries})
    if not shared:
        parse_config(text)
        return
    with pytest.raises(ConfigError, match=r"registries\.a and registries\.b share repositories"):
        parse_config(text)
