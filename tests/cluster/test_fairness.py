"""One registry for several tenants: the slow repositories of one namespace hardly delay the objects of another one."""

import time
import uuid

import pytest

from tests.cluster.campaign import Record
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import Api, Objects, is_ready, operator_config
from tests.cluster.proxy import Delay, FaultProxy

pytestmark = pytest.mark.cluster

SLOW = 200
RECONCILE = 3.0
"""Seconds that the reconcile of one of the slow repositories takes: the registry is slow to list their tags."""


def test_slow_repositories_of_one_namespace_delay_another_one_little(
    api: Api,
    objects: Objects,
    start_operator: StartOperator,
    registry_proxy: FaultProxy,
    record_property: Record,
) -> None:
    """While two hundred of them wait for workers, each new object elsewhere is Ready within three reconciles."""
    busy = Objects(api, f"busy-{uuid.uuid4().hex[:8]}")
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": busy.namespace}})
    busy.create_many(f"slow-{number}" for number in range(SLOW))
    with registry_proxy.rule("GET", f"/{busy.namespace}/", Delay(RECONCILE)):
        arguments = ("--namespace", busy.namespace, "--concurrent", "16")
        operator = start_operator(operator_config(registry_proxy.url), *arguments)
        delays = []
        for number in range(3):
            started = time.monotonic()
            objects.create(f"new-{number}")
            objects.wait_ready(f"new-{number}", tell=operator.log)
            delays.append(time.monotonic() - started)
        left = sum(not is_ready(object_) for object_ in busy.list())
    assert left, "nothing was waiting any more"
    record_property("fairness: longest delay of a new object, s", round(max(delays), 2))
    assert max(delays) < 3 * RECONCILE
    busy.wait_all(is_ready, within=60, tell=operator.log)
