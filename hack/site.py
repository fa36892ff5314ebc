"""MkDocs hook: pages outside of docs/, and links that work on the website as well as on a Git host.

Pages are written for a Git host, with paths relative to their file. On the website a link to another page of the site
leads to that page, and a link to any other file leads to the repository.
"""

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File

ROOT: Final = Path(__file__).parents[1]

PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "charts/artifact-repository-controller/README.md": "chart.md",
    "examples/README.md": "examples.md",
}
"""Pages outside of docs/, by their path in the repository."""

_SOURCES: Final = {page: source for source, page in PAGES.items()}
_LINK: Final = re.compile(r'(?P<before>\]\(|\b(?:href|src|srcset)=")(?![a-z]+:|#)(?P<path>[^)"#\s]+)')


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages outside of docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return a page with its links rewritten."""
    del files
    name = page.file.src_uri
    folder = posixpath.dirname(_SOURCES.get(name, f"docs/{name}"))
    return _LINK.sub(lambda found: found["before"] + _target(folder, found["path"], config.repo_url), markdown)


def _target(folder: str, link: str, repository: str) -> str:
    """Return where a link from a folder of the repository leads on the website."""
    path = posixpath.normpath(posixpath.join(folder, link))
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{repository}/blob/main/{path}"
