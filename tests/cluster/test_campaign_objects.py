"""Hostile objects: generated ones against the real API server, with the operator running.

what an author may try                       | what is expected
names near the grammar, look-alikes, paths   | refused with a sentence, or a repository at exactly its own path
long values, wrong types, unknown fields     | the same
labels, annotations, object names            | no line of the log and no metric label has them unescaped
addresses of other hosts, wherever           | nobody but the API server and the registry is connected to
thousands of such                            | an honest object is served as ever
"""

import json
import re
import socket
import string
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from controller.api.v1alpha1 import MAX_REQUESTED_AT
from devcluster.cluster import DevCluster
from tests.cluster.campaign import LENIENT, LIMIT, SEED, SPECS, Record
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import AccessLog, Object, Objects, OperatorProcess, condition, ready

pytestmark = [pytest.mark.cluster, pytest.mark.campaign, pytest.mark.timeout(LIMIT)]

ROUND: Final = 1000
"""Objects that are there at the same time, at most."""

REQUESTED_AT: Final = "artifacts.alien.dev/requestedAt"

SENTENCES: Final = (
    "not a repository name: use lower-case letters and digits",
    "not a registry's name: give the name (not the address)",
    "in body must be of type",
    "Too long: may not be more than",
    "should be at least 1 chars long",
    "spec: Required value",
    "is invalid: metadata.",  # Kubernetes' own rules, with its own sentences
    "is invalid: [metadata.",
    "cannot be handled as a ArtifactRepository",
    "already exists",
)
"""What a refusal may say; each tells the field and what is wrong with it."""

COMPONENTS: Final = ("a", "web", "team-a", "x.y", "v1_2", "p__q", "0", "a--b", "latest", "manifests", "blobs", "v2")
FRAGMENTS: Final = (
    *(
        "a",
        "web",
        "Web",
        "-",
        "--",
        ".",
        "..",
        "_",
        "__",
        "___",
        "/",
        "//",
        "é",
        "ß",
        "İ",
        "\u0430",
        "\uff41",
        "\u200b",
    ),
    *("\u202e", "\u2028", "\x00", "\n", "\r\n", "\t", "\x1b[31m", "\x7f", "%2e%2e", "%2F", "%00", "?", "#", ":", "@"),
    *("\\", "~", "*", "|", "$(id)", "${x}", "{namespace}", "{name}", "'", '"', "`", ";", "<", ">", " ", "\ud800"),
    *("http://", "https://", "localhost:", "127.0.0.1:", "[::1]", "169.254.169.254/latest/meta-data/", "user:pw@"),
    *("latest", "sha256:" + "0" * 64, "manifests/latest", "tags/list", "_catalog", "blobs/uploads/", "?n=1&from=x"),
)
LENGTHS: Final = (44, 45, 63, 64, 199, 200, 201, 244, 245, 246, 253, 254, 255, 1000, 5000)

T = TypeVar("T")


def mix(*strategies: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Return one of these, each as often as it is named; hypothesis's own ``|`` counts the parts of the parts."""
    return st.sampled_from(strategies).flatmap(lambda strategy: strategy)


good = st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=4).map("/".join)
near = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=6).map("".join)
text = st.text(max_size=12)
long = st.builds(lambda part, length: (part * length)[:length], good | st.just("a"), st.sampled_from(LENGTHS))
names = mix(near, near, near, long, text)
maps = st.dictionaries(text, text, max_size=2)
wrong: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.just(1e300) | st.lists(text, max_size=2)
anything: st.SearchStrategy[Any] = mix(names, names, names, wrong, maps)
keys = near | text | st.text(string.ascii_letters + "-./_", max_size=20)

registries = st.sampled_from(["open", "strict", "nowhere"])
honest = st.fixed_dictionaries({}, optional={"repositoryName": good, "registry": registries})
specs: st.SearchStrategy[Any] = mix(
    honest,
    honest,
    st.fixed_dictionaries({"repositoryName": names}, optional={"registry": registries}),
    st.fixed_dictionaries({"repositoryName": names}, optional={"registry": registries}),
    st.fixed_dictionaries({"registry": names}, optional={"repositoryName": good}),
    st.fixed_dictionaries(
        {},
        optional={
            "repositoryName": mix(good, anything),
            "registry": mix(registries, anything),
            "suspend": mix(st.booleans(), anything),
            "registryUrl": anything,
            "credentials": anything,
        },
    ),
    st.builds(lambda one, other: {**other, **one}, honest, st.dictionaries(keys, anything, max_size=3)),
    wrong | maps,
)
metadata: st.SearchStrategy[Object] = mix(
    st.just({}),
    st.fixed_dictionaries({"annotations": st.fixed_dictionaries({REQUESTED_AT: names})}),
    st.fixed_dictionaries({"annotations": st.dictionaries(keys, names, max_size=2)}),
    st.fixed_dictionaries({"labels": st.dictionaries(keys, names, max_size=2)}),
    st.fixed_dictionaries({"name": mix(names, good)}),
    st.fixed_dictionaries({}, optional={"name": wrong, "labels": wrong, "selfLink": names, "generation": wrong}),
)
manifests = st.fixed_dictionaries({"spec": specs, "metadata": mix(st.just({}), st.just({}), metadata)})


def hostile_manifests(count: int, number: int) -> list[Object]:
    """Return generated objects.

    Args:
        count: How many.
        number: Of the round; each has others.
    """
    made: list[Object] = []

    @seed(SEED + number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(manifests)
    def collect(manifest: Object) -> None:
        made.append(manifest)

    collect()
    return made[:count]


@dataclass(frozen=True)
class Expected:
    """What has to become of an object.

    Args:
        ready: Status and reason of Ready.
        path: Of its repository in the registry; None where there must not be one.
    """

    ready: tuple[str, str]
    path: str | None = None


def expectation(object_: Object, prefixes: Mapping[str, str]) -> Expected:
    """Return what has to become of an object, by rules written down once more, from docs/api.md."""
    spec, metadata = object_["spec"], object_["metadata"]
    registry, name = spec.get("registry", "open"), spec.get("repositoryName")
    if spec.get("suspend"):
        return Expected(("False", "Suspended"))
    if registry not in prefixes:
        return Expected(("False", "UnknownRegistry"))
    separator = "/" if registry == "open" else "."
    path = f"{prefixes[registry]}/{name or metadata['namespace'] + separator + metadata['name']}"
    if len(path) > 245 or len(path) - len(prefixes[registry]) - 1 > 200:
        return Expected(("False", "InvalidName"))
    if (
        registry == "strict"
        and name
        and not name.startswith((f"{metadata['namespace']}/", f"{metadata['namespace']}."))
    ):
        return Expected(("False", "PolicyViolation"))
    return Expected(("True", "RepositoryReady"), path)


class Canary:
    """An honest object that is verified again and again in the ``with`` block.

    Args:
        objects: Where it lives.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sing, name="canary", daemon=True)
        self.waits: list[float] = []
        """Seconds from each request for a verification to its answer."""

    def __enter__(self) -> Self:
        self._objects.create("canary", labels={"app": "canary"})
        self._objects.wait_ready("canary", within=30)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _sing(self) -> None:
        while not self._over.wait(0.5):
            begun = time.monotonic()
            stamp = f"{begun:.6f}"
            self._objects.patch("canary", {"metadata": {"annotations": {REQUESTED_AT: stamp}}})
            seen = self._objects.wait("canary", partial(_answers, stamp), within=60)
            assert ready(seen) == ("True", "RepositoryReady")
            self.waits.append(time.monotonic() - begun)


def _answers(stamp: str, object_: Object) -> bool:
    return bool(object_["status"].get("lastHandledReconcileAt") == stamp)


class Tempter:
    """A server that nobody has a reason to call, and which hostile objects name in every field."""

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def specs(self) -> Iterator[Object]:
        """Yield specs that name it."""
        for value in (self.address, f"http://{self.address}", f"http://{self.address}/v2/x", f"{self.address}/team/x"):
            for name in ("repositoryName", "registry", "registryUrl", "uri", "credentials"):
                yield {name: value}

    def was_called(self) -> bool:
        """Tell whether somebody has connected."""
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True


def peers(pid: int) -> set[int]:
    """Return the ports that a process is connected to, all of which are on loopback."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(descriptor.readlink().name.removeprefix("socket:[").rstrip("]"))
        except OSError:
            continue  # closed meanwhile
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] != "0A":
                assert fields[2].startswith(("0100007F:", "0000000000000000FFFF00000100007F:", "00000000")), line
                ports.add(int(fields[2].rpartition(":")[2], 16))
    return ports


_TEXT_ENTRY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG  |INFO   |WARNING|ERROR  ) [\w.]+: [ -~]*")


def check_log(operator: OperatorProcess, format_: str) -> int:
    """Check that each line of a log is one entry in printable ASCII; return how many there are."""
    log = operator.process.log.read_bytes().decode()
    assert "Traceback" not in log, log[max(0, log.index("Traceback") - 3000) :][:8000]
    lines = log.split("\n")[:-1]
    for line in lines:
        assert line.isascii(), line
        assert line.isprintable(), line
        if format_ == "json":
            assert {"time", "level", "logger", "message"} <= json.loads(line).keys()
        else:
            assert _TEXT_ENTRY.fullmatch(line), line
    return len(lines)


def check_metrics(operator: OperatorProcess, *namespaces: str) -> int:
    """Check that metric labels are our own or the administrator's; return how many series there are.

    Args:
        operator: The one to ask.
        namespaces: What it was told to watch.
    """
    values = re.compile(r"open|strict|[a-z_]+|GET|HEAD|POST|PUT|PATCH|[1-5]\d\d|True|False|Unknown|Ready|[\d.]+|\+Inf")
    series = operator.metrics()
    for name in series:
        for label, value in re.findall(r'(\w+)="([^"]*)"', name):
            known = value in namespaces if label == "watched_namespace" else values.fullmatch(value)
            assert known, name
    assert len(series) < 300
    return len(series)


class Attack:
    """Rounds of hostile objects, and what came of them.

    Args:
        objects: Where they are made.
        prefixes: The path prefix of each registry.
    """

    def __init__(self, objects: Objects, prefixes: Mapping[str, str]) -> None:
        self._objects = objects
        self._prefixes = prefixes
        self.refused: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.paths: set[str] = set()

    def round(self, manifests: list[Object], operator: OperatorProcess, tempter: Tempter) -> None:
        """Try to create objects, wait for what becomes of them, check it, and delete them again."""
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(self._try, range(len(manifests)), manifests))
        expected: dict[str, Expected] = {}
        for manifest, answer in zip(manifests, answers, strict=True):
            if answer.get("kind") == "Status":
                self._check_refusal(manifest, answer)
            else:
                expected[answer["metadata"]["name"]] = expectation(answer, self._prefixes)
        self._check_outcomes(expected, operator, tempter)
        self._objects.api.must("DELETE", f"{self._objects._path}?labelSelector=app%21%3Dcanary")

    def _try(self, number: int, manifest: Object) -> Object:
        made = self._objects.manifest(f"hostile-{number}")
        made["metadata"] |= manifest["metadata"]
        made["spec"] = manifest["spec"]
        return self._objects.api.request("POST", self._objects._path, made)

    def _check_refusal(self, manifest: Object, answer: Object) -> None:
        message = answer["message"]
        said = next((sentence for sentence in SENTENCES if sentence in message), None)
        assert said, f"{manifest}: {answer}"
        assert answer["code"] in (400, 409, 422), answer
        # Kubernetes' own sentences end with their pattern, ours do not begin with one.
        assert "matches(" not in message
        assert "should match" not in message
        self.refused[said] += 1

    def _check_outcomes(self, expected: dict[str, Expected], operator: OperatorProcess, tempter: Tempter) -> None:
        def settled(object_: Object) -> bool:
            return bool(condition(object_, "Ready")) or object_["metadata"]["name"] == "canary"

        for object_ in self._objects.wait_all(settled, within=60, tell=operator.log):
            name, status = object_["metadata"]["name"], object_["status"]
            if name == "canary":
                continue
            wanted = expected.pop(name)
            assert ready(object_) == wanted.ready, object_
            assert status["observedGeneration"] == object_["metadata"]["generation"]
            asked = object_["metadata"].get("annotations", {}).get(REQUESTED_AT)
            answered = None if object_["spec"].get("suspend") or asked is None else asked[:MAX_REQUESTED_AT]
            assert status.get("lastHandledReconcileAt") == answered
            assert all(c["message"].isprintable() for c in status["conditions"]), object_
            assert tempter.address not in json.dumps(status)
            self.outcomes[wanted.ready[1]] += 1
            if wanted.path is None:
                assert "uri" not in status
            else:
                assert status["uri"].partition("/")[2] == wanted.path, object_
                self.paths.add(wanted.path)
        assert not expected, f"not there: {expected}"


def test_hostile_objects(
    cluster: DevCluster,
    objects: Objects,
    start_operator: StartOperator,
    access_log: AccessLog,
    record_property: Record,
) -> None:
    """Refused with a sentence or served at exactly its own path; nobody else is called, kept waiting, or fooled."""
    prefixes = {name: f"{name}-{objects.namespace}" for name in ("open", "strict")}
    registries: dict[str, Any] = {
        name: {"registryUrl": cluster.registry_url, "pathPrefix": prefix} for name, prefix in prefixes.items()
    }
    registries["strict"] |= {"repositoryPolicy": "Namespaced", "repositoryTemplate": "{namespace}.{name}"}
    allowed = {int(url.rpartition(":")[2]) for url in (cluster.url, cluster.registry_url)}
    mark, attack, lines, series, waits = access_log.mark(), Attack(objects, prefixes), 0, 0, list[float]()
    left, number = SPECS, 0
    while left > 0:
        format_ = ("text", "json")[number % 2]
        operator = start_operator(
            {"defaultRegistry": "open", "registries": registries},
            "--log-level=debug",
            f"--log-format={format_}",
            environment=LENIENT,
        )
        with Tempter() as tempter, Canary(objects) as canary:
            # In each log some rounds, so that starting the operator does not take the most of the time.
            for _ in range(1 if number == 0 else 10):
                count = min(left, ROUND if SPECS > ROUND else SPECS // 2)
                tempting = [{"metadata": {}, "spec": spec} for spec in tempter.specs()]
                manifests = [*hostile_manifests(count, number), *tempting]
                attack.round(manifests, operator, tempter)
                left, number = left - count, number + 1
                pid = operator.process.pid
                assert pid is not None
                assert peers(pid) - {int(operator.address.rpartition(":")[2])} <= allowed | {0}
                if left <= 0:
                    break
            assert not tempter.was_called()
        waits += canary.waits
        series = max(series, check_metrics(operator, objects.namespace))
        objects.delete("canary")
        operator.process.stop(timeout=30)
        lines += check_log(operator, format_)
        assert operator.process.exit_code == 0
    _check_requests(access_log.since(mark), attack.paths | {f"{prefixes['open']}/{objects.namespace}/canary"})
    record_property("objects: seed", SEED)
    record_property("objects: tried", sum(attack.refused.values()) + sum(attack.outcomes.values()))
    record_property("objects: refused by the API server", sum(attack.refused.values()))
    for what, count in (attack.refused + attack.outcomes).most_common():
        record_property(f"objects: … {what}", count)
    record_property("objects: repositories, each pushed once", len(attack.paths))
    record_property("objects: slowest answer to the honest object, s", round(max(waits), 2))
    record_property("objects: log entries checked", lines)
    record_property("objects: metric series", series)


def _check_requests(requests: list[str], paths: set[str]) -> None:
    """Check that the operator has asked for these repositories and for nothing else, and has pushed to each once."""
    asked, pushed = set(), Counter[str]()
    for request in requests:
        method, target, status = request.split()
        if target == "/v2/":
            continue
        path = re.split(r"/(?:manifests/latest|tags/list|blobs/uploads/[^/]*|blobs/sha256:[0-9a-f]{64})$", target)
        assert len(path) == 2, request
        asked.add(path[0].removeprefix("/v2/"))
        if method == "PUT" and "/manifests/" in target:
            assert status == "201"
            pushed[path[0].removeprefix("/v2/")] += 1
    assert asked == paths
    assert pushed == dict.fromkeys(paths, 1)
