"""Hatchling's hook for what the package index shows: the README with links that work there, and the project's links.

The address of the repository is known to whoever publishes, not to the repository: TWOCLOUD_REPOSITORY at the build,
which `make release` sets. Without it the wheel names no links, and those of the README become plain text.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = r"(?!https?://|#|mailto:)([^)\s]+)"


def readme(text: str, repository: str, version: str) -> str:
    """The README as the index can show it: links and pictures lead to the files of this version."""
    if not repository:
        text = re.sub(rf"^!\[[^\]]*\]\({_RELATIVE}\)\n", "", text, flags=re.MULTILINE)
        return re.sub(rf"\[([^\]]*)\]\({_RELATIVE}\)", r"\1", text)
    text = re.sub(rf"!\[([^\]]*)\]\({_RELATIVE}\)", rf"![\1]({repository}/raw/v{version}/\2)", text)
    return re.sub(rf"(?<!!)\[([^\]]*)\]\({_RELATIVE}\)", rf"[\1]({repository}/blob/v{version}/\2)", text)


def urls(repository: str, version: str) -> dict[str, str]:
    """The project's links, by the labels that the index knows."""
    if not repository:
        return {}
    files = f"{repository}/blob/v{version}"
    return {"Homepage": repository, "Documentation": f"{files}/docs/README.md",
            "Changelog": f"{files}/CHANGELOG.md", "Source": repository, "Issues": f"{repository}/issues",
            "Security": f"{files}/docs/security.md"}


class IndexMetadata(MetadataHookInterface):
    """Fills `readme` and `urls`, which pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = os.environ.get("TWOCLOUD_REPOSITORY", "").removesuffix("/").removesuffix(".git")
        if repository and not re.fullmatch(r"https://[\w.-]+(:\d+)?/[\w./~-]+", repository):
            raise ValueError(f"TWOCLOUD_REPOSITORY={repository} is not an https address. Give the address that people "
                             "open in a browser, as https://git.example.org/you/twocloud.")
        root = Path(self.root)
        (version,) = re.findall(r'^__version__ = "(.*)"$', (root / "chalicelib/__init__.py").read_text(), re.MULTILINE)
        metadata["readme"] = {"content-type": "text/markdown",
                              "text": readme((root / "README.md").read_text("utf-8"), repository, version)}
        if links := urls(repository, version):
            metadata["urls"] = links
