"""The per-user cache: what takes minutes to make is made once, by one process at a time."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.errors import BuildFailed
from devcluster.progress import HEARTBEAT_SECONDS, Progress, duration

_POLL_SECONDS = 0.2
# Longer than any single build may take, so that who waits outlives who builds.
_LOCK_TIMEOUT = 45 * 60.0


def cache_root() -> Path:
    """Return this project's folder in the user's cache (``$XDG_CACHE_HOME``, else ``~/.cache``)."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore a relative one.
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    return base / "artifact-repository-controller"


def make_once(destination: Path, make: Callable[[Path], Path], *, progress: Progress) -> None:
    """Make sure that a file or folder of the cache exists.

    It appears complete or not at all: it is made in a scratch folder beside it, and renamed. A file lock keeps other
    processes waiting meanwhile; the kernel releases it when its holder dies, so a lock is never stale.

    Args:
        destination: What has to exist.
        make: Given the scratch folder, makes it and returns where it lies in there.
        progress: Takes a line now and then while another process holds the lock.
    """
    if destination.exists():
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    scratch_prefix = f".{destination.name}.building-"
    with _locked(destination.with_name(f".{destination.name}.lock"), progress):
        if destination.exists():
            return
        # We hold the lock, so whoever left these was killed.
        for abandoned in destination.parent.glob(f"{scratch_prefix}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix, dir=destination.parent))
        try:
            make(scratch).replace(destination)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    begun = told = time.monotonic()
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now = time.monotonic()
                if now - begun > _LOCK_TIMEOUT:
                    raise BuildFailed(f"another process has held {path} for {duration(now - begun)}") from None
                if now - told >= HEARTBEAT_SECONDS:
                    progress(f"  … another process is at it; waiting for {duration(now - begun)} so far ({path.name})")
                    told = now
                time.sleep(_POLL_SECONDS)
        yield
