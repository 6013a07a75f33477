"""The pages on formats say what the code says. Oracle: the files themselves."""

from __future__ import annotations

from pathlib import Path

from conversion.formats.vit import openai_clip

DOCS = Path(__file__).parents[2] / "docs"


def test_the_example_of_a_format_is_a_whole_file_of_ours() -> None:
    assert Path(openai_clip.__file__).read_text().strip() in (DOCS / "adding_a_format.md").read_text()
