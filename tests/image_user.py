"""The user that tests run operators as: the image's, which has no entry in /etc/passwd.

Code that looks its user up fails in a Pod and nowhere else. In a user namespace a process has the image's user and
group; that takes no root, and to the kernel it remains the user who runs the tests, so it can read all their files.
"""

import pwd
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final

IMAGE_USER: Final = 65532
IMAGE_HOME: Final = "/"
"""What container runtimes set HOME to for a user without an entry."""

_TIMEOUT: Final = 20.0


def as_image_user() -> Sequence[str]:
    """Return what to put before a command to run it as the image's user; nothing where this machine cannot do that."""
    return () if image_user_unavailable() else _command()


@cache
def image_user_unavailable() -> str:
    """Return why this machine cannot run a command as the image's user; empty if it can."""
    with suppress(KeyError):
        return f"user {IMAGE_USER} is {pwd.getpwuid(IMAGE_USER).pw_name} here"
    if shutil.which("unshare") is None:
        return "unshare is not on the PATH; install util-linux"
    tried = subprocess.run([*_command(), "id", "-u"], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    if tried.stdout.strip() == str(IMAGE_USER):
        return ""
    return f"no user namespace could be made ({tried.stderr.strip()}); chroots and most containers forbid it"


def _command() -> Sequence[str]:
    unshare = shutil.which("unshare") or "unshare"
    return (unshare, "--user", f"--map-user={IMAGE_USER}", f"--map-group={IMAGE_USER}", "--")
