"""A benchmark as a command."""

from __future__ import annotations

import sys
from collections.abc import Callable

import tyro

from vit_spec import VitportError


def run(function: Callable[..., int], module: str) -> int:
    """Call the function with the command's arguments, as ``python -m MODULE`` does.

    Returns:
        What it returns; 2 after a user's mistake, which is reported in one line.
    """
    try:
        return tyro.cli(function, prog=f"python -m {module}", config=(tyro.conf.FlagCreatePairsOff,))
    except VitportError as error:
        sys.stderr.write(f"{module}: {error}\n")
        return 2
