"""Reads the commands and examples in a page of the documentation."""

import re
from pathlib import Path

import yaml

from tests.cluster.harness import ROOT, Object


class Page:
    """A page of the documentation.

    Args:
        path: Its path in the repository.
    """

    def __init__(self, path: str | Path) -> None:
        self.text = (ROOT / path).read_text()

    def section(self, heading: str) -> str:
        """Return the text between a heading and the next one.

        Args:
            heading: The heading, without its number signs.
        """
        found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert found, f"no heading {heading!r}"
        return found[1]

    def blocks(self, language: str, *, below: str | None = None) -> list[str]:
        """Return the code blocks in a language.

        Args:
            language: The language.
            below: The heading above them; all of the page if none is given.
        """
        text = self.text if below is None else self.section(below)
        return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

    def examples(self, *, below: str | None = None) -> list[Object]:
        """Return the YAML documents.

        Args:
            below: The heading above them; all of the page if none is given.
        """
        return [document for block in self.blocks("yaml", below=below) for document in yaml.safe_load_all(block)]


GITOPS = Page("docs/gitops.md")
