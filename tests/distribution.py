"""Which worker of xdist runs a test. A pytest plugin (see tests/conftest.py)."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

_NODE = "tests/node/"


class Scheduling(LoadFileScheduling):
    """The tests of a file run on the same worker, and so do all tests of the node, which share one.

    The mark ``xdist_group`` would say the same, but pytest 9.2 ignores it (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        """Return what a test shares a worker with; made to be overridden."""
        return _NODE if nodeid.startswith(_NODE) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Take the place of ``--dist=loadfile``."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None
