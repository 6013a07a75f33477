"""A Griffe extension for mkdocs.yml: the public names of packages that import them at their first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterator


class LazyExports(griffe.Extension):
    """``lazy_loader`` makes ``__all__`` at run time, unseen by Griffe: here it is what ``__init__.pyi`` names."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Sets the exports of the package and of those inside it."""
        for module in _packages(pkg):
            if "lazy_loader" in module.members:
                imported = [name for name, member in module.members.items() if member.is_alias]
                module.exports = [name for name in imported if name != "lazy_loader"]


def _packages(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for member in module.members.values():
        if not member.is_alias and isinstance(member, griffe.Module):
            yield from _packages(member)
