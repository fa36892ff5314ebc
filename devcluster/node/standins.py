"""``docker`` and ``kind`` on the node's laptop, as far as docs/kind.md and manifests/kind/registry.sh use them.

They run with the machine's network, as the Docker daemon does, whose machine the laptop is with kind. Images are built
and kept by the machine's container engine. What these two would have made is there already: the container
``kind-registry``, the cluster ``kind``, and the network between them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from devcluster.engine import find_engine
from devcluster.node.addresses import NODE_NAME, REGISTRY_ADDRESS
from devcluster.node.images import docker_name

BUILT: Final = "built-images"
"""The file in the node's folder that names the images that were built on its laptop."""


def docker(binaries: Path, arguments: Sequence[str]) -> None:
    """Do what a command of Docker does.

    Args:
        binaries: The folder with the node's programs.
        arguments: The command.
    """
    match arguments:
        case ["build", "-t" | "--tag", image, *_]:
            with (binaries.parent / BUILT).open("a") as built:
                built.write(f"{image}\n")
            engine = find_engine()
            _become(engine.build, *arguments, environment=engine.environment)
        case ["save", "--output", archive, image]:
            find_engine().save(image, Path(archive), docker_name(image))
        case ["push", image]:
            with tempfile.TemporaryDirectory(dir=binaries.parent) as folder:
                find_engine().save(image, saved := Path(folder, "image.tar"), image)
                subprocess.run([binaries / "laptop", "crane", "push", saved, image], check=True)  # noqa: S603 - ours
        case ["inspect", "--format", "{{.State.Running}}", "kind-registry"]:
            print("true")  # noqa: T201 - the answer
        case ["inspect", "--format", "{{json .NetworkSettings.Networks.kind}}", "kind-registry"]:
            print(json.dumps({"IPAddress": REGISTRY_ADDRESS}))  # noqa: T201 - the answer
        case ["exec", "--interactive", name, *command] | ["exec", name, *command] if name == NODE_NAME:
            _become(binaries / "node", *command)
        case _:
            sys.exit(f"docker {' '.join(arguments)}: not on this laptop")


def kind(binaries: Path, arguments: Sequence[str]) -> None:
    """Do what a command of kind does.

    Args:
        binaries: The folder with the node's programs.
        arguments: The command.
    """
    match arguments:
        case ["get", "nodes", "--name", "kind"]:
            print(NODE_NAME)  # noqa: T201 - the answer
        case ["load", "image-archive", archive, "--name", "kind"]:
            with Path(archive).open("rb") as content:
                subprocess.run([binaries / "node", "ctr", "images", "import", "-"], stdin=content, check=True)  # noqa: S603 - ours
        case _:
            sys.exit(f"kind {' '.join(arguments)}: not on this laptop")


def _become(*command: str | Path, environment: Mapping[str, str] | None = None) -> NoReturn:
    os.execvpe(command[0], [str(argument) for argument in command], {**os.environ, **(environment or {})})  # noqa: S606


if __name__ == "__main__":
    {"docker": docker, "kind": kind}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:])
