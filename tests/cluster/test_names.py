"""Names on the real API server: its grammar (CEL, RE2) and ours are one, and what is refused is told why."""

import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.errors import InvalidNameError
from controller.names import REPOSITORY_NAME_PATTERN, validate_repository_name
from controller.resource import GROUP, PLURAL, VERSION
from tests.cluster.harness import Api, Objects, OperatorProcess
from tests.unit.test_names import BAD, GOOD

pytestmark = pytest.mark.cluster

near_names = (
    st.text(alphabet=string.ascii_lowercase + string.digits + "._-/AZ%?# é\n", max_size=24)
    | st.from_regex(REPOSITORY_NAME_PATTERN, fullmatch=True)
    | st.text(max_size=12)
)


def is_ours(name: str) -> bool:
    """Tell whether our grammar takes a name."""
    try:
        validate_repository_name(name)
    except InvalidNameError:
        return False
    return True


def is_theirs(api: Api, name: str) -> bool:
    """Tell whether the API server takes an object with that name (a dry run)."""
    path = f"/apis/{GROUP}/{VERSION}/namespaces/default/{PLURAL}?dryRun=All"
    body = Objects(api, "default").manifest("probe", {"repositoryName": name})
    answer = api.request("POST", path, body)
    assert answer.get("status") != "Failure" or answer["code"] == 422, answer
    return answer.get("status") != "Failure"


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_the_api_server_agrees_on_the_known_cases(api: Api, name: str) -> None:
    """Each name of the unit tests is taken or refused alike by both."""
    assert is_theirs(api, name) is is_ours(name)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=near_names)
def test_the_api_server_agrees_on_any_name(api: Api, name: str) -> None:
    """Whatever is written: both take it, or both refuse it."""
    assert is_theirs(api, name) is is_ours(name)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"repositoryName": "Team/Web"}, "use lower-case letters and digits"),
        ({"repositoryName": "a" * 201}, "200"),
        ({"registry": "http://localhost:5000"}, "give the name (not the address)"),
        ({"suspend": "yes"}, "must be of type boolean"),
        (None, "spec: Required value"),
    ],
)
def test_bad_objects_are_refused_with_a_sentence(objects: Objects, spec: dict[str, Any] | None, says: str) -> None:
    """The API server itself says what to write instead; the operator never sees such an object."""
    manifest = objects.manifest("bad", spec)
    if spec is None:
        del manifest["spec"]
    answer = objects.api.request("POST", objects._path, manifest)
    assert answer["status"] == "Failure"
    assert says in answer["message"]


@pytest.mark.parametrize(
    ("before", "patch"),
    [
        ({"repositoryName": "a"}, {"repositoryName": "b"}),
        ({"repositoryName": "a"}, {"repositoryName": None}),
        ({}, {"repositoryName": "a"}),
    ],
)
def test_a_repository_name_is_for_ever(objects: Objects, before: dict[str, Any], patch: dict[str, Any]) -> None:
    """It cannot be changed, removed or set later; the message says what to do instead."""
    objects.create("web", before)
    content_type = "application/merge-patch+json"
    answer = objects.api.request("PATCH", f"{objects._path}/web", {"spec": patch}, content_type=content_type)
    assert answer["code"] == 422
    assert "create another ArtifactRepository" in answer["message"]


def test_a_new_object_is_never_mistaken_for_a_finished_one(objects: Objects) -> None:
    """status.observedGeneration is -1 until the operator has seen the object, so kstatus says InProgress."""
    assert objects.create("web")["status"] == {"observedGeneration": -1}


def test_an_object_whose_name_makes_no_repository_name(objects: Objects, operator: OperatorProcess) -> None:
    """A legal object name can be too long for a repository: Stalled at once, with what to do."""
    name = "n" * 250
    objects.create(name)
    seen = objects.wait(name, lambda o: o["status"].get("conditions"), tell=operator.log)
    conditions = {c["type"]: c for c in seen["status"]["conditions"]}
    assert conditions["Ready"]["reason"] == conditions["Stalled"]["reason"] == "InvalidName"
    assert "shorter spec.repositoryName" in conditions["Ready"]["message"]
