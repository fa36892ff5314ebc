"""Two tenants of one registry during its outage: what the status of one says of the other."""

import json

import pytest

from tests.cluster.conftest import StartOperator
from tests.cluster.harness import Api, Objects, operator_config, ready
from tests.cluster.proxy import FaultProxy, Response

pytestmark = pytest.mark.cluster

NAMES = [f"secret-{number}" for number in range(5)]


def test_no_status_names_the_repository_of_another_tenant(
    api: Api, objects: Objects, start_operator: StartOperator, registry_proxy: FaultProxy
) -> None:
    """The registry's errors name the repository that it was asked for; only objects of its namespace repeat that."""
    other = Objects(api, f"{objects.namespace}-other")
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": other.namespace}})
    operator = start_operator(operator_config(registry_proxy.url), "--namespace", other.namespace)
    error = {"code": "UNKNOWN", "message": f"no space for artifacts/{other.namespace}/secret-1"}
    answer = Response(500, json.dumps({"errors": [error]}).encode(), {"Content-Type": "application/json"})
    with registry_proxy.rule("GET", "", answer):
        for name in NAMES:
            other.create(name)
        for name in NAMES:
            other.wait(name, lambda o: ready(o) == ("False", "RegistryUnavailable"), tell=operator.log)
        asked = registry_proxy.count("GET", f"/{objects.namespace}/")
        objects.create("web")
        seen = objects.wait("web", lambda o: ready(o) == ("False", "RegistryUnavailable"), tell=operator.log)
        assert registry_proxy.count("GET", f"/{objects.namespace}/") == asked  # it was told without a request
    status = json.dumps(seen["status"])
    assert f"{registry_proxy.url}: 500 (UNKNOWN); check the registry's logs" in status
    assert other.namespace not in status
    assert "secret" not in status
