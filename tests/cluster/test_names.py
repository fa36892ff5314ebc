"""Names on the real API server: its grammar (CEL, RE2) and ours are one, and what is refused is told why."""

import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.api.v1alpha1 import GROUP, PLURAL, VERSION
from controller.errors import InvalidNameError
from controller.names import REPOSITORY_NAME_PATTERN, validate_repository_name
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


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    ],
)
def test_bad_objects_are_refused_with_a_sentence(objects: Objects, spec: dict[str, Any], says: str) -> None:
    """The API server itself says what to write instead; the operator never sees such an object."""
    answer = objects.try_create("bad", spec)
    assert answer["status"] == "Failure"
    assert says in answer["message"]


def test_spec_defaults_to_an_empty_one(objects: Objects) -> None:
    """An object without spec, or with a null one, asks for what an empty spec asks for."""
    for name, absent in (("missing", {}), ("null", {"spec": None})):
        manifest = objects.manifest(name)
        del manifest["spec"]
        assert objects.api.must("POST", objects._path, manifest | absent)["spec"] == {}


NAME_CHANGES = pytest.mark.parametrize(
    ("before", "patch"),
    [
        ({"repositoryName": "a"}, {"repositoryName": "b"}),
        ({"repositoryName": "a"}, {"repositoryName": None}),
        ({}, {"repositoryName": "a"}),
    ],
)


def change_spec(objects: Objects, patch: dict[str, Any]) -> dict[str, Any]:
    """Try to change the spec of object web; return the answer."""
    content_type = "application/merge-patch+json"
    return objects.api.request("PATCH", f"{objects._path}/web", {"spec": patch}, content_type=content_type)


@NAME_CHANGES
def test_a_repository_name_can_be_corrected_before_there_is_a_uri(
    objects: Objects, before: dict[str, Any], patch: dict[str, Any]
) -> None:
    """A typo must not block the pipeline that applies the correction; nothing has been published by then."""
    objects.create("web", before)
    objects.patch("web", {"status": {"repositoryName": "a", "registry": "artifacts"}}, subresource="/status")
    assert change_spec(objects, patch)["spec"] == {k: v for k, v in (before | patch).items() if v is not None}


@NAME_CHANGES
def test_a_repository_name_stays_once_there_is_a_uri(
    objects: Objects, before: dict[str, Any], patch: dict[str, Any]
) -> None:
    """It cannot be changed, removed or set any more; the message says what to do instead. Other fields can."""
    objects.create("web", before)
    objects.patch("web", {"status": {"uri": "localhost:5001/artifacts/a"}}, subresource="/status")
    answer = change_spec(objects, patch)
    assert answer["code"] == 422
    assert "spec.repositoryName" in answer["message"]
    assert "create another ArtifactRepository" in answer["message"]
    assert change_spec(objects, {"suspend": True, "registry": "other"})["spec"]["suspend"] is True


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
    assert "set spec.repositoryName to a shorter name" in conditions["Ready"]["message"]
