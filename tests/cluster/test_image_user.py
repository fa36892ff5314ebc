"""The operator as the image's user, which has no entry in /etc/passwd and so neither a name nor a home."""

import os
from pathlib import Path

import pytest

from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import Objects
from tests.image_user import IMAGE_USER, image_user_unavailable

pytestmark = pytest.mark.cluster


@pytest.fixture
def as_image_user() -> None:
    """Skip where this machine cannot run a process as the image's user; the other tests run operators as ours there."""
    if why := image_user_unavailable():
        pytest.skip(f"operators ran as the user of the tests, not as the image's, who has no passwd entry: {why}")


@pytest.mark.usefixtures("as_image_user")
def test_new_objects_are_served(objects: Objects, start_operator: StartOperator) -> None:
    """A watch runs: an object created after the start becomes Ready long before a resync would find it."""
    operator = start_operator(timings={"resyncInterval": "1h"})
    pid = operator.process.pid
    # Lines of "id inside, id outside, count": the process sees itself as the image's user, and no other user at all.
    for mapped, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        assert Path(f"/proc/{pid}/{mapped}").read_text().split() == [str(IMAGE_USER), str(own), "1"]
    assert "HOME=/" in Path(f"/proc/{pid}/environ").read_text().split("\0")
    eventually(lambda: operator.health("readyz") == (200, "ok"), tell=operator.log)
    objects.create("new")
    objects.wait_ready("new", tell=operator.log)
    assert "uid not found" not in operator.process.log.read_text()
