"""Detects changes of the credential and CA files of registry bindings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from controller.binding import RegistryBinding
from controller.registry.credentials import FileStamp, file_stamp


class RegistryFiles:
    """Detects changes of files between two calls.

    The registry client reads a changed file at its next request. Without this class, objects that failed with the old
    content would not be retried before the end of their backoff.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[Path, FileStamp | None]] = {}

    def changed(self, bindings: Mapping[str, RegistryBinding]) -> set[str]:
        """Return the names of the bindings whose files have changed since the last call.

        A binding that is new or names other files does not count: its objects are reconciled anyway.

        Args:
            bindings: The current bindings, by name.
        """
        now = {name: {path: _stamp(path) for path in binding.files} for name, binding in bindings.items()}
        before, self._seen = self._seen, now
        return {
            name
            for name, files in now.items()
            if before.get(name, {}).keys() == files.keys() and before.get(name, {}) != files
        }


def _stamp(path: Path) -> FileStamp | None:
    """Return the state of a file; None if it is missing or unreadable."""
    try:
        return file_stamp(path)
    except OSError:
        return None
