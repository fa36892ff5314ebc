"""Hostile tenants and neighbours, all at once, beside an honest tenant of the same operator and registry.

what they do                                        | what is expected
objects with a megabyte of labels                   | memory stays below the container's limit
objects created and deleted in a loop               | no more repositories than the namespace may create
repositories that the registry fails to serve       | the registry stays in use for others
a registry that repeats credentials                 | no status, event, log entry or metric contains them
YAML bombs and lies in kube-public                  | references stay those of the configuration
half-open requests to both ports                    | probes are answered
a kubeconfig that is garbage for a moment           | the process goes on
"""

import json
import random
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Final

import httpx
import pytest

from controller.registry.credentials import Login
from devcluster.cluster import DevCluster
from tests.cluster.campaign import LENIENT, LIMIT, SECONDS, SEED, Record, defects
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Object, Objects, OperatorProcess, is_ready
from tests.cluster.proxy import FaultProxy, Response
from tests.cluster.test_campaign_chaos import Worker
from tests.cluster.test_campaign_objects import Canary, check_log, check_metrics
from tests.cluster.test_campaign_registry import CONTAINER
from tests.cluster.test_faults_crash import catalog
from tests.cluster.test_localregistry import Hosting
from tests.cluster.test_memory import LABELS
from tests.fakes.raw_server import ThreadedServer, Writer
from tests.settings import FULL
from tests.unit.test_redaction import ENCODINGS, leaks

pytestmark = [pytest.mark.cluster, pytest.mark.campaign, pytest.mark.timeout(LIMIT)]

DURATION: Final = SECONDS / 2 if FULL else 20
LOGIN: Final = Login("robot", "s3cr3t/of the+robot")
PER_SECOND: Final = 0.5
BURST: Final = 20
HALF_OPEN: Final = 600
LIES: Final = (
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nhost: *c",
    "x: &x {a: 1}\n" + "".join(f"y{n}: &y{n}\n  <<: [*x, *x]\n" for n in range(30)),
    "[" * 1000,
    "host: " + "a" * 5000,
    "host: user:password@evil.example:5000",
    "host: evil.example:5000\nhostFromContainerRuntime: evil.example:5000",
    "host: evil.example/v2/../..",
    "host: \u017fervice:5000",
    "\x00",
    "",
)


class EchoingRegistry(ThreadedServer):
    """A registry that requires a login and then repeats it, encoded, wherever a registry can put a text.

    Args:
        dice: What it says, and where.
    """

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self.told: Counter[str] = Counter()

    async def respond(self, head: str, writer: Writer) -> None:
        """Require a login, and repeat one that was sent."""
        if "authorization:" not in head.lower():
            await writer.respond("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
            return
        encoding = self._dice.choice(sorted(ENCODINGS))
        secret = self._dice.choice([LOGIN.password, LOGIN.header, LOGIN.header.split()[1]])
        text = ENCODINGS[encoding](secret)
        status = self._dice.choice(["400 Bad", "403 Forbidden", "404 Not Found", "429 Slow", "500 Failed", "503 Busy"])
        self.told[encoding] += 1
        where = self._dice.choice(["code", "text", "location", "realm"])
        if where == "code":
            body = json.dumps({"errors": [{"code": "DENIED", "message": f"you sent {text}"}]}).encode()
            await writer.respond(status, body, Content_Type="application/json")
        elif where == "text":
            await writer.respond(status, f"you sent {text}".encode(), Content_Type="text/plain")
        elif where == "location":
            path = text.replace("\r", "").replace("\n", "").encode("ascii", "replace").decode()
            await writer.respond("307 Moved", Location=f"http://other.example/{path}")
        else:
            realm = text.replace('"', "").replace("\r", "").replace("\n", "").encode("ascii", "replace").decode()
            await writer.respond("401 Unauthorized", WWW_Authenticate=f'Bearer realm="http://other.example/{realm}"')


class Attackers:
    """What hostile tenants and neighbours do, one thing after the other, in one thread for each kind.

    Args:
        tenant: The objects of the hostile tenant.
        hosting: The ConfigMap in kube-public.
        operator: The operator.
        dice: What they do next.
    """

    def __init__(self, tenant: Objects, hosting: Hosting, operator: OperatorProcess, dice: random.Random) -> None:
        self._tenant = tenant
        self._hosting = hosting
        self._operator = operator
        self._dice = dice
        self._kubeconfig = Path(operator.config.parent, "kubeconfig")
        self._number = 0
        self.done: Counter[str] = Counter()

    def all(self) -> Mapping[str, Callable[[Event], None]]:
        """Return one step of each attack."""
        return {
            "large objects": self.large,
            "create and delete": self.loop,
            "bad repositories": self.bad,
            "echoed credentials": self.echo,
            "lies in kube-public": self.lie,
            "half-open requests": self.half_open,
            "garbage for a kubeconfig": self.garble,
        }

    def large(self, over: Event) -> None:
        """Create objects with a megabyte of labels, and delete them."""
        names = [self._name("large") for _ in range(10)]
        for name in names:
            self._tenant.create(name, {"suspend": self._dice.random() < 0.5}, labels=LABELS)
            self.done["large objects"] += 1
        over.wait(10 if FULL else 2)  # etcd keeps each version for five minutes
        for name in names:
            self._tenant.delete(name)

    def loop(self, over: Event) -> None:
        """Create an object, and delete it as soon as it has a repository or has to wait."""
        name = self._name("loop")
        self._tenant.create(name)
        over.wait(self._dice.uniform(0, 0.2))
        self._tenant.delete(name)
        self.done["objects created and deleted"] += 1

    def bad(self, over: Event) -> None:
        """Create an object whose repository the registry fails to serve."""
        if self.done["bad repositories"] < 30:
            self._tenant.create(self._name("bad"))
            self.done["bad repositories"] += 1
        over.wait(0.3)

    def echo(self, over: Event) -> None:
        """Create an object in the registry that repeats credentials."""
        name = self._name("echo")
        self._tenant.create(name, {"registry": "echo"})
        over.wait(self._dice.uniform(0.2, 2))
        self.done["objects in the echoing registry"] += 1
        if self._dice.random() < 0.7:
            self._tenant.delete(name)

    def lie(self, over: Event) -> None:
        """Advertise something else as the local registry."""
        self._hosting.put(**{self._dice.choice(["localRegistryHosting.v1", "other"]): self._dice.choice(LIES)})
        self.done["lies in kube-public"] += 1
        over.wait(self._dice.uniform(0.5, 5))

    def half_open(self, over: Event) -> None:
        """Keep requests half open on both ports, and see that probes are answered meanwhile."""
        with ExitStack() as stack:
            for address in (self._operator.address, self._operator.metrics_address):
                host, _, port = address.rpartition(":")
                for _ in range(HALF_OPEN):
                    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
                    connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
                    self.done["half-open requests"] += 1
            assert self._operator.health("healthz")[0] == 200
            over.wait(self._dice.uniform(0.5, 3))
            assert self._operator.health("healthz")[0] == 200

    def garble(self, over: Event) -> None:
        """Replace the kubeconfig by garbage for a moment."""
        good = self._kubeconfig.read_bytes()
        garbage = self._dice.choice(
            [b"", b"{", b"\x00" * 100, b"apiVersion: v1\nkind: Config\n", good[: len(good) // 2]]
        )
        try:
            self._kubeconfig.write_bytes(garbage)
            self.done["garbage for a kubeconfig"] += 1
            over.wait(self._dice.uniform(0.1, 1))
        finally:
            fresh = self._kubeconfig.with_suffix(".good")
            fresh.write_bytes(good)
            fresh.replace(self._kubeconfig)
        over.wait(self._dice.uniform(2, 10))

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number:05}"


@contextmanager
def failing(proxy: FaultProxy, namespace: str) -> Iterator[None]:
    """Let the registry fail for one kind of the hostile tenant's repositories."""
    with ExitStack() as rules:
        for method, answer in (("GET", Response(500, b"{}")), ("POST", Response(429, b"{}", {"Retry-After": "5"}))):
            rules.enter_context(proxy.rule(method, f"/{namespace}/bad-", answer))
        yield


def test_hostile_tenants_beside_an_honest_one(
    api: Api,
    cluster: DevCluster,
    objects: Objects,
    start_operator: StartOperator,
    registry_proxy: FaultProxy,
    record_property: Record,
    tmp_path: Path,
) -> None:
    """Whatever they do, the honest tenant is served, memory is bounded, and no secret is told."""
    for file, text in {"username": LOGIN.username, "password": LOGIN.password}.items():
        (tmp_path / file).write_text(text)
    basic = {"usernameFile": str(tmp_path / "username"), "passwordFile": str(tmp_path / "password")}
    tenant = Objects(api, f"hostile-{uuid.uuid4().hex[:8]}")
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": tenant.namespace}})
    waits: list[float] = []
    with EchoingRegistry(random.Random(f"echo {SEED}")) as echoing:
        config: Object = {
            "defaultRegistry": "open",
            "repositoryPolicy": "Namespaced",
            "creations": {"perSecond": PER_SECOND, "burst": BURST},
            "registries": {
                "open": {"registryUrl": registry_proxy.url},
                "echo": {"registryUrl": echoing.url, "credentials": {"basic": basic}},
            },
            "timings": {"resyncInterval": "5s", "unavailableAfter": "2s", "probeInterval": "500ms"},
        }
        operator = start_operator(config, "--namespace", tenant.namespace, "--log-level=debug", environment=LENIENT)
        attackers = Attackers(tenant, Hosting(api), operator, random.Random(f"attackers {SEED}"))
        started, honest = time.monotonic(), 0
        with failing(registry_proxy, tenant.namespace), Canary(objects) as canary, ExitStack() as attacks:
            for kind, step in attackers.all().items():
                attacks.enter_context(Worker(kind, step))
            while time.monotonic() < started + DURATION:
                created = time.monotonic()
                objects.create(f"honest-{honest}")
                seen = objects.wait_ready(f"honest-{honest}", within=60, tell=operator.log)
                waits.append(time.monotonic() - created)
                assert seen["status"]["references"]["host"].startswith(registry_proxy.url.removeprefix("http://"))
                honest += 1
                time.sleep(1 / PER_SECOND)
            elapsed = time.monotonic() - started
        objects.wait_all(is_ready, within=30, tell=operator.log)
        check_secrets(api, operator, objects, tenant)
    check_metrics(operator, objects.namespace, tenant.namespace)
    made = [path for path in catalog(cluster.registry_url, f"open/{tenant.namespace}/") if path]
    assert len(made) <= BURST + PER_SECOND * elapsed + 1
    peak = operator.peak_bytes()
    Hosting(api).delete()
    for object_ in tenant.list():
        tenant.delete(object_["metadata"]["name"])
    eventually(lambda: not tenant.list(), within=60)
    operator.process.stop(timeout=30)
    assert operator.process.exit_code == 0
    check_log(operator, "text")
    assert defects(operator.process.log.read_text()) == []
    assert peak < CONTAINER
    record_property("tenants: seed", SEED)
    for what, count in sorted(attackers.done.items()):
        record_property(f"tenants: … {what}", count)
    record_property("tenants: credentials repeated", sum(echoing.told.values()))
    record_property("tenants: repositories of the hostile tenant", len(made))
    record_property("tenants: honest objects", honest)
    record_property("tenants: slowest of them until Ready, s", round(max(waits), 2))
    record_property("tenants: slowest verification of the honest object, s", round(max(canary.waits), 2))
    record_property("tenants: peak memory, MB", peak >> 20)


def check_secrets(api: Api, operator: OperatorProcess, *tenants: Objects) -> None:
    """Check that neither status nor events nor metrics nor the log show the login of the echoing registry."""
    texts = [operator.process.log.read_text(), httpx.get(f"http://{operator.metrics_address}/metrics").text]
    for tenant in tenants:
        texts.append(json.dumps([object_["status"] for object_ in tenant.list()], ensure_ascii=False))
        events = api.must("GET", f"/api/v1/namespaces/{tenant.namespace}/events")["items"]
        texts.append(json.dumps([event["message"] for event in events], ensure_ascii=False))
    assert "AccessDenied" in texts[0] or "AuthenticationFailed" in texts[0]
    for text in texts:
        for line in text.splitlines():
            assert not leaks(line, LOGIN.password), line[:500]
            assert LOGIN.header.split()[1] not in line, line[:500]
