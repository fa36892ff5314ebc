"""A registry that answers at random whatever none should, beside an honest one, under a real operator.

what it does                                      | what is expected
each hostile answer of tests/unit/registry        | its objects are told a reason of the table; no crash, bounded memory
redirects, Locations, realms on another host      | nobody there is called, and no credential is told to anybody
all this for a while                              | objects of another registry are served as ever
it is replaced by a good one                      | all objects are Ready
"""

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from controller.api.reasons import Reason
from controller.registry.credentials import Login
from devcluster.cluster import DevCluster
from tests.cluster.campaign import LENIENT, LIMIT, SECONDS, SEED, Record
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import Object, Objects, is_ready, ready
from tests.cluster.test_campaign_objects import Canary, Tempter, check_log, check_metrics
from tests.fakes.raw_server import Responder, ThreadedServer, Writer
from tests.settings import FULL
from tests.unit.registry.test_hostile import HOSTILE

pytestmark = [pytest.mark.cluster, pytest.mark.campaign, pytest.mark.timeout(LIMIT)]

OBJECTS: Final = 100 if FULL else 20
DURATION: Final = SECONDS / 2 if FULL else 12
LOGIN: Final = Login("robot", "s3cr3t-of-the-robot")
REASONS: Final = frozenset({None, *map(str, Reason)})
SLOW: Final = ("silent", "drip", "flood", "less than")
"""The names of answers begin so that keep a worker for as long as a timeout: seldom in the long form, else never."""

CONTAINER: Final = 256 << 20
"""Bytes of memory that manifests/kind gives the operator."""


class HostileRegistry(ThreadedServer):
    """A server that answers each request in another way, in the ``with`` block.

    Args:
        dice: How.
        elsewhere: The address of a server that it wants to be called.
    """

    def __init__(self, dice: random.Random, elsewhere: str) -> None:
        super().__init__()
        self._dice = dice
        self._responses = dict(self._known()) | dict(_leading_to(elsewhere))
        self._names = sorted(self._responses)
        self._weights = [0.02 * FULL if name.startswith(SLOW) else 1.0 for name in self._names]
        self.given: Counter[str] = Counter()

    @staticmethod
    def _known() -> list[tuple[str, Responder]]:
        return [(name, respond) for name, _, respond, _, _ in HOSTILE]

    async def respond(self, head: str, writer: Writer) -> None:
        """Give one of the answers."""
        (name,) = self._dice.choices(self._names, self._weights)
        self.given[name] += 1
        await self._responses[name](head, writer)


def _leading_to(address: str) -> list[tuple[str, Responder]]:
    """Return answers that want another server to be called, and to be told the credentials."""

    def leads(status: str, **headers: str) -> Responder:
        async def respond(_: str, writer: Writer) -> None:
            await writer.respond(status, b"{}", **headers)

        return respond

    url = f"http://{address}"
    return [
        ("redirect elsewhere", leads("307 Moved", Location=f"{url}/v2/")),
        ("redirect to the metadata service", leads("302 Found", Location="http://169.254.169.254/latest/meta-data/")),
        ("upload elsewhere", leads("202 Accepted", Location=f"{url}/v2/x/blobs/uploads/1")),
        ("next page elsewhere", leads("200 OK", Link=f'<{url}/v2/>; rel="next"', Content_Type="application/json")),
        ("basic challenge", leads("401 Unauthorized", WWW_Authenticate='Basic realm="x"')),
        ("token service elsewhere", leads("401 Unauthorized", WWW_Authenticate=f'Bearer realm="{url}/token"')),
        ("forged log line", leads("400 Bad", X="y", Content_Type="application/json")),
        ("wait for a year", leads("429 Slow", Retry_After="31536000")),
    ]


def test_a_registry_that_answers_at_random(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, record_property: Record, tmp_path: Path
) -> None:
    """A clear reason for each object, bounded memory, no word to anybody else; the honest registry is asked as ever."""
    for name, text in {"username": LOGIN.username, "password": LOGIN.password}.items():
        (tmp_path / name).write_text(text)
    basic = {"usernameFile": str(tmp_path / "username"), "passwordFile": str(tmp_path / "password")}
    timings = {"probeInterval": "200ms", "resyncInterval": "2s", "unavailableAfter": "1s", "progressDeadline": "5s"}
    names = [f"repo-{number}" for number in range(OBJECTS)]
    seen: Counter[str] = Counter()
    with Tempter() as tempter, HostileRegistry(random.Random(SEED), tempter.address) as hostile:
        registries: dict[str, Object] = {
            "open": {"registryUrl": cluster.registry_url},
            "strict": {"registryUrl": hostile.url, "credentials": {"basic": basic}},
        }
        config = {"defaultRegistry": "open", "registries": registries, "timings": timings}
        operator = start_operator(config, "--log-level=debug", environment=LENIENT)
        with Canary(objects) as canary:
            memory = operator.resident_bytes()
            objects.create_many(names, {"registry": "strict"})
            most = memory
            until = time.monotonic() + DURATION
            while time.monotonic() < until:
                time.sleep(0.5)
                most = max(most, operator.resident_bytes())
                for object_ in objects.list():
                    reason = ready(object_)[1]
                    assert reason in REASONS, object_
                    seen[str(reason)] += 1
                    told = json.dumps(object_["status"])
                    assert LOGIN.password not in told
                    assert LOGIN.header.split()[1] not in told
        assert not tempter.was_called()
        registries["strict"] = {"registryUrl": cluster.registry_url}
        operator.configure(config)
    objects.wait_all(is_ready, within=60, tell=operator.log)
    check_metrics(operator, objects.namespace)
    operator.process.stop(timeout=30)
    assert operator.process.exit_code == 0
    check_log(operator, "text")
    log = operator.process.log.read_text()
    assert LOGIN.password not in log
    assert LOGIN.header.split()[1] not in log
    assert most < CONTAINER
    record_property("registry: seed", SEED)
    record_property("registry: hostile answers given", sum(hostile.given.values()))
    record_property("registry: … of so many kinds", len(hostile.given))
    record_property("registry: reasons seen in status", len(seen.keys() - {"None"}))
    record_property("registry: memory before, MB", memory >> 20)
    record_property("registry: … at most, MB", most >> 20)
    record_property("registry: slowest answer to the honest object, s", round(max(canary.waits), 2))
