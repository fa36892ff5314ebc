"""The edge: kopf's watch turns what happens in the cluster into keys in the queue. The only module that knows kopf.

kopf logs in, lists, watches, and comes back after whatever ends a watch. Its stream of events is read where it comes
from, and not through handlers. ``on.create``, ``on.resume`` and ``on.update`` keep a record of what they have handled,
and write it to each object; ours is ``status.observedGeneration``. A handler for deletion, a timer or a daemon adds a
finalizer, and every deletion would wait for a running operator. ``on.event`` does neither, but has a task and a queue
for each object, and spends more on each event, our own writes' included, than all the rest of the operator: 0.9 ms of
3 ms of CPU for each object that is created.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, Protocol, cast

import aiohttp
import kopf
from kopf._cogs.clients.watching import Bookmark, infinite_watch  # not public: kopf's minor version is pinned
from kopf._cogs.structs.references import Namespace, NamespaceName, Resource

from controller.engine.queue import Priority
from controller.kube.access import bearer_token, load_configuration
from controller.pauses import Pauses
from controller.resource import GROUP, PLURAL, VERSION, ArtifactRepository
from controller.watchmonitor import WatchMonitor

logger = logging.getLogger(__name__)

_INACTIVITY: Final = 70.0
"""Seconds without any event, the API server's bookmarks (one a minute) included, after which a watch is opened anew."""

_IDENTITY: Final = "artifact-repository-controller"
"""kopf's name for this operator among its peers. There are none (``standalone``), but without one kopf looks up the
user, and the image's user has no entry in /etc/passwd."""

STEADY: Final = 10.0
"""A watch that has stood for so many seconds is no sign of trouble: when it ends, the next one is opened at once."""


class ObjectSink(Protocol):
    """Who is told of objects: the engine."""

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Have an object looked at as soon as possible."""
        ...

    def gone(self, repository: ArtifactRepository) -> None:
        """Drop an object that is gone, unless a namesake was made since."""
        ...


async def watch(
    sink: ObjectSink,
    *,
    namespaces: Sequence[str] = (),
    label_selector: str = "",
    monitor: WatchMonitor,
    install_signal_handlers: Callable[[], None],
) -> NoReturn:
    """Tell ``sink`` what happens to the objects, until cancelled.

    Args:
        sink: Who is told.
        namespaces: The namespaces to watch; empty: all.
        label_selector: Restricts the objects that are watched; empty: no restriction.
        monitor: Notified when the API server has accepted a watch, has refused one, or cannot be reached.
        install_signal_handlers: Puts back the process's own handlers, which kopf replaces while it starts.

    Raises:
        Exception: The watch has ended with an error that kopf does not retry; the caller starts it again.
    """
    settings = _settings(label_selector)
    tasks = await kopf.spawn_tasks(
        registry=_registry(monitor),
        settings=settings,
        clusterwide=not namespaces,
        namespaces=namespaces,
        identity=cast(Any, _IDENTITY),  # a str; kopf does not export its type
        standalone=True,
    )
    install_signal_handlers()
    # They find kopf's credentials in the context that it has just set.
    places: Sequence[Namespace] = [NamespaceName(name) for name in namespaces] or [None]
    tasks = [*tasks, *(asyncio.create_task(_follow(sink, settings, place)) for place in places)]
    # Not kopf.run_tasks(): it takes every task in the loop that is younger than the watch for one of kopf's, waits for
    # it and cancels it in the end.
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [result for result in results if isinstance(result, Exception)]
    raise errors[0] if errors else RuntimeError(f"{next(iter(ended)).get_name()} ended")


async def _follow(sink: ObjectSink, settings: kopf.OperatorSettings, place: Namespace) -> None:
    """Tell of the objects in a namespace, or in all; ends only by an error that kopf does not retry."""
    resource = Resource(GROUP, VERSION, PLURAL, namespaced=True)
    async for event in infinite_watch(settings=settings, resource=resource, namespace=place):
        if not isinstance(event, Bookmark) and event["type"] != "BOOKMARK":
            _tell(sink, event["type"], ArtifactRepository.from_body(event["object"]))


def _tell(sink: ObjectSink, type_: str | None, repository: ArtifactRepository) -> None:
    """Turn an event into a key in the queue.

    Args:
        sink: Who is told.
        type_: What has happened; None: the object was there when the operator started, or after a gap in the watch.
        repository: The object.
    """
    if type_ == "DELETED":
        sink.gone(repository)
    elif repository.deleting or not repository.is_handled:
        sink.enqueue(repository, Priority.HIGH)
    elif type_ is None:
        sink.enqueue(repository, Priority.LOW)


def _registry(monitor: WatchMonitor) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    pauses = Pauses(random.Random())  # noqa: S311 - jitter, not a secret
    logins = iter(range(1 << 62))

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        """Read the credentials anew; kopf comes back for more when the API server does not accept them any more."""
        if next(logins):
            await asyncio.sleep(pauses.next())
        configuration = await load_configuration()
        info = kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            token=await bearer_token(configuration),
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=configuration.proxy,
            trace_configs=[_watch_trace(monitor, pauses)],
        )
        return kopf.AiohttpSession(server=configuration.host, aiohttp_session=session)

    return registry


def _watch_trace(monitor: WatchMonitor, pauses: Pauses) -> aiohttp.TraceConfig:
    """Return what tells from kopf's requests whether the watch stands; kopf itself does not tell."""
    trace = aiohttp.TraceConfig()
    pace = _WatchPace()

    async def started(_session: Any, _context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        if "watch" in params.url.query:
            await pace.wait(params.url.path)

    async def answered(_session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        if PLURAL in params.url.path:
            if params.response.ok:
                pauses.reset()
            if not params.response.ok:
                monitor.failed(f"the API server answered {params.response.status} ({params.response.reason})")
            elif "watch" in params.url.query:
                pace.accepted(params.url.path)
                monitor.established()

    async def failed(_session: Any, _context: Any, params: aiohttp.TraceRequestExceptionParams) -> None:
        if PLURAL in params.url.path:
            problem = str(params.exception) or type(params.exception).__name__
            monitor.failed(f"the API server does not answer: {problem}")

    trace.on_request_start.append(started)
    trace.on_request_end.append(answered)
    trace.on_request_exception.append(failed)
    return trace


class _WatchPace:
    """Keeps kopf from opening watch after watch where each is accepted and ends at once.

    After a request that failed kopf pauses; after a watch that ended it does not.
    """

    def __init__(self) -> None:
        self._accepted: dict[str, float] = {}
        self._pauses: dict[str, Pauses] = {}

    def accepted(self, path: str) -> None:
        """Note that the API server has accepted a watch."""
        self._accepted[path] = asyncio.get_running_loop().time()

    async def wait(self, path: str) -> None:
        """Return when another watch of this path may be opened."""
        since = self._accepted.pop(path, None)
        if since is None:
            return
        if asyncio.get_running_loop().time() - since >= STEADY:
            self._pauses.pop(path, None)
            return
        pauses = self._pauses.setdefault(path, Pauses(random.Random()))  # noqa: S311 - jitter, not a secret
        await asyncio.sleep(pauses.next())


def _settings(label_selector: str) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None  # it would kill the process after a watch that was only restarted
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _EndlessBackoffs()
    settings.watching.chunk_size = 500
    settings.watching.inactivity_timeout = _INACTIVITY
    if label_selector:
        settings.watching.label_selectors[GROUP, PLURAL] = label_selector
    return settings


class _EndlessBackoffs:
    """Waits between kopf's tries of a request: growing, jittered, and never at an end.

    When a finite list is used up, kopf gives the whole operator up.
    """

    def __iter__(self) -> Iterator[float]:
        pauses = Pauses(random.Random())  # noqa: S311 - jitter, not a secret
        while True:
            yield pauses.next()
