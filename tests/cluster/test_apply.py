"""Fields of ``spec`` that go away by server-side apply: what GitOps tools do when a line is removed from Git."""

from collections.abc import Mapping
from itertools import chain, combinations, product
from typing import Any

import pytest

from controller.api.v1alpha1 import API_VERSION, KIND
from devcluster.cluster import DevCluster
from tests.cluster.harness import Object, Objects

pytestmark = pytest.mark.cluster

FIELDS: Mapping[str, Any] = {"repositoryName": "team-a/web", "registry": "other", "suspend": True}
"""Every field of ``spec``."""

SUBSETS = [dict(some) for some in chain.from_iterable(combinations(FIELDS.items(), size) for size in range(4))]

WITHOUT_FIELDS: Mapping[str, Mapping[str, Any]] = {"empty": {"spec": {}}, "absent": {}, "null": {"spec": None}}
"""How a manifest can have no field of ``spec``."""

URI = {"status": {"uri": "localhost:5001/artifacts/team-a/web"}}


def apply(objects: Objects, name: str, manifest: Mapping[str, Any], *, manager: str) -> Object:
    """Apply a manifest on the server, without force; return the object, or the refusal."""
    metadata = {"name": name, "namespace": objects.namespace}
    return objects.api.request(
        "PATCH",
        f"{objects._path}/{name}?fieldManager={manager}",
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, **manifest},
        content_type="application/apply-patch+yaml",
    )


def test_every_field_is_in_the_matrix(cluster: DevCluster) -> None:
    """The fields below are all that the API server knows."""
    path = "{.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties}"
    known = cluster.kubectl("get", "crd/artifactrepositories.artifacts.alien.dev", "-o", f"jsonpath={path}")
    assert all(f'"{field}":' in known for field in FIELDS)
    assert known.count('"description":') == len(FIELDS)


@pytest.mark.parametrize("ending", ["empty", "absent"])
def test_two_managers_give_up_all_their_fields(objects: Objects, ending: str) -> None:
    """Whatever two field managers own of ``spec``, both can give it up, and ``spec`` is empty then.

    The first one ends at ``spec: {}``, the second one there or at a manifest without ``spec``.
    """
    wrong = []
    for number, (first, second) in enumerate(product(SUBSETS, SUBSETS)):
        name = f"web-{number}"
        steps = [
            (apply(objects, name, {"spec": first}, manager="first"), first),
            (apply(objects, name, {"spec": second}, manager="second"), {**first, **second}),
            (apply(objects, name, {"spec": {}}, manager="first"), second),
            (apply(objects, name, WITHOUT_FIELDS[ending], manager="second"), {}),
        ]
        wrong += [
            f"{sorted(first)} and {sorted(second)}, step {step}: {seen.get('message') or seen.get('spec')}"
            for step, (seen, expected) in enumerate(steps, 1)
            if seen.get("spec") != expected
        ]
    assert wrong == []


@pytest.mark.parametrize("manifest", WITHOUT_FIELDS)
def test_a_manifest_without_fields_creates_an_object(objects: Objects, manifest: str) -> None:
    """Each way to write a manifest without fields creates an object, and applying it again changes nothing."""
    first, second, third = (apply(objects, "web", WITHOUT_FIELDS[manifest], manager="gitops") for _ in range(3))
    assert first["spec"] == second["spec"] == {}
    # The defaults of status are stored by the first update, whoever makes it.
    assert second["metadata"]["generation"] == 1
    assert third == second


def test_one_field_goes_after_the_other(objects: Objects) -> None:
    """Fields can go one by one, in each order that leaves others behind."""
    for number, kept in enumerate(SUBSETS):
        seen = apply(objects, f"web-{number}", {"spec": FIELDS}, manager="gitops")
        assert seen.get("spec") == FIELDS, seen
        for spec in (kept, {}):
            seen = apply(objects, f"web-{number}", {"spec": spec}, manager="gitops")
            assert seen.get("spec") == spec, seen


def test_a_name_stays_once_the_repository_exists(objects: Objects) -> None:
    """Of two managers that give a name one can let go of it; the last one cannot once ``status.uri`` is there."""
    for manager in ("first", "second"):
        apply(objects, "web", {"spec": FIELDS}, manager=manager)
    objects.patch("web", URI, subresource="/status")
    assert apply(objects, "web", {"spec": {}}, manager="first")["spec"] == FIELDS
    refused = apply(objects, "web", {"spec": {}}, manager="second")
    assert refused["reason"] == "Invalid"
    assert "repositoryName cannot be changed, set or removed" in refused["message"]
    rest = {"repositoryName": FIELDS["repositoryName"]}
    assert apply(objects, "web", {"spec": rest}, manager="second")["spec"] == rest


def test_a_name_can_be_changed_before(objects: Objects) -> None:
    """Without ``status.uri`` a name can be set, corrected and removed by server-side apply."""
    for spec in ({}, {"repositoryName": "wrong"}, {"repositoryName": "team-a/web"}, {}):
        assert apply(objects, "web", {"spec": spec}, manager="gitops").get("spec") == spec
    objects.patch("web", URI, subresource="/status")
    assert apply(objects, "web", {"spec": {"repositoryName": "late"}}, manager="gitops")["reason"] == "Invalid"
