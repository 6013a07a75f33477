"""Rules between canonical names and a format's names: data, read in both directions.

A rule is a pair of name templates and a transform. ``{i}`` in a template stands for a block's number, and ``{i+1}`` or
``{2i+1}`` for a number that follows from it::

    Rule("cls_token", "embeddings.cls_token")
    joined("blocks.{i}.attn.qkv", "layer.{i}.query", "layer.{i}.key", "layer.{i}.value")

``Rules.read`` maps a file's tensors to canonical ones, ``Rules.write`` maps them back; property tests check that one
after the other is the identity, bit for bit. To add a format, write its rules: see docs/adding_a_format.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from conversion.tensors.contiguous import contiguous
from conversion.tensors.table import Tensor, TensorTable
from conversion.tensors.transforms import COPY, LAYOUT, Joined, Transform
from vit_spec import Config, Kind, VitportError, flax_path


@dataclass(frozen=True)
class Rule:
    """One line of a format's table: canonical names, the format's names, and the transform between them."""

    canonical: str | tuple[str, ...]
    foreign: str | tuple[str, ...]
    transform: Transform = COPY

    @property
    def canonical_names(self) -> tuple[str, ...]:
        return (self.canonical,) if isinstance(self.canonical, str) else self.canonical

    @property
    def foreign_names(self) -> tuple[str, ...]:
        return (self.foreign,) if isinstance(self.foreign, str) else self.foreign


def module(canonical: str, foreign: str) -> tuple[Rule, ...]:
    """Rules for the weight and the bias of a PyTorch module with another name."""
    return tuple(Rule(f"{canonical}.{leaf}", f"{foreign}.{leaf}") for leaf in ("weight", "bias"))


def joined(canonical: str, *foreign: str) -> tuple[Rule, ...]:
    """Rules for a PyTorch linear layer whose output rows are several linear layers of the format."""
    return tuple(
        Rule(f"{canonical}.{leaf}", tuple(f"{name}.{leaf}" for name in foreign), Joined(len(foreign)))
        for leaf in ("weight", "bias")
    )


def flax_leaf(name: str, axes: int) -> Rule:
    """The rule between one canonical name and its path in the Flax tree (:func:`vit_spec.flax_path`).

    Args:
        axes: number of the tensor's axes. Kernels with two or four of them get JAX's layout.
    """
    path = flax_path(name, axes)
    kernels = {2: LAYOUT[Kind.LINEAR], 4: LAYOUT[Kind.CONV]}
    return Rule(name, path, kernels.get(axes, COPY) if path.endswith("kernel") else COPY)


class Names(Protocol):
    """How a format names and lays out the canonical tensors."""

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        """Canonical table of a file's tensors, and the file's names that the format does not know."""
        ...

    def write(self, table: TensorTable, config: Any) -> TensorTable:
        """The format's table of canonical tensors. ``config`` is the model's, of the format's family."""
        ...

    def foreign_name(self, canonical: str, axes: int) -> str:
        """What the format calls the canonical name of a tensor with that many axes, parts joined by ``+``."""
        ...


_WAITING = 2
"""Rules whose remaining results are kept: a weight and its bias, whose parts alternate in most files."""


class Rules:
    """A format's table of rules, compiled for lookup by name in both directions."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        """Canonical table of a file's tensors, and the file's names that no rule knows.

        Raises:
            VitportError: if some parts of a rule are missing, or their shapes do not fit together.
        """
        return _carry(self._by_foreign, table, None)

    def write(self, table: TensorTable, config: Any) -> TensorTable:
        """The format's table of canonical tensors.

        Raises:
            VitportError: for canonical names that the format has no place for.
        """
        result, unknown = _carry(self._by_canonical, table, config)
        if unknown:
            raise VitportError(f"This format has no place for {', '.join(unknown)}: choose another with --to.")
        return result

    def foreign_name(self, canonical: str, axes: int) -> str:
        """What the format calls a canonical name (its parts joined by ``+``); the name itself if it has none."""
        del axes
        for template, rule in self._by_canonical:
            if (numbers := template.match(canonical)) is not None:
                return " + ".join(Template(name).fill(numbers) for name in rule.foreign_names)
        return canonical

    def synonyms(self, foreign: str) -> list[str]:
        """The other names that the format has for the same tensor, such as those of another version."""
        return [
            Template(other.foreign_names[at]).fill(numbers)
            for rule in self.rules
            for at, name in enumerate(rule.foreign_names)
            if (numbers := Template(name).match(foreign)) is not None
            for other in self.rules
            if other != rule and other.canonical == rule.canonical
            if len(other.foreign_names) == len(rule.foreign_names)
        ]

    @cached_property
    def _by_foreign(self) -> list[tuple[Template, Rule]]:
        return [(Template(name), rule) for rule in self.rules for name in rule.foreign_names]

    @cached_property
    def _by_canonical(self) -> list[tuple[Template, Rule]]:
        return [(Template(name), rule) for rule in self.rules for name in rule.canonical_names]


class Renamed(Rules):
    """Canonical names but for some, which rules rename in both directions."""

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        canonical, others = super().read(table)
        if twice := [name for name in others if name in canonical.tensors]:
            raise VitportError(f"{', '.join(twice)} is given twice, once under an alias: keep one of them.")
        return TensorTable(canonical.tensors | {name: table.tensors[name] for name in others}), []

    def write(self, table: TensorTable, config: Config) -> TensorTable:
        renamed, others = _carry(self._by_canonical, table, config)
        return TensorTable(renamed.tensors | {name: table.tensors[name] for name in others})


class Aliased(Renamed):
    """Canonical names, and aliases for some of them, which are read but never written."""

    def write(self, table: TensorTable, config: Config) -> TensorTable:
        del config
        return table

    def foreign_name(self, canonical: str, axes: int) -> str:
        del axes
        return canonical


class _Siblings:
    """Short-lived results of a rule with several: a reader of the query soon asks for key and value."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, ...], dict[int, np.ndarray]] = {}

    def take(self, targets: list[str], position: int, run: Callable[[], list[np.ndarray]]) -> np.ndarray:
        """One result of ``run``, or of an earlier run of the same rule; each is handed out once."""
        if len(targets) == 1:
            return run()[0]
        others = self._waiting.pop(tuple(targets), {})
        if position not in others:
            others = dict(enumerate(run()))
        array = others.pop(position)
        if others:
            self._waiting[tuple(targets)] = others
        while len(self._waiting) > _WAITING:
            del self._waiting[next(iter(self._waiting))]
        return array


def _carry(
    index: list[tuple[Template, Rule]], table: TensorTable, config: Config | None
) -> tuple[TensorTable, list[str]]:
    """Apply the rules to a table: to canonical names, or from them if a config is given."""
    groups: dict[tuple[Rule, tuple[tuple[str, int], ...]], None] = {}
    unknown: list[str] = []
    for name in table:
        found = next(
            ((rule, numbers) for template, rule in index if (numbers := template.match(name)) is not None), None
        )
        if found is None:
            unknown.append(name)
        else:
            groups[found[0], tuple(found[1].items())] = None
    tensors: dict[str, Tensor] = {}
    siblings = _Siblings()
    for rule, numbers in groups:
        sources, targets = rule.foreign_names, rule.canonical_names
        if config is not None:
            sources, targets = targets, sources
        sources = [Template(name).fill(dict(numbers)) for name in sources]
        targets = [Template(name).fill(dict(numbers)) for name in targets]
        if twice := [name for name in targets if name in tensors]:
            raise VitportError(f"{', '.join(twice)} is given twice: {', '.join(sources)} is its second source.")
        tensors |= _apply(rule.transform, table, sources, targets, config, siblings)
    return TensorTable(tensors), unknown


def _apply(
    transform: Transform,
    table: TensorTable,
    sources: list[str],
    targets: list[str],
    config: Config | None,
    siblings: _Siblings,
) -> dict[str, Tensor]:
    absent = [name for name in sources if name not in table.tensors]
    if absent:
        there = [name for name in sources if name in table.tensors]
        raise VitportError(
            f"{', '.join(there)} came without {', '.join(absent)}: the file is incomplete, so fetch or write it again."
        )

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return transform.to_canonical(arrays) if config is None else transform.from_canonical(arrays, config)

    dtypes = {table.spec(name)[1] for name in sources}
    if len(dtypes) > 1:
        raise VitportError(
            f"{', '.join(sources)} have different dtypes ({', '.join(map(str, dtypes))}): convert them first."
        )
    # Zero-strided stand-ins of one byte have the shapes without the memory, so the transform shows the results' shapes.
    stand_ins = [np.broadcast_to(np.int8(0), table.spec(name)[0]) for name in sources]
    try:
        shapes = [result.shape for result in run(stand_ins)]
    except ValueError as error:
        found = ", ".join(f"{name} {table.spec(name)[0]}" for name in sources)
        raise VitportError(f"{found} cannot become {', '.join(targets)}: {error}.") from error

    def reader(position: int) -> np.ndarray:
        return contiguous(siblings.take(targets, position, lambda: run([table[name] for name in sources])))

    (dtype,) = dtypes
    return {
        name: Tensor(shape, dtype, lambda position=position: reader(position))
        for position, (name, shape) in enumerate(zip(targets, shapes, strict=True))
    }


class Template:
    """A name in which ``{i}`` stands for a number, and ``{2i+1}`` for twice the number and one more."""

    _PLACE = re.compile(r"\{(\d*)([a-z]+)(?:\+(\d+))?\}")

    def __init__(self, text: str) -> None:
        parts = self._PLACE.split(text)  # text, factor, name, offset, text, …
        self._texts = parts[::4]
        self._places = [
            (int(factor or 1), name, int(offset or 0))
            for factor, name, offset in zip(parts[1::4], parts[2::4], parts[3::4], strict=True)
        ]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(r"(0|[1-9]\d*)".join(map(re.escape, self._texts)))

    def match(self, name: str) -> dict[str, int] | None:
        """The numbers that make the template this name; ``None`` if none do."""
        if (match := self._pattern.fullmatch(name)) is None:
            return None
        numbers: dict[str, int] = {}
        for (factor, place, offset), text in zip(self._places, match.groups(), strict=True):
            number, rest = divmod(int(text) - offset, factor)
            if rest or number < 0 or numbers.setdefault(place, number) != number:
                return None
        return numbers

    def fill(self, numbers: dict[str, int]) -> str:
        """The name of these numbers."""
        filled = (str(factor * numbers[place] + offset) for factor, place, offset in self._places)
        return "".join(part for pair in zip(self._texts, (*filled, ""), strict=True) for part in pair)
