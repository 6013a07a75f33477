"""Which format a file's names are in, under which prefix, and what else the file holds."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from conversion.format import Format
from conversion.formats import FORMATS, groups
from conversion.tensors.table import TensorTable
from vit_spec import VitportError

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Path components that torch.compile, FSDP and activation checkpointing insert anywhere in a name."""
_REFUSED = {
    ".attn.relative_position_bias_table": "a BEiT, EVA or Swin model, whose attention has relative positions",
    ".attn.q_bias": "a BEiT or EVA model, whose attention has no key bias",
    "conv_root/kernel": "a hybrid, whose patches come out of a ResNet",
    "conv_proj.conv_last.weight": "a torchvision model with a stem of several convolutions",
    "head.0.running_mean": "a linear-probe head after a BatchNorm (remove head.* from the file to convert the rest)",
}
_COPIES = {"momentum_encoder": "base_encoder"}
"""Prefix of a running copy kept by training → prefix of the model itself."""
_OPTIMIZER = frozenset({"opt_state", "param_states", "mu", "nu", "trace", "opt", "optimizer"})
"""Path components under which an optimizer stores tensors named like the weights; ``opt/target`` is the weights."""


@dataclass(frozen=True)
class Recognised:
    """A file's tensors under their format's bare names."""

    format: Format
    table: TensorTable
    notes: tuple[str, ...]

    def without(self, names: Mapping[str, str]) -> Recognised:
        """Without some tensors: name → reason."""
        notes = tuple(f"set aside {name}: {reason}" for name, reason in names.items())
        return Recognised(self.format, self.table.without(set(names)), self.notes + notes)


def recognise(table: TensorTable, forced: str | None = None, under: str | None = None) -> Recognised:
    """Find the format whose signature the names show, and remove prefixes such as ``module.`` or ``backbone.``.

    Args:
        forced: name of the format to take, instead of the first that fits.
        under: what the names of the model to take begin with, where there are several models.

    Raises:
        VitportError: if no format fits, or the names hold several models and ``under`` does not choose one.
    """
    table = table.renamed(_unwrapped)
    for ending, what in _REFUSED.items():
        if any(name.endswith(ending) for name in table):
            raise VitportError(f"The file holds {what}: vitport converts plain Vision Transformers.")
    formats = get_formats(forced) if forced else tuple(FORMATS.values())
    for candidate in formats:
        prefixes = _without_copies(_prefixes(table, candidate))
        if prefixes:
            return _peeled(table, candidate, _chosen(prefixes, under))
    expected = f"of {forced}" if forced else f"of any format ({', '.join(sorted(FORMATS))})"
    raise VitportError(
        f"The names are not those {expected}: the first are {', '.join(sorted(table)[:4])}. For a model written "
        "by hand, `vitport inspect --suggest` drafts rules for --rename."
    )


def _chosen(prefixes: list[str], under: str | None) -> str:
    """The only prefix, or the one that begins with ``under``."""
    if len(prefixes) == 1:
        return prefixes[0]
    matching = [prefix for prefix in prefixes if under and re.match(rf"{re.escape(under)}[./]", prefix)]
    if len(matching) != 1:
        keys = ", ".join(prefix.rstrip("./") or "no prefix at all" for prefix in matching or prefixes)
        raise VitportError(f"The file holds several models, under {keys}: choose one by weights_key (--weights-key).")
    return matching[0]


def get_formats(name: str) -> tuple[Format, ...]:
    """The format of that name, or those of the group of that name, in order.

    Raises:
        VitportError: if there is no such format or group; the message lists them.
    """
    if (members := groups().get(name)) is not None:
        return tuple(FORMATS[member] for member in members)
    if name not in FORMATS:
        raise VitportError(f"No format is named {name!r}: choose one of {', '.join(sorted((*groups(), *FORMATS)))}.")
    return (FORMATS[name],)


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
    ]


def _without_copies(prefixes: list[str]) -> list[str]:
    def original(prefix: str) -> str:
        return ".".join(_COPIES.get(part, part) for part in prefix.split("."))

    return [prefix for prefix in prefixes if original(prefix) == prefix or original(prefix) not in prefixes]


def _places(found: Format, prefix: str) -> list[str]:
    """Prefixes of the format's names: the body's, and that of heads beside the body."""
    bases = (found.base,) if isinstance(found.base, str) else found.base
    return [prefix, *(prefix.removesuffix(base) for base in bases if base and prefix.endswith(base))]


def _peeled(table: TensorTable, found: Format, prefix: str) -> Recognised:
    notes = [f"took the prefix {prefix} off the names"] if prefix else []
    places = _places(found, prefix)
    names: dict[str, str] = {}
    outside: list[str] = []
    for name in table:
        place = next((place for place in places if name.startswith(place)), None)
        if place is None:
            outside.append(name)
        else:
            names[name] = name.removeprefix(place)
    if outside:
        notes.append(f"set aside {len(outside)} tensors outside {prefix} ({_roots(outside)})")
    for pattern, reason in found.set_aside.items():
        aside = [name for name, bare in names.items() if fnmatch.fnmatchcase(bare, pattern)]
        if aside:
            what = aside[0] if len(aside) == 1 else f"{len(aside)} tensors {pattern}"
            notes.append(f"set aside {what}: {reason}")
        for name in aside:
            del names[name]
    kept = TensorTable({name: table.tensors[name] for name in names})
    return Recognised(found, kept.renamed(names.__getitem__), tuple(notes))


def _roots(names: Iterable[str]) -> str:
    starts = (re.match(r"[^./]*([./][^./]*)?", name) for name in names)
    return ", ".join(dict.fromkeys(start[0] for start in starts if start))
