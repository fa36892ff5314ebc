"""What is published beside the image and the chart: the list of contents, and the website."""

import json
import re
from pathlib import Path

import pytest

from devcluster.errors import ToolUnavailable
from tests.charts.command import must
from tests.cluster.harness import ROOT

# The first one installs requirements/tools.txt.
pytestmark = pytest.mark.timeout(600)

LOCK = (ROOT / "requirements" / "runtime.txt").read_text()


def make(target: str) -> None:
    """Run make; skip where the package index cannot be reached."""
    try:
        must("make", target, timeout=500)
    except AssertionError as error:
        if re.search(r"No matching distribution|Connection|Max retries", str(error)):
            raise ToolUnavailable(f"requirements/tools.txt could not be installed\n{error}") from error
        raise


def pinned() -> dict[tuple[str, str], set[str]]:
    """Return the hashes of each package in the lock, by name and version."""
    entries = re.findall(r"^(\S+)==(\S+)(.*?)(?=^\S|\Z)", LOCK, re.MULTILINE | re.DOTALL)
    return {(name, version): set(re.findall(r"sha256:([0-9a-f]{64})", rest)) for name, version, rest in entries}


def test_sbom_lists_every_package() -> None:
    """`make sbom` lists each package of the image with the hashes that the lock pins, and nothing else."""
    make("sbom")
    bom = json.loads((ROOT / "dist" / "sbom.cdx.json").read_text())
    assert bom["bomFormat"] == "CycloneDX"
    assert bom["metadata"]["component"]["name"] == "artifact-repository-controller"
    listed = {
        (component["name"], component["version"]): {
            hash_["content"]
            for reference in component["externalReferences"]
            for hash_ in reference["hashes"]
            if hash_["alg"] == "SHA-256"
        }
        for component in bom["components"]
    }
    assert len(listed) > 20
    assert listed == pinned()
    assert [one["purl"] for one in bom["components"] if not one["purl"].startswith("pkg:pypi/")] == []


def test_site() -> None:
    """`make site` builds the website without a warning; links to other pages stay on it, other links leave it."""
    make("site")
    site = ROOT / "build" / "site"
    pages = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} | {"chart", "examples", "contributing"} <= pages
    start = (site / "index.html").read_text()
    assert 'href="kind.html"' in start
    assert "/blob/main/LICENSE" in start
    assert [page for page in site.glob("**/*.html") if re.search(r'href="[^":]*\.md[#"]', page.read_text())] == []
    assert outside(site) == set()


def outside(site: Path) -> set[str]:
    """Return the tags by which a visitor's browser would load something from another host."""
    loading = re.compile(r"<(?:script|img|source|iframe|link)\b[^>]*\b(?:src|href)=\"https?:[^>]*>")
    tags = {tag for page in site.glob("**/*.html") for tag in loading.findall(page.read_text())}
    return {tag for tag in tags if 'rel="canonical"' not in tag}
