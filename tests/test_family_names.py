"""Nothing outside a family's folder spells the names of its parameters: such code would need a change for each family.

The names are those of the parameters of varied configs, in PyTorch and in Flax. What their modules are called is a
*word*: ``blocks.0.attn.qkv.weight`` has ``blocks``, ``attn`` and ``qkv``; ``weight``, ``bias``, ``kernel`` and
``scale`` are the frameworks' own, and numbers name no module. The rule for the strings of a module's source:

- Docstrings and strings with a space are prose and free to speak of anything.
- A string with a dot or a slash is a path, whole or in part. It spells a name if one of its components is a word:
  ``"blocks."``, ``"patch_embed.proj.weight"``, ``"/mlp/fc1"``.
- A string of one component spells a name if it is a word: ``"cls_token"``. Exempt are words that a family's config
  also has as a field, such as ``pos_embed``: alone they name the field, and only with a dot or a slash a parameter.

A family's folder is any folder, or module, with the name of a family: ``vit_jax/vit/``, ``vit_parity/points/vit.py``.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.small_configs import CONFIGS, SWIN_CONFIGS
from vit_spec import Config, family_of, parameters
from vit_spec.family import FAMILIES

ROOT = Path(__file__).parents[1]
PACKAGES = ("vit_spec", "vit_torch", "vit_jax", "conversion", "vit_parity", "vit_cli", "vitport")
FRAMEWORKS = {"weight", "bias", "kernel", "scale"}

ALL: tuple[Config, ...] = (*CONFIGS.values(), *SWIN_CONFIGS.values())
EXCEPTIONS: dict[str, str] = {}
"""Module → why it still spells names. The list only shrinks: a module that no longer needs its entry fails the test."""


def words(configs: list[Config]) -> set[str]:
    """What the modules and parameters of the models are called."""
    names = {component for config in configs for it in parameters(config) for component in it.name.split(".")}
    return {name for name in names if not name.isdigit()} - FRAMEWORKS


def fields(configs: Iterable[Config]) -> set[str]:
    return {field.name for config in configs for field in dataclasses.fields(config)}


def spelled(source: str, words: set[str], fields: set[str]) -> list[str]:
    """The strings of a source that spell a parameter's name, with their lines."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            text = node.value
            components = set(text.replace("/", ".").split("."))
            alone = {text} & fields
            if not any(map(str.isspace, text)) and (components - alone) & words:
                found.append(f"line {node.lineno}: {text!r}")
    return found


def modules() -> Iterator[Path]:
    """Those outside families' folders."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not set(FAMILIES) & set(path.relative_to(ROOT).with_suffix("").parts):
                yield path


def found(family: str) -> dict[str, list[str]]:
    """Module → the strings that spell names of the family."""
    configs = [config for config in ALL if family_of(config).name == family]
    known, own = words(configs), fields(ALL)
    lines = {path: spelled(path.read_text(encoding="utf-8"), known, own) for path in modules()}
    return {str(path.relative_to(ROOT)): each for path, each in lines.items() if each}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_a_familys_folder_spells_the_names_of_its_parameters(family: str) -> None:
    unexpected = {name: lines for name, lines in found(family).items() if name not in EXCEPTIONS}
    assert not unexpected, "\n".join(f"{name}: {', '.join(lines)}" for name, lines in unexpected.items())


def test_every_exception_is_needed() -> None:
    assert set(EXCEPTIONS) <= set().union(*map(found, FAMILIES))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""About blocks.0 and cls_token."""\nX = 1', []),
        ('class A:\n    x: int\n    """Added to pos_embed."""', []),
        ('raise ValueError("the head. of the file")', []),
        ('name.startswith("head")', ["line 1: 'head'"]),
        ('f"blocks.{at}.norm1"', ["line 1: 'blocks.'", "line 1: '.norm1'"]),
        ('path == "patch_embed/proj/kernel"', ["line 1: 'patch_embed/proj/kernel'"]),
        ('{"pos_embed": "prefix"}', []),
        ('params["pos_embed/"]', ["line 1: 'pos_embed/'"]),
        ('path.endswith("/kernel") or "weight"', []),
    ],
)
def test_the_rule_sees_names_and_nothing_else(source: str, expected: list[str]) -> None:
    configs: list[Config] = list(CONFIGS.values())
    assert spelled(source, words(configs), fields(configs)) == expected
