"""What an observation is.

A point names the module whose input or output is taken. The two models have the same modules under the same paths, so
one list serves both frameworks, and the models do not know that they are observed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

_IN_BLOCK = re.compile(r"((?:.+?\.)?blocks\.\d+)(?:\.(.+))?")
"""A block's name, and a path within the block; a segment's prefix ends in ``blocks``."""


class Between(StrEnum):
    """What every family has around its blocks."""

    EMBED = auto()
    """Tokens before the first block."""
    NORM = auto()
    """Tokens after the last norm."""
    HEAD = auto()
    """The model's output, and the stage that computes it."""


@dataclass(frozen=True)
class Point:
    """One observation."""

    name: str
    """Of the activation, such as ``blocks.3.attn.softmax``."""
    module: str
    """Path of the observed module, or function, whose input may be several; empty for the model itself."""
    side: Literal["input", "output"] = "output"
    part: str = ""
    """Which part of the tensor is taken, or what is made of it, in the family's words; empty for the tensor itself."""
    beside: str = ""
    """Path of a function whose output that needs too."""


def stage_of(name: str) -> str:
    """The stage in which an activation is computed."""
    if found := _IN_BLOCK.fullmatch(name):
        return found[1]
    return Between.EMBED if "embed" in name.partition(".")[0] or name == "tokens" else Between.HEAD


def path_in_block(name: str) -> str:
    """The path of a layer or parameter within its block, such as ``attn.qkv``; outside blocks, the whole path."""
    found = _IN_BLOCK.fullmatch(name)
    return found[2] if found and found[2] else name


def is_tokens(name: str) -> bool:
    """Whether an activation is the tokens between two stages: ``embed``, a block, or ``norm``."""
    found = _IN_BLOCK.fullmatch(name)
    return not found[2] if found else name in (Between.EMBED, Between.NORM)
