"""``registry``: a command for the demo's registry, to try an outage, a push without Docker, and a loss."""

import gzip
import hashlib
import http.client
import io
import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

STOPPED: Final = "registry-stopped"
"""The file in the demo's folder that exists while the registry has to be stopped."""

_USAGE: Final = """\
registry stop                     an outage; the demo keeps the data
registry start                    the end of it
registry push REPOSITORY:TAG      push a small image, as docker push would
registry tags REPOSITORY          list the tags
registry forget REPOSITORY        lose a repository, as a registry without a volume does

REPOSITORY is as in status.references.host, such as 127.0.0.1:5000/artifacts/default/web"""
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_PATIENCE: Final = 15.0
_POLL_SECONDS: Final = 0.1
_REQUEST_TIMEOUT: Final = 10.0
_SUCCESS: Final = range(200, 300)


class CommandError(Exception):
    """A command failed; the message is for a person."""


@dataclass(frozen=True)
class DemoRegistry:
    """The demo's registry, as a person's terminal reaches it.

    Args:
        folder: The demo's folder.
        url: The registry's URL.
    """

    folder: Path
    url: str

    def stop(self) -> str:
        """Have the demo stop it, and wait until it does not answer."""
        (self.folder / STOPPED).touch()
        self._wait(answering=False)
        return "The registry is stopped"

    def start(self) -> str:
        """Have the demo start it, and wait until it answers."""
        (self.folder / STOPPED).unlink(missing_ok=True)
        self._wait(answering=True)
        return "The registry runs"

    def push(self, reference: str) -> str:
        """Push an image with one file, and return its digest."""
        path, _, tag = _path(reference).rpartition(":")
        if not path or not tag:
            raise CommandError(f"{reference} has no tag, as in {reference}:v1")
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("hello"))
        layer = gzip.compress(tar.getvalue(), mtime=0)
        root = {"type": "layers", "diff_ids": [_digest(tar.getvalue())]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
        for blob in (config, layer):
            self._upload(path, blob)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, layer)],
        }
        body = json.dumps(manifest).encode()
        self._request("PUT", f"/v2/{path}/manifests/{tag}", body, {"Content-Type": _MANIFEST})
        return f"{tag}: digest: {_digest(body)} size: {len(body)}"

    def tags(self, repository: str) -> str:
        """Return the registry's response to a request for the tags."""
        return self._request("GET", f"/v2/{_path(repository)}/tags/list")[1].decode().strip()

    def forget(self, repository: str) -> str:
        """Remove a repository from the registry's storage."""
        stored = self.folder / "registry" / "storage" / "docker" / "registry" / "v2" / "repositories"
        folder = (stored / _path(repository)).resolve()
        if stored not in folder.parents or not folder.is_dir():
            raise CommandError(f"there is no repository {repository}")
        # Out of the way at once, because the operator may create it again at any moment.
        aside = Path(tempfile.mkdtemp(dir=self.folder))
        folder.rename(aside / "repository")
        shutil.rmtree(aside)
        return f"{repository} is gone"

    def _wait(self, *, answering: bool) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self._answers() != answering:
            if time.monotonic() > deadline:
                raise CommandError("the demo does not react; does it still run?")
            time.sleep(_POLL_SECONDS)

    def _answers(self) -> bool:
        try:
            self._request("GET", "/v2/")
        except CommandError:
            return False
        return True

    def _upload(self, path: str, blob: bytes) -> None:
        location, _ = self._request("POST", f"/v2/{path}/blobs/uploads/")
        upload = urlsplit(location)
        self._request("PUT", f"{upload.path}?{upload.query}&digest={_digest(blob)}", blob)

    def _request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[str, bytes]:
        """Return the Location header and the body of a response, past any proxy of the environment."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_REQUEST_TIMEOUT)
        try:
            connection.request(method, target, body, dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"the registry does not answer at {self.url}: {error}") from error
        finally:
            connection.close()
        if response.status not in _SUCCESS:
            raise CommandError(f"{method} {target}: HTTP {response.status}: {content.decode(errors='replace').strip()}")
        return response.headers.get("Location", ""), content


def _path(reference: str) -> str:
    """Return a reference without its host."""
    return reference.partition("/")[2]


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def main(folder: str, url: str, *arguments: str) -> str:
    """Run a command and return what it prints.

    Args:
        folder: The demo's folder.
        url: The registry's URL.
        arguments: The command and its argument.

    Raises:
        CommandError: It failed.
    """
    registry = DemoRegistry(Path(folder).resolve(), url)
    plain: dict[str, Callable[[], str]] = {"stop": registry.stop, "start": registry.start}
    about: dict[str, Callable[[str], str]] = {
        "push": registry.push,
        "tags": registry.tags,
        "forget": registry.forget,
    }
    match arguments:
        case [name] if name in plain:
            return plain[name]()
        case [name, reference] if name in about:
            return about[name](reference)
        case _:
            raise CommandError(_USAGE)


def run(arguments: Sequence[str]) -> int:
    """Run a command as a program does, and return its exit code.

    Args:
        arguments: The arguments of `main`.
    """
    try:
        sys.stdout.write(f"{main(*arguments)}\n")
    except (CommandError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
