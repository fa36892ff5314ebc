"""kopf handlers: from watch events to the work queue. The only module that imports kopf.

One ``on.event`` handler serves create, resume, update and delete. ``on.create``, ``on.resume`` and ``on.update`` record
what they have handled on each object; this operator's record is ``status.observedGeneration``. A mandatory delete
handler, a timer or a daemon would add a finalizer, and a deletion would then wait for a running operator. Objects that
exist when the watch begins do not come from kopf, whose lists are empty, but from the resync. docs/architecture.md has
the reasons and the measurements.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, Protocol, cast

import aiohttp
import kopf

from controller import NAME, USER_AGENT
from controller.api.v1alpha1 import GROUP, PLURAL, VERSION, ArtifactRepository
from controller.backoff import OPERATOR_BACKOFF
from controller.kube.access import ClusterAccess
from controller.kube.watchtrace import EmptyLists, Patience, WatchTrace
from controller.reconcile.workqueue import Priority
from controller.watchmonitor import WatchMonitor

_START_TIMEOUT: Final = 60.0
"""Seconds until kopf must have requested a list: discovery that was incomplete once is not repeated."""

_INACTIVITY_TIMEOUT: Final = 70.0
"""Seconds without any event after which a watch is replaced; the API server sends a bookmark about once a minute."""


class EventTarget(Protocol):
    """Receiver of objects from handlers: the controller."""

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Enqueue an object for reconciliation."""
        ...

    def is_overwritten(self, repository: ArtifactRepository) -> bool:
        """Return whether somebody else has written the status of this version."""
        ...

    def correct(self, repository: ArtifactRepository) -> None:
        """Have an object verified whose status somebody else has written."""
        ...

    def deleted(self, repository: ArtifactRepository) -> None:
        """Forget a deleted object, unless another one of the same name has been created since."""
        ...


def register_handlers(registry: kopf.OperatorRegistry, target: EventTarget) -> None:
    """Register the handlers of ArtifactRepository objects.

    Args:
        registry: The kopf registry.
        target: Receives the objects.
    """

    def is_news(event: kopf.RawEvent, **_: Any) -> bool:
        return is_relevant(event, target)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, when=is_news)
    async def handle_event(event: kopf.RawEvent, **_: Any) -> None:
        repository = ArtifactRepository.from_body(event["object"])
        match event["type"]:
            case "DELETED":  # delete: nothing happens in the registry; the repository and its images stay
                target.deleted(repository)
            case "ADDED" | None if repository.is_handled:  # resume, or back in the selector: verify it, with time
                target.enqueue(repository, Priority.LOW)
            case "MODIFIED" if repository.is_handled and not repository.deleting:
                target.correct(repository)
            case _:  # create, update, or anything of that kind while no operator was running
                target.enqueue(repository, Priority.HIGH)


def is_relevant(event: kopf.RawEvent, target: EventTarget) -> bool:
    """Return whether an event needs handling; the operator's own status writes do not.

    ADDED is also the event of an object whose labels fit the selector again: it was forgotten when they did not.

    Args:
        event: The event.
        target: Knows what it has written.
    """
    if event["type"] != "MODIFIED":
        return True
    repository = ArtifactRepository.from_body(event["object"])
    if repository.deleting or not repository.is_handled:
        return True
    return target.is_overwritten(repository)


async def watch(
    target: EventTarget,
    *,
    on_listed: Callable[[], None],
    access: ClusterAccess,
    namespace: str = "",
    label_selector: str = "",
    monitor: WatchMonitor,
    install_signal_handlers: Callable[[], None],
) -> NoReturn:
    """Run kopf until cancelled.

    Args:
        target: Receives the objects.
        on_listed: Called when the watch begins anew and knows of no object: the target must list them.
        access: Address and credentials of the API server.
        namespace: The namespace to watch; empty for all. Each has a kopf operator of its own, so that one that is
            forbidden or broken does not affect the others.
        label_selector: Restricts the objects that are watched; empty for no restriction.
        monitor: Notified when the API server accepts a watch, rejects one, or cannot be reached.
        install_signal_handlers: Restores the signal handlers of the process, which kopf replaces when it starts.

    Raises:
        Exception: An error that kopf does not retry; the caller should call this function again.
    """
    registry = kopf.OperatorRegistry()
    monitor.requested = False
    register_handlers(registry, target)
    kopf.on.login(registry=registry)(_Login(access, monitor, on_listed).open_session)
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=_settings(label_selector),
        clusterwide=not namespace,
        namespaces=(namespace,) if namespace else (),
        # There are no peers, but without a name kopf looks up the user, which has no entry in the image's /etc/passwd.
        identity=cast(Any, NAME),  # a str; kopf does not export its type
        standalone=True,
        memo=(),  # kopf copies it for each object; a tuple is its own copy
    )
    install_signal_handlers()
    # Not kopf.run_tasks(): it waits for, and then cancels, every task of the loop that is younger than the watch.
    try:
        ended, _ = await asyncio.wait(tasks, timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if monitor.requested and not ended:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [result for result in results if isinstance(result, Exception)]
    if errors:
        raise errors[0]
    names = ", ".join(task.get_name() for task in ended)
    raise RuntimeError(f"kopf's {names} ended" if ended else f"kopf did not list {PLURAL}.{GROUP}, which it discovers")


class _Login:
    """kopf's login handler: opens a session that authenticates each request, with a backoff after a rejection.

    Args:
        access: Address and credentials of the API server.
        monitor: Notified of the state of the watch.
        on_listed: Called when the watch begins anew.
    """

    def __init__(self, access: ClusterAccess, monitor: WatchMonitor, on_listed: Callable[[], None]) -> None:
        self._access = access
        self._monitor = monitor
        self._empty_lists = EmptyLists(PLURAL, on_listed)
        self._delays: Iterator[float] | None = None

    async def open_session(self, **_: Any) -> kopf.AiohttpSession:
        """Return a session; kopf calls this again when the API server rejects even renewed credentials."""
        if self._delays is None:
            self._reset()
        else:
            await asyncio.sleep(next(self._delays))
        await self._access.open()
        trace = WatchTrace(PLURAL, monitor=self._monitor, on_accepted=self._reset)
        options = self._access.session_options(connections=0)
        session = aiohttp.ClientSession(
            **{**options, "middlewares": (Patience(), self._empty_lists, *options["middlewares"])},
            headers={"User-Agent": USER_AGENT},
            trace_configs=[trace.config],
        )
        return kopf.AiohttpSession(server=self._access.server, aiohttp_session=session)

    def _reset(self) -> None:
        self._delays = OPERATOR_BACKOFF.delays(random.Random())  # noqa: S311 - jitter, not a secret


def _settings(label_selector: str) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.process.ultimate_exiting_timeout = None  # it would kill the process after a restart of the watch
    settings.queueing.idle_timeout = 0.1  # until then, kopf keeps the last event of each object
    settings.queueing.exit_timeout = 0.1  # handlers only enqueue and need no time to finish
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _EndlessBackoffs()
    settings.watching.inactivity_timeout = _INACTIVITY_TIMEOUT
    if label_selector:
        settings.watching.label_selectors[GROUP, PLURAL] = label_selector
    return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """No record of what was handled last. kopf builds one for each event, two deep copies of the object by default."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> None:
        """Return nothing: an ``on.event`` handler leaves no record."""

    def store(self, **_: Any) -> None:
        """Write nothing to the object."""


class _NoProgress(kopf.ProgressStorage):
    """No record of the handlers' progress: there is none to keep for ``on.event``."""

    def fetch(self, **_: Any) -> None:
        """Return nothing: a handler is never resumed."""

    def store(self, **_: Any) -> None:
        """Write nothing to the object."""

    def purge(self, **_: Any) -> None:
        """Remove nothing from the object."""

    def touch(self, **_: Any) -> None:
        """Write nothing to the object."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class _EndlessBackoffs:
    """Delays between kopf's attempts of a request, endless because kopf gives up at the end of a finite list."""

    def __iter__(self) -> Iterator[float]:
        return OPERATOR_BACKOFF.delays(random.Random())  # noqa: S311 - jitter, not a secret
