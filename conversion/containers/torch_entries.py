"""The sets of weights in a training checkpoint of PyTorch: dicts of tensors at any depth, and which one is meant."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_spec import VitportError

_DEEPEST = 8
"""Dicts within dicts that are looked into: more than any trainer nests."""
_MOST_VISITS = 100_000
"""Dicts and lists that are looked into; the states of an optimizer have one for each parameter."""
OPTIMIZER = re.compile(r"(\w*_)?(optim|optims|optimizers?|opt)(_\w*)?", re.IGNORECASE)
"""Names of entries whose tensors may be named like weights and are an optimizer's."""
_MUCH_SMALLER = 4
"""A state_dict with this many times fewer tensors is a part of the other's model, such as its head."""
Entry = tuple[tuple[str, ...], Mapping[Any, Any]]
"""Keys that lead to a state_dict, and the state_dict."""
Choice = tuple[Mapping[Any, Any], str | None, tuple[str, ...]]
"""A state_dict; the prefix of names in it that is left of a key; notes."""


def chosen_entry(path: Path, content: Any, weights_key: str | None) -> Choice:
    """The state_dict in a file's content that a key names, or the only one.

    A key names an entry by the keys that lead to it, joined by dots, and perhaps a prefix of the tensors' names in it:
    ``trainer.model`` or ``model.teacher``. Of several state_dicts the outermost is taken, if it is alone there.

    Returns:
        The state_dict; the prefix that is left of the key; and a note that says which entry it is.

    Raises:
        VitportError: if there is no state_dict, the key names none, or there are several and no key is given.
    """
    entries = list(_entries(content, itertools.count())) or _plain(content)
    if not entries:
        raise VitportError(f"{path} holds no state_dict: expected names with tensors, found {type(content).__name__}.")
    if weights_key is not None:
        return _asked(path, entries, weights_key)
    usual = [entry for entry in entries if not any(map(OPTIMIZER.fullmatch, entry[0]))] or entries
    depth = min(len(keys) for keys, _ in usual)
    outermost = [entry for entry in usual if len(entry[0]) == depth]
    largest = max(_count(tensors) for _, tensors in outermost)
    outermost = [entry for entry in outermost if _MUCH_SMALLER * _count(entry[1]) >= largest]
    if len(outermost) > 1:
        names = ", ".join(_joined(keys) for keys, _ in outermost)
        raise VitportError(
            f"{path} holds several sets of weights: choose one of {names} by weights_key (--weights-key)."
        )
    ((keys, tensors),) = outermost
    if not keys:
        return tensors, None, ()
    deeper = [_joined(other) for other, _ in usual if len(other) > depth]
    alone = f"the outermost; {', '.join(deeper)} are there too" if deeper else "the only ones"
    beside = _beside(content, keys, largest)
    if beside:
        alone += f", and {', '.join(beside)} beside them"
        both = {keys[-1]: tensors, **beside}
        tensors = {f"{key}.{name}": tensor for key, part in both.items() for name, tensor in part.items()}
    return tensors, None, (f"read the weights under {_joined(keys)!r}, {alone}",)


def _beside(content: Any, keys: tuple[str, ...], largest: int) -> dict[str, Mapping[Any, Any]]:
    """Small state_dicts beside a large one, such as a head's: ``{"backbone": …, "head": …}``."""
    import torch

    for key in keys[:-1]:
        content = content[int(key)] if isinstance(content, (list, tuple)) else _by_name(content)[key]
    return {
        key: part
        for key, part in (_by_name(content) if isinstance(content, Mapping) else {}).items()
        if key != keys[-1] and not OPTIMIZER.fullmatch(key) and isinstance(part, Mapping) and part
        if all(isinstance(name, str) and isinstance(entry, torch.Tensor) for name, entry in part.items())
        if any(name.endswith("weight") for name in part) and _MUCH_SMALLER * len(part) < largest
    }


def _by_name(content: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): part for key, part in content.items()}


def _asked(path: Path, entries: Sequence[Entry], weights_key: str) -> Choice:
    note = (f"read the weights under {weights_key!r}, as asked",)
    for keys, tensors in entries:
        if _joined(keys) == weights_key:
            return tensors, None, note
    below = [entry for entry in entries if _joined(entry[0]).startswith(f"{weights_key}.")]
    if len(below) == 1:
        return (
            below[0][1],
            None,
            (f"read the weights under {_joined(below[0][0])!r}, the only ones that were asked for",),
        )
    within: list[tuple[Mapping[Any, Any], str]] = []
    for keys, tensors in entries:
        prefix = weights_key.removeprefix(f"{_joined(keys)}.") if keys else weights_key
        if any(str(name).startswith(f"{prefix}.") for name in tensors):
            within.append((tensors, prefix))
    if len(within) == 1:  # recognising the format chooses among the names
        return within[0][0], within[0][1], note
    choices = ", ".join(_joined(keys) for keys, _ in below or entries if keys)
    raise VitportError(f"{path} has no weights under {weights_key!r}: choose one of {choices or 'none'}.")


def _entries(
    value: Any, visits: Iterator[int], keys: tuple[str, ...] = (), within: tuple[int, ...] = ()
) -> Iterator[Entry]:
    """All state_dicts, from outside to inside; of one around a larger one, that one alone.

    Raises:
        ValueError: where dicts that are shared many times over make more ways than a checkpoint has.
    """
    if next(visits) > _MOST_VISITS:
        raise ValueError(f"it leads to dicts in more than {_MOST_VISITS} ways")
    if len(keys) > _DEEPEST or id(value) in within:
        return
    if isinstance(value, Mapping):
        parts: list[tuple[str, Any]] = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(str(at), part) for at, part in enumerate(value)]
    else:
        return
    inner = [
        entry
        for key, part in parts
        if isinstance(part, (Mapping, list, tuple))
        for entry in _entries(part, visits, (*keys, key), (*within, id(value)))
    ]
    own = _count(value)
    if isinstance(value, Mapping) and own and own >= max((_count(tensors) for _, tensors in inner), default=0):
        yield keys, value
    else:
        yield from inner


def _plain(content: Any) -> list[Entry]:
    """A dict of tensors, whatever their names."""
    import torch

    whole = isinstance(content, Mapping) and any(isinstance(entry, torch.Tensor) for entry in content.values())
    return [((), content)] if whole else []


def _count(value: Any) -> int:
    """Tensors whose names have parts, as modules name them; a lone ``rng_state`` or ``exp_avg`` has none."""
    import torch

    if not isinstance(value, Mapping):
        return 0
    tensors = [name for name, entry in value.items() if isinstance(entry, torch.Tensor) and entry.ndim]
    return sum(isinstance(name, str) and re.search(r"\w[./\\]\w", name) is not None for name in tensors)


def _joined(keys: tuple[str, ...]) -> str:
    return ".".join(keys)
