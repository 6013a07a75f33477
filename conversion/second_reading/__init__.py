"""A format described a second time, for ``vitport convert --verify``: what it calls a model's parts, in its own words.

``vit_parity.semantics`` builds a model from this description alone. It uses neither the format's rules nor canonical
names, so a mistake in one description does not repeat itself in the other. Write both from the format's documentation;
never derive one from the other.
"""

from __future__ import annotations

Candidates = tuple[str, ...]
"""Names that a part goes by in one version of the format or another; the first that a file has counts."""
NONE: Candidates = ()


class Reading:
    """How to run a format's files without its rules; a module for each family says what that takes."""
