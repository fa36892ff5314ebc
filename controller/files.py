"""Files that are read again whenever they change."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotRegularError(OSError):
    """The path of a pipe or a device."""


def stat_regular(path: Path) -> os.stat_result:
    """Return the metadata of a regular file. Called before a file is opened: opening a pipe may block for ever.

    Args:
        path: The file, or a symbolic link to it.

    Raises:
        NotRegularError: It is a pipe or a device.
        OSError: The metadata cannot be read, or it is a directory.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(errno.EINVAL, "Not a regular file", str(path))
    return status
