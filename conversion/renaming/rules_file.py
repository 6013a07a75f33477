"""A file of rules, YAML or JSON: what each canonical tensor is made of, and the facts that no shape shows.

::

    facts: {num_heads: 3, norm: layernorm, norm_eps: 1.0e-5, activation: gelu, pool: token, block: sequential}
    ignore: ["aux.*"]
    rules:
      cls_token: cls
      patch_embed.proj.weight: {from: patches.weight, reshape: [-1, 8, 8, 3], axes: [0, 3, 1, 2]}
      blocks.<i>.attn.qkv.weight: [layers.<i>.q.weight, layers.<i>.k.weight, layers.<i>.v.weight]
      blocks.<i>.attn.proj.weight: {from: layers.<i>.out.weight, transpose: true}
      blocks.<i>.attn.proj.bias: {zeros: 48}

``<i>`` is a block's number, ``<h>`` a head's: the tensors of all heads are stacked, and so are those of a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.containers.yaml_file import read_yaml
from vit_spec import ViTConfig, VitportError
from vit_spec.vit.config import FIELDS

_KEYS = ("from", "transpose", "reshape", "axes", "times", "zeros")


@dataclass(frozen=True)
class Recipe:
    """What one canonical tensor is made of."""

    target: str
    """Canonical name, with ``<i>`` in a block."""
    sources: tuple[str, ...]
    """The file's names, with ``<i>`` and ``<h>``; their tensors are stacked on the first axis."""
    reshape: tuple[int, ...] | None = None
    """New shape of each tensor, before anything else."""
    axes: tuple[int, ...] | None = None
    """Order of the axes after that; ``None`` keeps it."""
    transpose: bool = False
    """Whether the axes are reversed."""
    times: float | str = 1.0
    """A number, or the name of a vector with one factor for each entry of the first axis."""
    zeros: tuple[int, ...] | None = None
    """Shape of a tensor that the file lacks and that is filled with zeros; it has no sources."""


@dataclass(frozen=True)
class RulesFile:
    """All of a file of rules."""

    path: str
    recipes: tuple[Recipe, ...]
    facts: Mapping[str, Any]
    """Fields of ``ViTConfig``."""
    ignore: tuple[str, ...]
    """Patterns of names that no forward pass reads."""


def read_rules(path: str | Path) -> RulesFile:
    """Read and check a file of rules.

    Raises:
        VitportError: if it cannot be read, or an entry is unknown or of the wrong kind.
    """
    content = read_yaml(path)
    unknown = sorted(set(content) - {"facts", "ignore", "rules"})
    if unknown or not isinstance(content.get("rules"), dict):
        found = f"has {', '.join(map(str, unknown))}" if unknown else "has no rules"
        raise VitportError(f"{path} {found}: it must hold rules, and may hold facts and ignore; docs/renaming.md.")
    facts = content.get("facts") or {}
    if not isinstance(facts, dict) or set(facts) - set(FIELDS):
        wrong = (
            ", ".join(map(str, sorted(set(facts) - set(FIELDS), key=str))) if isinstance(facts, dict) else str(facts)
        )
        raise VitportError(f"{path} has unknown facts ({wrong}): choose from {', '.join(FIELDS)}.")
    facts = {name: value for name, value in facts.items() if value is not None}  # left open in a draft
    ViTConfig().replace(**{name: value for name, value in facts.items() if name in ("activation", "pool", "block")})
    ignore = content.get("ignore") or []
    if not isinstance(ignore, list):
        raise VitportError(f"{path} has ignore={ignore!r}: give a list of patterns.")
    recipes = tuple(_recipe(path, str(target), entry) for target, entry in content["rules"].items())
    return RulesFile(str(path), recipes, facts, tuple(map(str, ignore)))


def _recipe(path: str | Path, target: str, entry: Any) -> Recipe:
    fault = f"{path} has a rule for {target} that cannot be understood"
    if isinstance(entry, (str, list)):
        entry = {"from": entry}
    if not isinstance(entry, dict) or set(entry) - set(_KEYS) or ("from" in entry) == ("zeros" in entry):
        raise VitportError(f"{fault}: give a name, a list of names, or from or zeros with {', '.join(_KEYS[1:5])}.")
    named = entry.get("from", ())
    sources = (named,) if isinstance(named, str) else tuple(named)
    if not all(isinstance(name, str) and name for name in sources) or ("from" in entry and not sources):
        raise VitportError(f"{fault}: from={named!r} must be a name or a list of names.")
    if any(("<i>" in name) != ("<i>" in target) for name in sources):
        raise VitportError(f"{fault}: <i> must stand in all of its names or in none.")
    unknown = {found for name in (target, *sources) for found in re.findall(r"<(.*?)>", name)} - {"i", "h"}
    if unknown or "<h>" in target:
        raise VitportError(f"{fault}: <i> stands for a block's number, <h> for a head's in the file's names.")
    times = entry.get("times", 1.0)
    if isinstance(times, bool) or not isinstance(times, (int, float, str)):
        raise VitportError(f"{fault}: times={times!r} must be a number or the name of a vector.")
    return Recipe(
        target,
        sources,
        _numbers(fault, "reshape", entry.get("reshape")),
        _numbers(fault, "axes", entry.get("axes")),
        bool(entry.get("transpose", False)),
        times if isinstance(times, str) else float(times),
        _numbers(fault, "zeros", entry.get("zeros")),
    )


def _numbers(fault: str, name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= -1 for number in numbers):
        raise VitportError(f"{fault}: {name}={value!r} must be whole numbers.")
    return tuple(numbers)
