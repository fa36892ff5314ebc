"""The watches of one term of leadership: one for each namespace, or one for all of them."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Sequence
from typing import NoReturn

from controller.handlers import EventTarget, watch
from controller.kube.access import ClusterAccess
from controller.reconcile.interfaces import EventRecorder, EventType
from controller.supervision import STEADY, Delays
from controller.watchmonitor import WatchMonitor, WatchStates


class Watches:
    """Runs the watches, each one again whenever it ends.

    As the caches of controller-runtime, each namespace has a watch of its own.

    Args:
        target: Receives the objects.
        access: Address and credentials of the API server.
        namespaces: The namespaces to watch; one empty name for all.
        label_selector: Restricts the objects that are watched; empty for no restriction.
        on_listed: Called with a namespace whose watch begins anew and knows of no object: they must be listed.
        events: Records watches that keep failing.
        set_not_ready: Called with the problem of all watches; with None while one of them is established.
        install_signal_handlers: Restores the process's own handlers, which kopf replaces.
        rng: Source of jitter.
    """

    def __init__(
        self,
        target: EventTarget,
        *,
        access: ClusterAccess,
        namespaces: Sequence[str],
        label_selector: str,
        on_listed: Callable[[str], None],
        events: EventRecorder,
        set_not_ready: Callable[[str | None], None],
        install_signal_handlers: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._target = target
        self._access = access
        self._namespaces = namespaces
        self._label_selector = label_selector
        self._on_listed = on_listed
        self._events = events
        self._install_signal_handlers = install_signal_handlers
        self._rng = rng
        self._states = WatchStates(namespaces, set_not_ready=set_not_ready)

    def established(self) -> dict[str, bool]:
        """Return for each namespace whether its watch is established."""
        return self._states.established()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for namespace in self._namespaces:
                group.create_task(self._watch(namespace))

    async def _watch(self, namespace: str) -> NoReturn:
        scope = f"namespace {namespace}" if namespace else "all namespaces"
        monitor = WatchMonitor(
            scope,
            set_not_ready=functools.partial(self._states.set, namespace),
            on_persistent_failure=lambda problem: self._events.event(
                None, EventType.WARNING, "WatchFailed", f"{scope}: {problem}"
            ),
        )
        loop, delays = asyncio.get_running_loop(), Delays(self._rng)
        while True:
            started = loop.time()
            try:
                await watch(
                    self._target,
                    on_listed=functools.partial(self._on_listed, namespace),
                    access=self._access,
                    namespace=namespace,
                    label_selector=self._label_selector,
                    monitor=monitor,
                    install_signal_handlers=self._install_signal_handlers,
                )
            except Exception as error:  # noqa: BLE001 - the watch must be restarted after any error
                monitor.failed(str(error) or type(error).__name__)
            if loop.time() - started >= STEADY:
                delays.reset()
            await asyncio.sleep(delays.next())
