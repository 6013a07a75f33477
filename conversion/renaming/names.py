"""A file of rules applied to a file of weights."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from conversion.renaming.rules_file import Recipe, RulesFile
from conversion.tensors.contiguous import contiguous
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import ViTConfig, VitportError


@dataclass(frozen=True)
class Renaming:
    """The names of a stranger's file; it is only read (``conversion.tensors.rules.Names``)."""

    rules: RulesFile

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        """Canonical table, and the names that no rule mentions.

        Raises:
            VitportError: if a rule matches nothing, or its tensors do not fit together.
        """
        depth = 1 + max(
            (
                int(match["i"])
                for recipe in self.rules.recipes
                for source in recipe.sources
                for name in table
                if (match := _pattern(source).fullmatch(name)) and "i" in match.groupdict()
            ),
            default=-1,
        )
        used: set[str] = set()
        tensors: dict[str, Tensor] = {}
        for recipe in self.rules.recipes:
            blocks = range(depth) if "<i>" in recipe.target else (None,)
            for at in blocks:
                target = recipe.target.replace("<i>", str(at))
                if target in tensors:
                    raise VitportError(f"{self.rules.path} has two rules for {target}: remove one of them.")
                tensors[target] = self._made(recipe, target, at, table, used)
        ignored = {name for name in table for pattern in self.rules.ignore if fnmatch.fnmatchcase(name, pattern)}
        return TensorTable(tensors), [name for name in table if name not in used | ignored]

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        """Never: rules are read in one direction."""
        del table, config
        raise VitportError("A file of rules is for reading only.")

    def foreign_name(self, canonical: str, axes: int) -> str:
        """The file's names, joined by ``+``."""
        del axes
        for recipe in self.rules.recipes:
            if match := _pattern(recipe.target).fullmatch(canonical):
                return " + ".join(name.replace("<i>", match.groupdict().get("i", "")) for name in recipe.sources)
        return canonical

    def _made(self, recipe: Recipe, target: str, at: int | None, table: TensorTable, used: set[str]) -> Tensor:
        if recipe.zeros is not None:
            shape = recipe.zeros
            dtype = next(iter(table.tensors.values())).dtype
            return Tensor(shape, dtype, lambda: np.zeros(shape, dtype))
        names = [name for source in recipe.sources for name in self._matching(source, target, at, table)]
        factor = recipe.times.replace("<i>", str(at)) if isinstance(recipe.times, str) else None
        if factor is not None and factor not in table:
            raise VitportError(f"{self.rules.path} multiplies {target} by {factor}, which the file does not have.")
        used |= {*names, *([factor] if factor else [])}
        dtypes = {table.spec(name)[1] for name in names}
        if len(dtypes) > 1:
            raise VitportError(f"{', '.join(names)} have different dtypes: convert them first.")
        (dtype,) = dtypes

        def make(read: Callable[[str], np.ndarray]) -> np.ndarray:
            parts = [_laid_out(recipe, read(name)) for name in names]
            return np.concatenate(parts) if len(parts) > 1 else parts[0]

        def read() -> np.ndarray:
            whole = make(table.__getitem__)
            if recipe.times != 1.0:
                by = np.asarray(recipe.times if factor is None else table[factor], np.float64)
                whole = (whole.astype(np.float64) * by.reshape(-1, *[1] * (whole.ndim - 1))).astype(dtype)
            return contiguous(whole)

        try:  # zero-strided stand-ins of one byte show the result's shape without the memory
            shape = make(lambda name: np.broadcast_to(np.int8(0), table.spec(name)[0])).shape
        except ValueError as error:
            found = ", ".join(f"{name} {table.spec(name)[0]}" for name in names)
            raise VitportError(f"{found} cannot become {target} by {self.rules.path}: {error}.") from error
        return Tensor(shape, dtype, read)

    def _matching(self, source: str, target: str, at: int | None, table: TensorTable) -> list[str]:
        """The tensors of one source, those of heads in their order."""
        own = source if at is None else source.replace("<i>", str(at))
        found = [
            (int(match.groupdict().get("h", 0)), name) for name in table if (match := _pattern(own).fullmatch(name))
        ]
        if not found:
            raise VitportError(f"{self.rules.path} makes {target} of {own}, which the file does not have.")
        heads = sorted(number for number, _ in found)
        if heads != list(range(len(heads))):
            raise VitportError(f"{own} has heads {', '.join(map(str, heads))}: they must count from 0 without a gap.")
        return [name for _, name in sorted(found)]


def _laid_out(recipe: Recipe, array: np.ndarray) -> np.ndarray:
    if recipe.reshape is not None:
        array = array.reshape(recipe.reshape)
    if recipe.axes is not None:
        array = array.transpose(recipe.axes)
    return array.T if recipe.transpose else array


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split("<([ih])>", template)
    seen: set[str] = set()
    pattern = ""
    for at, part in enumerate(parts):
        if at % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P={part})" if part in seen else rf"(?P<{part}>0|[1-9]\d*)"
            seen.add(part)
    return re.compile(pattern)
