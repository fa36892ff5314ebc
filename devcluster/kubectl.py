"""A kubectl of the user's own, where its version fits the API server."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from devcluster.command import run_command
from devcluster.errors import CommandFailed

_SKEW: Final = 1
"""How many minor versions kubectl and API server may be apart, by Kubernetes' version skew policy."""
_TIMEOUT: Final = 10.0
_VERSION: Final = re.compile(r"v(?P<major>\d+)\.(?P<minor>\d+)")


def kubectl_on_path(server: str) -> Path | None:
    """Return the kubectl on the PATH, or None if there is none, if it does not run, or if its version does not fit.

    Args:
        server: The version of the API server, such as ``v1.37.2``.
    """
    found = shutil.which("kubectl")
    if found is None:
        return None
    try:
        answer = run_command(
            [found, "version", "--client", "--output=json"],
            name=found,
            timeout=_TIMEOUT,
            # As the cluster runs it: a shim that needs more of the user's settings would not work there, either.
            environment={"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir()},
        )
        client = json.loads(answer)["clientVersion"]["gitVersion"]
    except (CommandFailed, OSError, ValueError, KeyError, TypeError):
        return None
    return Path(found) if _fits(str(client), server) else None


def _fits(client: str, server: str) -> bool:
    """Return whether a client of one version is supported with a server of another one."""
    ours, theirs = _VERSION.match(client), _VERSION.match(server)
    if ours is None or theirs is None or ours["major"] != theirs["major"]:
        return False
    return abs(int(ours["minor"]) - int(theirs["minor"])) <= _SKEW
