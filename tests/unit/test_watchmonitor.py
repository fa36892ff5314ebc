"""The watch monitor: readiness and log."""

import logging

import pytest

from controller.watchmonitor import FAILURES_TO_REPORT, WatchMonitor


class Reports:
    """Keeps what a monitor reports."""

    def __init__(self) -> None:
        self.not_ready: list[str | None] = []
        self.persistent: list[str] = []
        self.monitor = WatchMonitor(
            "all namespaces", set_not_ready=self.not_ready.append, on_persistent_failure=self.persistent.append
        )


def test_an_established_watch_is_ready_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A watch that is opened again after a timeout of the API server is not logged."""
    caplog.set_level(logging.INFO)
    reports = Reports()
    for _ in range(3):
        reports.monitor.established()
    assert set(reports.not_ready) == {None}
    assert caplog.messages == ["Watching ArtifactRepository objects in all namespaces"]


def test_a_failing_watch_is_not_ready_and_becomes_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """After a few attempts it is reported as an error, once per problem, and by one event."""
    reports = Reports()
    for _ in range(10):
        reports.monitor.failed("getpwuid(): uid not found: 65532")
    assert set(reports.not_ready) == {"the watch is not established: getpwuid(): uid not found: 65532"}
    assert reports.persistent == ["getpwuid(): uid not found: 65532"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    reports.monitor.failed("403 (Forbidden)")
    assert caplog.records[-1].levelname == "ERROR"
    assert "403 (Forbidden)" in caplog.messages[-1]
    assert len(reports.persistent) == 1


def test_a_watch_that_recovers_starts_over(caplog: pytest.LogCaptureFixture) -> None:
    """The recovery is logged, and a failure after it counts as the first one."""
    caplog.set_level(logging.INFO)
    reports = Reports()
    for _ in range(FAILURES_TO_REPORT):
        reports.monitor.failed("connection refused")
    reports.monitor.established()
    assert reports.not_ready[-1] is None
    assert caplog.messages[-1].startswith("Watching")
    reports.monitor.failed("connection reset")
    assert caplog.records[-1].levelname == "WARNING"
