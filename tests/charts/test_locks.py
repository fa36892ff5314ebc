"""What the image is made of can be had for both architectures that clusters run on, as the lock pins it."""

from pathlib import Path

import pytest

from devcluster.errors import ToolUnavailable
from tests.charts.command import must
from tests.cluster.harness import ROOT

# They download some megabytes.
pytestmark = pytest.mark.timeout(400)


def install(requirements: Path, machine: str, target: Path) -> str:
    """Install what a lock pins for another machine, as the Dockerfile does for its own."""
    try:
        return must(
            *(ROOT / ".venv" / "bin" / "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--python-platform", f"{machine}-manylinux_2_28", "--python-version", "3.13"),
            *("--target", target, "--requirement", requirements),
            timeout=300,
        )
    except AssertionError as error:
        if "error sending request" in str(error):
            raise ToolUnavailable(f"the package index could not be reached to download wheels\n{error}") from error
        raise


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_wheels_for(machine: str, tmp_path: Path) -> None:
    """Each package has a wheel whose hash is in the lock; the compiled ones are of that machine."""
    install(ROOT / "requirements" / "runtime.txt", machine, tmp_path)
    compiled = [path.name for path in tmp_path.rglob("*.so")]
    assert any(f"cpython-313-{machine}-linux-gnu" in name for name in compiled)
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[machine]
    assert [name for name in compiled if f"-{other}-" in name] == []


def test_a_missing_hash_is_found(tmp_path: Path) -> None:
    """Without the hash of the other machine's wheel the test above fails."""
    lock = (ROOT / "requirements" / "runtime.txt").read_text()
    entry = next(line.removesuffix(" \\") for line in lock.splitlines() if line.startswith("uvloop=="))
    (tmp_path / "lock.txt").write_text(f"{entry} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(AssertionError, match="Hash mismatch"):
        install(tmp_path / "lock.txt", "aarch64", tmp_path / "target")
