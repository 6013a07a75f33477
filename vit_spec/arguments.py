"""Which arguments of a call were given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def changed(function: Callable[..., Any], given: Mapping[str, Any]) -> list[str]:
    """Names of the arguments whose values are not the function's defaults; those without a default count as changed."""
    defaults = {it.name: it.default for it in inspect.signature(function).parameters.values()}
    return [name for name, value in given.items() if value != defaults.get(name, inspect.Parameter.empty)]
