"""The pieces that cluster tests are made of: objects in the API server, its audit log, and an operator process."""

import json
import os
import re
import shutil
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import httpx
import yaml

from controller.api.v1alpha1 import API_VERSION, GROUP, KIND, PLURAL, VERSION
from devcluster.certificates import Certificate
from devcluster.cluster import DevCluster, Kubernetes
from devcluster.manifests import PERMISSIONS
from devcluster.process import Probe, ServerProcess, free_port
from tests.cluster.eventually import eventually
from tests.cluster.proxy import FaultProxy
from tests.image_user import IMAGE_HOME, as_image_user

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OPERATOR_NAMESPACE = "artifact-repository-system"
OPERATOR_ACCOUNT = "artifact-repository-controller"
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_ACCOUNT}"

OPERATOR_AGENT = "artifact-repository-controller/"

Object = dict[str, Any]

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata"}],
}


def audit_flags(audit_log: Path) -> list[str]:
    """Return what has an API server note each request.

    Args:
        audit_log: Where.
    """
    policy = audit_log.with_name("policy.yaml")
    policy.write_text(yaml.safe_dump(_AUDIT_POLICY))
    never_rotated = "--audit-log-maxsize=100000"  # in MB; where it is rotated, positions in it mean nothing
    return [f"--audit-log-path={audit_log}", f"--audit-policy-file={policy}", never_rotated]


@contextmanager
def operator_cluster(*flags: str, kubernetes: Kubernetes = Kubernetes.NEWEST) -> Iterator[DevCluster]:
    """Run a control plane with the operator's CRD and RBAC from manifests/, and a registry.

    Args:
        flags: Further flags of the API server, such as :func:`audit_flags`.
        kubernetes: Which API server.
    """
    with DevCluster(kubernetes=kubernetes, apiserver_flags=flags) as cluster:
        for name in ("namespace.yaml", "crd.yaml", *PERMISSIONS):
            cluster.kubectl("apply", "-f", MANIFESTS / name)
        cluster.wait_established()
        # For a moment after that it may still say "storage is (re)initializing".
        eventually(lambda: "No resources" in cluster.kubectl("get", "artrepo", check=False))
        yield cluster


class Reachable(Protocol):
    """A cluster that a client on this machine reaches."""

    @property
    def url(self) -> str:
        """Its API server."""
        ...

    @property
    def ca_file(self) -> Path:
        """The CA that it is verified by."""
        ...

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, with a client certificate in files."""
        ...


class Api:
    """The API server, as an administrator sees it."""

    def __init__(self, cluster: Reachable) -> None:
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        user = config["users"][0]["user"]
        context = ssl.create_default_context(cafile=str(cluster.ca_file))
        context.load_cert_chain(user["client-certificate"], user["client-key"])
        self._client = httpx.Client(base_url=cluster.url, verify=context, timeout=30, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Object:
        """Make a request; return the answer, whatever its status says.

        Args:
            method: The HTTP method.
            path: The path, with its query.
            body: Sent as JSON.
            content_type: What kind of JSON it is.
        """
        content = None if body is None else json.dumps(body)
        answer = self._client.request(method, path, content=content, headers={"Content-Type": content_type})
        result: Object = answer.json()
        return result

    def lines(self, path: str, *, silence: float = 30) -> Iterator[str]:
        """Return the lines of an answer as they come.

        Args:
            path: The path, with its query.
            silence: How many seconds may pass between two of them.
        """
        with self._client.stream("GET", path, timeout=silence) as answer:
            yield from answer.iter_lines()

    def must(self, method: str, path: str, body: Any = None, **options: Any) -> Object:
        """Make a request that has to succeed."""
        answer = self.request(method, path, body, **options)
        assert answer.get("status") != "Failure", f"{method} {path}: {answer.get('message')}"
        return answer


class Objects:
    """The ArtifactRepository objects of one namespace.

    Args:
        api: The API server.
        namespace: Their namespace.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self._path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"

    def manifest(self, name: str, spec: Mapping[str, Any] | None = None, **metadata: Any) -> Object:
        """Return an object as a person would write it."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": self.namespace, **metadata},
            "spec": dict(spec or {}),
        }

    def create_many(self, names: Iterable[str], spec: Mapping[str, Any] | None = None) -> None:
        """Create objects as fast as a few clients can."""
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(lambda name: self.create(name, spec), names))

    def create(self, name: str, spec: Mapping[str, Any] | None = None, **metadata: Any) -> Object:
        """Create an object."""
        return self.api.must("POST", self._path, self.manifest(name, spec, **metadata))

    def try_create(self, name: str, spec: Mapping[str, Any]) -> Object:
        """Try to create an object; return the answer, a failure included."""
        return self.api.request("POST", self._path, self.manifest(name, spec))

    def get(self, name: str) -> Object:
        """Return an object; one without ``metadata`` where there is none."""
        return self.api.request("GET", f"{self._path}/{name}")

    def list(self) -> Sequence[Object]:
        """Return all objects."""
        items: Sequence[Object] = self.api.must("GET", self._path)["items"]
        return items

    def patch(self, name: str, patch: Mapping[str, Any], *, subresource: str = "") -> Object:
        """Merge a patch into an object."""
        path = f"{self._path}/{name}{subresource}"
        return self.api.must("PATCH", path, patch, content_type="application/merge-patch+json")

    def delete(self, name: str) -> Object:
        """Delete an object."""
        return self.api.must("DELETE", f"{self._path}/{name}")

    def exists(self, name: str) -> bool:
        """Tell whether there is such an object."""
        return "metadata" in self.get(name) and "uid" in self.get(name)["metadata"]

    def wait(
        self, name: str, condition: "Callable[[Object], object]", *, within: float = 20.0, tell: Callable[[], str] = str
    ) -> Object:
        """Wait until an object fulfils a condition; return it."""

        def look() -> Object | None:
            seen = self.get(name)
            return seen if condition(seen) else None

        def show() -> str:
            return f"{json.dumps(self.get(name).get('status'), indent=2)}\n{tell()}"

        return eventually(look, within=within, tell=show, what=f"{self.namespace}/{name}")

    def wait_ready(self, name: str, *, within: float = 20.0, tell: Callable[[], str] = str) -> Object:
        """Wait until an object is Ready for its newest generation; return it."""
        return self.wait(name, is_ready, within=within, tell=tell)

    def wait_all(
        self, condition: "Callable[[Object], object]", *, within: float = 20.0, tell: Callable[[], str] = str
    ) -> Sequence[Object]:
        """Wait until all objects fulfil a condition; return them."""

        def missing() -> Sequence[Object]:
            return [object_ for object_ in self.list() if not condition(object_)]

        def show() -> str:
            left = missing()
            return f"{len(left)} left: {json.dumps([one.get('status') for one in left[:2]], indent=2)}\n{tell()}"

        eventually(lambda: not missing(), within=within, tell=show, what=f"all objects in {self.namespace}")
        return self.list()


class History:
    """What was to be seen of a namespace's objects, in order, from the start of the ``with`` block on.

    Args:
        objects: The objects.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="history", daemon=True)
        self._version = ""
        self.seen: list[tuple[float, Object]] = []
        """Each version with the time.monotonic() at which it was seen."""

    def __enter__(self) -> Self:
        listed = self._objects.api.must("GET", self._objects._path)
        self.seen = [(time.monotonic(), object_) for object_ in listed["items"]]
        self._version = listed["metadata"]["resourceVersion"]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def rows(self, name: str) -> list[str]:
        """Return the rows of the status table that an object was in, one after the other."""
        rows = [row(object_) for _, object_ in list(self.seen) if object_["metadata"]["name"] == name]
        return [one for one, before in zip(rows, ["", *rows], strict=False) if one != before]

    def first(self, name: str, condition: "Callable[[Object], object]") -> float | None:
        """Return when an object was first seen to fulfil a condition, on time.monotonic(); None if it was not."""
        times = (at for at, object_ in list(self.seen) if object_["metadata"]["name"] == name and condition(object_))
        return next(times, None)

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                self._watch()
            except (httpx.HTTPError, ValueError):
                self._over.wait(0.1)

    def _watch(self) -> None:
        query = f"watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={self._version}"
        for line in self._objects.api.lines(f"{self._objects._path}?{query}"):
            event = json.loads(line)
            assert event["type"] != "ERROR", event
            self._version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] in ("ADDED", "MODIFIED"):
                self.seen.append((time.monotonic(), event["object"]))


def row(object_: Object) -> str:
    """Return an object's row of the status table: Ready's status and reason, and what stands beside it."""
    others = [c["type"] for c in object_.get("status", {}).get("conditions", []) if c["type"] != "Ready"]
    return " ".join([*map(str, ready(object_)), *others])


def condition(object_: Object, type_: str) -> Object:
    """Return an object's condition of that type; an empty one where there is none."""
    conditions = object_.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), {})


def ready(object_: Object) -> tuple[str | None, str | None]:
    """Return status and reason of an object's Ready condition."""
    found = condition(object_, "Ready")
    return found.get("status"), found.get("reason")


def is_ready(object_: Object) -> bool:
    """Tell whether an object is Ready for its newest generation."""
    current = object_.get("metadata", {}).get("generation") == object_.get("status", {}).get("observedGeneration")
    return current and ready(object_)[0] == "True"


class AuditMark(NamedTuple):
    """A moment in the audit log.

    The API server logs a request after it has answered it: the object may be seen to change before. Therefore, the
    time counts, and the position only saves reading.

    Args:
        position: Size of the log, in bytes.
        time: The time.
    """

    position: int
    time: datetime


class Audit:
    """What the API server noted of each request.

    Args:
        path: Its audit log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> AuditMark:
        """Return a mark: now."""
        return AuditMark(self._path.stat().st_size, datetime.now(UTC))

    def since(self, mark: AuditMark | None, *, user: str = OPERATOR_USER) -> list[Object]:
        """Return the requests of a user that were received since a mark.

        Args:
            mark: The mark; None for all requests.
            user: Whose.
        """
        with self._path.open("rb") as log:
            log.seek(mark.position if mark else 0)
            lines = log.read().splitlines()
        events = [json.loads(line) for line in lines if line.endswith(b"}")]
        return [
            event
            for event in events
            if event["user"]["username"] == user
            and (mark is None or datetime.fromisoformat(event["requestReceivedTimestamp"]) >= mark.time)
        ]

    def writes(self, mark: AuditMark, *, user: str = OPERATOR_USER, but: tuple[str, ...] = ("leases",)) -> list[str]:
        """Return what a user has written since a mark: verb, resource and name.

        Args:
            mark: The mark.
            user: Whose.
            but: Resources that do not count.
        """
        return [
            f"{event['verb']} {name_of(event)}"
            for event in self.since(mark, user=user)
            if event["verb"] in ("create", "update", "patch", "delete", "deletecollection")
            and event["objectRef"]["resource"] not in but
        ]


def name_of(event: Object) -> str:
    """Return what an audited request was about: resource, subresource, namespace and name."""
    reference = event["objectRef"]
    resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    return f"{resource} {reference.get('namespace', '')}/{reference.get('name', '')}"


def cpu_seconds(pid: int) -> float:
    """Return how much CPU time a process has used, in user mode and in the kernel."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


class OperatorProcess:
    """An operator, run as a Pod runs it: as a user without an entry in /etc/passwd, with HOME=/.

    Args:
        directory: For its configuration and log.
        config: Its configuration; may be changed while it runs (:meth:`configure`).
        kubeconfig: Its access to the API server.
        arguments: Further arguments of ``run``.
        environment: Added to its environment.
        wait: Whether to wait until it is ready when it is started.
        python: The interpreter that runs it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        config: Mapping[str, Any],
        kubeconfig: Path,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        python: str | Path = sys.executable,
    ) -> None:
        self._wait = wait
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "config.yaml"
        self.configure(config)
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        command = [*as_image_user(), python, "-m", "controller", "run", "--config", self.config]
        self.process = ServerProcess(
            "operator",
            [*command, "--health-address", self.address, "--metrics-address", self.metrics_address, *arguments],
            probes=[Probe(f"http://{self.address}/readyz")],
            log=directory / "operator.log",
            directory=ROOT,
            environment={
                "HOME": IMAGE_HOME,
                "KUBECONFIG": str(kubeconfig),
                "PYTHONWARNINGS": "error",
                **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE")},
                **(environment or {}),
            },
        )

    def __enter__(self) -> Self:
        if self._wait:
            self.process.__enter__()
        else:
            self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop(timeout=30)

    def terminate(self, *, within: float = 30.0) -> int:
        """Ask it to end, as the kubelet does; return its exit code."""
        child = self.process._process
        assert child is not None
        child.terminate()
        code = child.wait(within)
        self.process.stop()
        return code

    def resident_bytes(self) -> int:
        """Return how much memory it has."""
        return self._memory("VmRSS")

    def peak_bytes(self) -> int:
        """Return how much memory it had at most."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024  # type: ignore[index]

    def cpu_seconds(self) -> float:
        """Return how much CPU time it has used."""
        assert self.process.pid is not None
        return cpu_seconds(self.process.pid)

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write its configuration file, at once and whole, as the kubelet does."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(json.dumps(config))
        fresh.replace(self.config)

    def log(self) -> str:
        """Return the end of its log."""
        return self.process.log_tail(40)

    def metrics(self) -> dict[str, float]:
        """Return its metrics: name with labels, and value."""
        text = httpx.get(f"http://{self.metrics_address}/metrics", trust_env=False).text
        lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def health(self, what: str) -> tuple[int, str]:
        """Return status and text of /healthz or /readyz."""
        answer = httpx.get(f"http://{self.address}/{what}", trust_env=False)
        return answer.status_code, answer.text.strip()


def remove_repositories(cluster: DevCluster, path: str) -> None:
    """Take repositories out of the registry's storage, as somebody does who cleans up there.

    Args:
        cluster: The cluster.
        path: A repository, or what several begin with.
    """
    storage = cluster.folder / "registry" / "storage" / "docker" / "registry" / "v2" / "repositories"
    # Out of the way at once: an operator may make them again meanwhile.
    removed = Path(tempfile.mkdtemp(dir=cluster.folder))
    (storage / path).rename(removed / "repositories")
    shutil.rmtree(removed)


def operator_config(registry_url: str, **fields: Any) -> Object:
    """Return a configuration with one registry, ``artifacts``."""
    return {"defaultRegistry": "artifacts", "registries": {"artifacts": {"registryUrl": registry_url}}, **fields}


def operator_kubeconfig(cluster: DevCluster, *, lifetime: timedelta = timedelta(hours=2)) -> Path:
    """Return the access of the operator's ServiceAccount, with the RBAC that manifests/ gives it."""
    return cluster.service_account_kubeconfig(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT, lifetime)


def write_kubeconfig(path: Path, like: Path, *, server: str | None = None, token: str | None = None) -> Path:
    """Write a kubeconfig of its own, at once and whole, as the kubelet writes a token.

    Args:
        path: Where to.
        like: What it is made from.
        server: The API server, where it is another one: a proxy.
        token: The token, where it is another one.
    """
    content = json.loads(like.read_text())
    if server is not None:
        content["clusters"][0]["cluster"]["server"] = server
    if token is not None:
        content["users"][0]["user"] = {"token": token}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content))
    fresh.replace(path)
    return path


def api_proxy(cluster: DevCluster) -> FaultProxy:
    """Return a proxy in front of the API server, which shows the API server's own certificate."""
    serving = cluster.folder / "certificates" / "serving.crt"
    certificate = Certificate(serving, serving.with_suffix(".key"))
    return FaultProxy(cluster.url, certificate=certificate, ca_file=cluster.ca_file)


class AccessLog:
    """What Distribution noted of each request.

    Args:
        path: Its log.
    """

    _ENTRY = re.compile(r'^\S+ - - \[[^]]*\] "(\S+) (\S+) HTTP/1\.1" (\d+) .* "([^"]*)"$')

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> int:
        """Return a position: now."""
        return self.path.stat().st_size

    def since(self, mark: int, *, path: str = "/v2/", agent: str = OPERATOR_AGENT) -> list[str]:
        """Return a client's requests since a position: method, path without query, and status.

        Args:
            mark: The position.
            path: What the requests' paths begin with.
            agent: What the client calls itself, or the beginning of it.
        """
        with self.path.open("rb") as log:
            log.seek(mark)
            entries = [self._ENTRY.match(line.decode()) for line in log.read().splitlines()]
        return [
            f"{entry[1]} {entry[2].partition('?')[0]} {entry[3]}"
            for entry in entries
            if entry and entry[2].startswith(path) and entry[4].startswith(agent)
        ]
