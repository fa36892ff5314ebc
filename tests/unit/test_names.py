"""Names: valid and invalid ones, and the rules in the CRD.

The rules are read from the manifest and evaluated with Python's ``re``. tests/cluster/test_names.py shows that the API
server, which uses RE2, agrees.
"""

import re
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import InvalidNameError
from controller.names import (
    BINDING_NAME_PATTERN,
    MAX_REGISTRY_PATH,
    MAX_REPOSITORY_NAME,
    REPOSITORY_NAME_PATTERN,
    expand_template,
    is_host,
    is_within_namespace,
    join_path,
    validate_digest,
    validate_reference,
    validate_repository_name,
    validate_template,
)

CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"

GOOD = ["a", "0", "web", "team-a/web", "a.b", "a_b", "a__b", "a---b", "a/b/c/d", "a" * 200]
BAD = [
    "",
    "A",
    "Team/web",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a..b",
    "a___b",
    "-a",
    "a-",
    "a.-b",
    "a%2Fb",
    "a?b",
    "a#b",
    "a b",
    "a\n",
    "\na",
    "a:b",
    "a@b",
    "a\\b",
    "é",
    "а",  # noqa: RUF001 - a Cyrillic letter is the case
    "a\u200b",
    "a" * 201,
    "a" * 256,
]

near_names = st.text(alphabet=string.ascii_lowercase + string.digits + "._-/AZ%?#\n é", max_size=24) | st.from_regex(
    REPOSITORY_NAME_PATTERN, fullmatch=True
)


def spec_properties() -> dict[str, Any]:
    """Return the schema of ``spec`` in the CRD."""
    crd = yaml.safe_load(CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    properties: dict[str, Any] = schema["properties"]["spec"]["properties"]
    return properties


def crd_pattern(field: str) -> str:
    """Return the regular expression in the CEL rule of a field."""
    rule = spec_properties()[field]["x-kubernetes-validations"][0]["rule"]
    match = re.fullmatch(r"self\.matches\('(.*)'\)", rule)
    assert match is not None
    return match[1].replace(r"\\", "\\")


@pytest.mark.parametrize("name", GOOD)
def test_valid_names_are_accepted(name: str) -> None:
    """Names that registries accept are accepted unchanged."""
    assert validate_repository_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_invalid_names_are_rejected(name: str) -> None:
    """Names that registries reject, normalise or treat as another path are rejected with a message."""
    with pytest.raises(InvalidNameError, match=r"use lower-case|at most 200"):
        validate_repository_name(name)


def test_the_crd_has_the_same_grammar() -> None:
    """Pattern and length in the CRD equal those in the code."""
    assert crd_pattern("repositoryName") == REPOSITORY_NAME_PATTERN
    assert spec_properties()["repositoryName"]["maxLength"] == MAX_REPOSITORY_NAME
    assert crd_pattern("registry") == BINDING_NAME_PATTERN


@given(near_names)
def test_no_name_reaches_another_path(name: str) -> None:
    """Whatever is accepted is a single plain path below the prefix."""
    try:
        path = join_path("artifacts", name)
    except InvalidNameError:
        return
    assert path == f"artifacts/{name}"
    assert not set(path) & set("%?#\\: \n")
    assert all(part and part.strip(".") for part in path.split("/"))


def test_prefix_and_name_fit_the_strictest_registry() -> None:
    """The longest name with the longest prefix is just short enough; one more character is rejected."""
    assert len(join_path("p" * 44, "n" * 200)) == MAX_REGISTRY_PATH
    with pytest.raises(InvalidNameError, match="at most 245"):
        join_path("p" * 45, "n" * 200)


labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
subdomains = st.lists(labels, min_size=1, max_size=4).map(".".join)


@given(
    namespace=labels, name=subdomains, template=st.sampled_from(["{namespace}/{name}", "{name}", "{namespace}.{name}"])
)
def test_every_kubernetes_name_has_a_repository_name(namespace: str, name: str, template: str) -> None:
    """The result of a template for a valid namespace and name is a valid repository name."""
    made = expand_template(template, namespace=namespace, name=name)
    assert re.fullmatch(crd_pattern("repositoryName"), made)


@given(one=st.tuples(labels, subdomains), other=st.tuples(labels, subdomains))
def test_the_dotted_template_is_unambiguous(one: tuple[str, str], other: tuple[str, str]) -> None:
    """With ``{namespace}.{name}`` no two objects share a name, because a namespace has no dot."""
    names = [expand_template("{namespace}.{name}", namespace=ns, name=name) for ns, name in (one, other)]
    assert (names[0] == names[1]) == (one == other)


def test_a_template_result_that_is_too_long_is_rejected() -> None:
    """The name of an object may have 253 characters, that of a repository may not."""
    with pytest.raises(InvalidNameError, match="has 259 characters"):
        expand_template("{namespace}/{name}", namespace="n" * 5, name="a" * 253)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{namespace}", "lacks {name}"),
        ("", "lacks {name}"),
        ("{name}/{uid}", "unknown placeholder {uid}"),
        ("{name}/{}", "unknown placeholder {}"),
        ("X/{name}", "makes no repository names"),
        ("../{name}", "makes no repository names"),
        ("{name", "lacks {name}"),
        ("{name}}", "makes no repository names"),
    ],
)
def test_invalid_templates_are_rejected(template: str, complaint: str) -> None:
    """An invalid template is found when the configuration is read."""
    with pytest.raises(InvalidNameError, match=re.escape(complaint)):
        validate_template(template)


def test_a_template_is_expanded_once() -> None:
    """A placeholder in the name of a namespace is not expanded."""
    assert expand_template("{namespace}/{name}", namespace="name", name="x") == "name/x"


@pytest.mark.parametrize("reference", ["latest", "v1.2", "_x", "A", "sha256:" + "0" * 64])
def test_valid_references(reference: str) -> None:
    """Tags and digests are accepted."""
    assert validate_reference(reference) == reference


@pytest.mark.parametrize("reference", ["", ".x", "-x", "a/b", "a b", "a" * 129, "../x", "latest\n", "sha256:%2F"])
def test_invalid_references(reference: str) -> None:
    """References that could change the path of a URL are rejected."""
    with pytest.raises(InvalidNameError, match="neither a tag nor a digest"):
        validate_reference(reference)


@pytest.mark.parametrize("digest", ["latest", "sha256:", "sha256:a/b", "SHA256:00", ":00"])
def test_invalid_digests(digest: str) -> None:
    """A digest has an algorithm and a value."""
    with pytest.raises(InvalidNameError, match="not a digest"):
        validate_digest(digest)


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True),
        ("localhost:5001", True),
        ("[::1]:5000", True),
        ("kind-registry:5000", True),
        ("", False),
        ("http://localhost", False),
        ("localhost/x", False),
        ("user@localhost", False),
        ("localhost:x", False),
        ("a b", False),
        ("localhost\n", False),
    ],
)
def test_hosts(host: str, good: bool) -> None:
    """A host is the first part of an image reference."""
    assert is_host(host) is good


@pytest.mark.parametrize(
    ("name", "within"),
    [("team/web", True), ("team.web", True), ("team", False), ("teamx/web", False), ("x/team/web", False), ("", False)],
)
def test_policy_namespaced(name: str, within: bool) -> None:
    """Names of a namespace start with its name and a separator that no namespace contains."""
    assert is_within_namespace(name, "team") is within
