"""The images of a node, as archives: what Pods are made of, and the operator's."""

import hashlib
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller import __version__
from devcluster.cache import cache_root, make_once
from devcluster.engine import Engine
from devcluster.progress import Progress
from devcluster.tools import Tool, provide

PAUSE = "registry.k8s.io/pause:3.10.1"
"""How containerd calls the image of a Pod's sandbox."""
BUSYBOX = "docker.io/library/busybox:latest"
OPERATOR = f"artifact-repository-controller:{__version__}"
"""How the chart calls the operator's image."""

_ROOT = Path(__file__).parents[2]
_KEPT = 3
"""How many archives of the operator's image stay in the cache."""
_PAUSE = 'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'
_BUSYBOX = 'FROM scratch\nCOPY root /\nENV PATH=/bin\nCMD ["sh"]\n'


@dataclass(frozen=True)
class Images:
    """The archives of a node's images."""

    pause: Path
    busybox: Path
    operator: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.pause, self.busybox, self.operator)


def provide_images(engine: Engine, progress: Progress) -> Images:
    """Return the archives of a node's images, building first what is not in the cache.

    Args:
        engine: What builds them.
        progress: Takes a line now and then.

    Raises:
        BuildFailed: The operator's image could not be built.
        CommandFailed: Another one could not be.
    """
    return Images(pause(engine, progress), busybox(engine, progress), operator(engine, progress))


def pause(engine: Engine, progress: Progress) -> Path:
    """Return the archive of the image that holds a Pod's namespaces.

    Args:
        engine: What builds it, if it is not in the cache.
        progress: Takes a line while another process builds it.
    """
    program = provide(Tool.PAUSE, progress=progress)

    def prepare(folder: Path) -> None:
        _copy(program, folder / "pause")

    return _from_scratch(engine, PAUSE, _PAUSE, key=program.parent.name, prepare=prepare, progress=progress)


def busybox(engine: Engine, progress: Progress) -> Path:
    """Return the archive of an image with a shell and the usual commands.

    Args:
        engine: What builds it, if it is not in the cache.
        progress: Takes a line while another process builds it.
    """
    packages = provide(Tool.NODE_PACKAGES, progress=progress)
    program = packages / "usr" / "bin" / "busybox"

    def prepare(folder: Path) -> None:
        commands = folder / "root" / "bin"
        commands.mkdir(parents=True)
        _copy(program, commands / "busybox")
        listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - Debian's
        for command in listed.stdout.split():
            if command != "busybox":
                (commands / command).symlink_to("busybox")
        (folder / "root" / "tmp").mkdir(mode=0o777)

    return _from_scratch(engine, BUSYBOX, _BUSYBOX, key=packages.parent.name, prepare=prepare, progress=progress)


def operator(engine: Engine, progress: Progress) -> Path:
    """Return the archive of the operator's image of this checkout.

    Args:
        engine: What builds it, if none of the same sources is in the cache.
        progress: Takes a line now and then.
    """
    archive = _folder() / f"operator-{_sources()}.tar"

    def make(scratch: Path) -> Path:
        engine.build_operator(OPERATOR, progress, scratch / "log")
        engine.save(OPERATOR, made := scratch / "image.tar", docker_name(OPERATOR))
        # An archive takes some 250 MB, and every change of the code makes another one.
        others = sorted(_folder().glob("operator-*.tar"), key=lambda path: path.stat().st_mtime)
        for old in others[: 1 - _KEPT]:
            old.unlink(missing_ok=True)
        return made

    make_once(archive, make, progress=progress)
    return archive


def _folder() -> Path:
    return cache_root() / "images"


def _sources() -> str:
    """Return a hash of all that goes into the operator's image: the Dockerfile, and the files that it copies."""
    dockerfile = (_ROOT / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if re.match(r"COPY (?!--from)", line)]
    digest = hashlib.sha256(dockerfile.encode())
    for name in sorted({name for names in copied for name in names}):
        path = _ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"\0{file.relative_to(_ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def docker_name(image: str) -> str:
    """Return how Docker, and so the kubelet, calls an image in full.

    Args:
        image: As a person writes it.
    """
    host, slash, _ = image.partition("/")
    return image if slash and (host == "localhost" or "." in host or ":" in host) else f"docker.io/library/{image}"


def _from_scratch(
    engine: Engine, image: str, dockerfile: str, *, key: str, prepare: Callable[[Path], None], progress: Progress
) -> Path:
    digest = hashlib.sha256(f"{key}\0{image}\0{dockerfile}".encode()).hexdigest()[:12]
    archive = _folder() / f"{image.rpartition('/')[2].partition(':')[0]}-{digest}.tar"

    def make(scratch: Path) -> Path:
        context = scratch / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(dockerfile)
        prepare(context)
        engine.build_folder(image, context)
        engine.save(image, made := scratch / "image.tar", image)
        return made

    make_once(archive, make, progress=progress)
    return archive


def _copy(program: Path, destination: Path) -> None:
    destination.write_bytes(program.read_bytes())
    destination.chmod(0o755)
