"""Which format a file's names are in, under which prefix, and what else the file holds."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from conversion.format import Format
from conversion.format_words import unknown_format
from conversion.formats import FORMATS, groups
from conversion.identify.family import identifier
from conversion.identify.heads import NO_HEADS, Heads, could_be_head, describe, find_heads, head_names
from conversion.identify.replicated import unreplicated
from conversion.identify.spelling import spellings
from conversion.opening import UnusedKeyError
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import VitportError
from vit_spec.family import FAMILIES

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Path components that torch.compile, FSDP and activation checkpointing insert anywhere in a name."""
_COPIES = {"momentum_encoder": "base_encoder", "encoder_k": "encoder"}
"""Prefix of a running copy kept by training → prefix of the model itself."""
_OPTIMIZER = frozenset({"opt_state", "param_states", "mu", "nu", "trace", "opt", "optimizer"})
"""Path components under which an optimizer stores tensors named like the weights; ``opt/target`` is the weights."""


@dataclass(frozen=True)
class Recognised:
    """A file's tensors under their format's bare names."""

    format: Format
    table: TensorTable
    notes: tuple[str, ...]
    unread_head: tuple[str, ...] = ()
    """Tensors of a head that is not one linear layer."""
    filled: tuple[str, ...] = ()
    """Tensors of zeros that the file does not hold: biases of heads without one."""
    aside: TensorTable = field(default_factory=lambda: TensorTable({}))
    """What ``Format.set_aside`` took out of the table."""

    def without(self, names: Mapping[str, str]) -> Recognised:
        """Without some tensors: name → reason."""
        notes = tuple(f"set aside {name}: {reason}" for name, reason in names.items())
        unread = tuple(name for name in self.unread_head if name not in names)
        return replace(self, table=self.table.without(set(names)), notes=self.notes + notes, unread_head=unread)

    def without_strange_head(self) -> Recognised:
        """Without the tensors of a head that cannot be read, whatever they are."""
        if not self.unread_head:
            return self
        note = f"set aside the head, which is {describe(self.table, self.unread_head)}"
        return replace(self, table=self.table.without(set(self.unread_head)), notes=(*self.notes, note), unread_head=())


def recognise(
    table: TensorTable, forced: str | None = None, under: str | None = None, unreplicate: bool = False
) -> Recognised:
    """Find the format whose signature the names show, and remove prefixes such as ``module.`` or ``backbone.``.

    Args:
        forced: name of the format to take, instead of the first that fits.
        under: what the names of the model to take begin with, where there are several models.
        unreplicate: take one of equal copies of each tensor.

    Raises:
        VitportError: if no format fits, the names hold several models and ``under`` does not choose one, or the tensors
            are copies and ``unreplicate`` is not asked for, or the other way round.
    """
    table = table.renamed(_unwrapped)
    formats = get_formats(forced) if forced else tuple(it for it in FORMATS.values() if not it.by_class)
    for spelled, notes in spellings(table):
        for candidate in formats:
            if prefixes := _without_copies(_prefixes(spelled, candidate)):
                _check_family(spelled, candidate.family)
                return _peeled(spelled, candidate, _chosen(prefixes, under), notes, unreplicate)
    for family in FAMILIES:
        _check_family(table, family)
    expected = f"of {forced}" if forced else "of a Vision Transformer in any format that vitport reads"
    raise VitportError(
        f"The names are not those {expected}: the first are {', '.join(sorted(table)[:4])}. For a Vision Transformer "
        "written by hand, `vitport inspect --suggest` drafts rules for --rename."
    )


def _check_family(table: TensorTable, family: str) -> None:
    """Refuse models that resemble the family's but do not belong to it."""
    for ending, what in identifier(family).REFUSED.items():
        if any(name.endswith(ending) for name in table):
            raise VitportError(f"The file holds {what}.")


def _chosen(prefixes: list[str], under: str | None) -> str:
    """The only prefix, or the one that begins with ``under``."""

    def listed(of: list[str]) -> str:
        return ", ".join(prefix.rstrip("./") or "no prefix at all" for prefix in of)

    matching = prefixes if under is None else [it for it in prefixes if re.match(rf"{re.escape(under)}[./]", it)]
    if not matching:
        raise (UnusedKeyError if len(prefixes) == 1 else VitportError)(
            f"The file has no weights under {under!r} (--weights-key): its model is under {listed(prefixes)}."
        )
    if len(matching) > 1:
        raise VitportError(
            f"The file holds several models, under {listed(matching)}: choose one by weights_key (--weights-key)."
        )
    return matching[0]


def get_formats(name: str) -> tuple[Format, ...]:
    """The format of that name, or those of the group of that name, in order.

    Raises:
        VitportError: if there is no such format or group; the message names the one that is meant, or lists them.
    """
    members = groups().get(name, (name,) if name in FORMATS else ())
    if not members:
        raise unknown_format(name)
    return tuple(FORMATS[member] for member in members)


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefixes(table: TensorTable, candidate: Format) -> list[str]:
    signature = [(entry,) if isinstance(entry, str) else entry for entry in candidate.signature]
    prefixes = [name.removesuffix(anchor) for anchor in signature[0] for name in table if name.endswith(anchor)]
    return [
        prefix
        for prefix in prefixes
        if (not prefix or prefix[-1] in "./")
        and (prefix.endswith("target/") or not _OPTIMIZER & set(re.split("[./]", prefix)))
        and all(
            any(at + name in table.tensors for at in _places(candidate, prefix) for name in names)
            for names in signature
        )
        and all(
            len(table.spec(at + name)[0]) == rank
            for name, rank in candidate.ranks.items()
            for at in _places(candidate, prefix)
            if at + name in table.tensors
        )
    ]


def _without_copies(prefixes: list[str]) -> list[str]:
    def original(prefix: str) -> str:
        return ".".join(_COPIES.get(part, part) for part in prefix.split("."))

    return [prefix for prefix in prefixes if original(prefix) == prefix or original(prefix) not in prefixes]


def _places(found: Format, prefix: str) -> list[str]:
    """Prefixes of the format's names: the body's, and that of heads beside the body."""
    bases = (found.base,) if isinstance(found.base, str) else found.base
    return [prefix, *(prefix.removesuffix(base) for base in bases if base and prefix.endswith(base))]


def _peeled(table: TensorTable, found: Format, prefix: str, told: tuple[str, ...], unreplicate: bool) -> Recognised:
    notes = [*told, *([f"took the prefix {prefix} off the names"] if prefix else [])]
    places = _places(found, prefix)
    names: dict[str, str] = {}
    outside: list[str] = []
    for name in table:
        place = next((place for place in places if name.startswith(place)), None)
        if place is None:
            outside.append(name)
        else:
            names[name] = name.removeprefix(place)
    removed: dict[str, Tensor] = {}
    for pattern, reason in found.set_aside.items():
        aside = [name for name, bare in names.items() if fnmatch.fnmatchcase(bare, pattern)]
        removed |= {names[name]: table.tensors[name] for name in aside}
        if aside:
            what = aside[0] if len(aside) == 1 else f"{len(aside)} tensors {pattern}"
            notes.append(f"set aside {what}: {reason}")
        for name in aside:
            del names[name]
    table, copied = unreplicated(table, names, found, asked=unreplicate)
    notes += copied
    heads = find_heads(table, names, found)
    beside = _heads_beside(table, names, outside, found, prefix)
    outside = [name for name in outside if name not in beside.names]
    if outside:
        notes.append(f"set aside {len(outside)} tensors outside {prefix} ({_roots(outside)})")
    names |= {**heads.names, **beside.names}
    kept = TensorTable({name: table.tensors[name] for name in names}).renamed(names.__getitem__)
    whole = TensorTable({**kept.tensors, **heads.zeros, **beside.zeros})
    unread = tuple(names[name] for name in heads.unread)
    told = (*notes, *heads.notes, *beside.notes)
    return Recognised(found, whole, told, unread, (*heads.zeros, *beside.zeros), TensorTable(removed))


def _heads_beside(
    table: TensorTable, names: Mapping[str, str], outside: Iterable[str], found: Format, prefix: str
) -> Heads:
    """The head of a model that holds the body under a name of its own: ``classifier`` beside ``backbone.``.

    The nearest is taken: beside the body, else beside what holds it, as beside ``model.0.``.
    """
    own, parent = head_names(found), prefix
    if own & set(names.values()):
        return NO_HEADS
    while parent:
        parent = re.sub(r"[^./]*[./]$", "", parent)
        near = {name: name.removeprefix(parent) for name in outside if name.startswith(parent)}
        near = {name: bare for name, bare in near.items() if could_be_head(bare)}
        plain = {name: bare for name, bare in near.items() if bare in own}
        if plain:
            return Heads(plain, {}, (), (f"took {', '.join(plain)} beside {prefix} as the head",))
        heads = find_heads(table, {**names, **near}, found) if near else NO_HEADS
        if heads.names:
            return heads if set(heads.names) <= set(near) else NO_HEADS
    return NO_HEADS


def _roots(names: Iterable[str]) -> str:
    starts = (re.match(r"[^./]*([./][^./]*)?", name) for name in names)
    return ", ".join(dict.fromkeys(start[0] for start in starts if start))
