"""Hooks of mkdocs.yml: two files of the repository's root become pages of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File in the root → page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text, config.repo_url or "")))
    return files


def relinked(text: str, repository: str) -> str:
    """The text with links from the root changed to pages of the site, or else to files of the repository."""

    def target(found: re.Match[str]) -> str:
        path = found[1]
        if path.startswith("docs/"):
            return f"]({path.removeprefix('docs/')}"
        if path in PAGES:
            return f"]({PAGES[path]}"
        return f"]({repository}/blob/main/{path}"

    return re.sub(r"\]\((?!https?:|#|mailto:)([^)#]+)", target, text)
