"""What GitOps tools make of objects: kstatus and Argo CD, by the very libraries that they use (devcluster/go)."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devcluster.tools import Tool, provide
from hack.argocd import CUSTOMIZATIONS
from tests.cluster.harness import Object

_TIMEOUT = 20


def kstatus(objects: Sequence[Object]) -> list[str]:
    """Return what kstatus computes for each object."""
    return [answer["status"] for answer in _judge(objects, "kstatus")]


def health(objects: Sequence[Object]) -> list[Object]:
    """Return status and message that Argo CD shows for each object."""
    # Argo CD asks nobody about an object that is being deleted.
    deleting = {"status": "Progressing", "message": "Pending deletion"}
    answers = _judge(objects, "lua", CUSTOMIZATIONS / "health.lua")
    return [
        deleting if "deletionTimestamp" in object_["metadata"] else answer
        for object_, answer in zip(objects, answers, strict=True)
    ]


def actions(object_: Object) -> list[Object]:
    """Return the actions that Argo CD offers for an object, and whether they are disabled."""
    (answer,) = _judge([object_], "lua", CUSTOMIZATIONS / "actions" / "discovery.lua")
    return [{"name": name, **action} for name, action in answer.items()]


def act(action: str, object_: Object) -> Object:
    """Return the object that Argo CD has after an action."""
    (answer,) = _judge([object_], "lua", CUSTOMIZATIONS / "actions" / action / "action.lua")
    result: Object = _mended(answer, object_)
    return result


def _judge(objects: Sequence[Object], *arguments: str | Path) -> list[Any]:
    answer = subprocess.run(
        [provide(Tool.STATUSJUDGE), *arguments],
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
    assert answer.returncode == 0, answer.stderr
    answers: list[Any] = json.loads(answer.stdout)
    return answers


def _mended(value: Any, before: Any) -> Any:
    """Return what a script returned, with the empty mappings that Lua cannot tell from lists; Argo CD mends them so."""
    if value == [] and isinstance(before, dict):
        return {}
    if isinstance(value, dict) and isinstance(before, dict):
        return {name: _mended(inner, before.get(name)) for name, inner in value.items()}
    if isinstance(value, list) and isinstance(before, list):
        rest = [None] * (len(value) - len(before))
        return [_mended(inner, old) for inner, old in zip(value, [*before, *rest], strict=False)]
    return value
