"""Arrays that Swin's codes keep beside their weights, and that follow from the config.

They are read as facts, and computed when a file is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from conversion.tensors.rules import Rule, Rules, Template
from conversion.tensors.table import Shapes, TensorTable
from vit_spec import Config, SwinConfig, VitportError
from vit_spec.swin.windows import MASKED, Windowing, offset_coordinates, offset_indices, shift_regions, windowings

INDEX, COORDINATES, MASK = "relative_position_index", "relative_coords_table", "attn_mask"
SET_ASIDE = {
    f"*.{INDEX}": "rows of the table of relative positions, which follow from the window",
    f"*.{COORDINATES}": "coordinates of relative positions, which follow from the window and the pretraining window",
    f"*.{MASK}": "masks of shifted windows, which follow from the image size",
}
_PLACE = re.compile(r"\d+(?=\.)")


class Buffered(Rules):
    """Rules of a format whose files hold such arrays too.

    Args:
        rules: of the weights.
        block: name of a block, with ``{s}`` and ``{b}``, or ``{2s+1}``.
        attention: name of its attention.
        flat: the index has one axis.
        masks: the masks of shifted windows are there too.
    """

    def __init__(
        self, rules: Iterable[Rule], block: str, *, attention: str = "attn", flat: bool = False, masks: bool = False
    ) -> None:
        super().__init__(rules)
        self._block, self._attention, self._flat, self._masks = block, attention, flat, masks

    def write(self, table: TensorTable, config: Config) -> TensorTable:
        """As :meth:`Rules.write`, with the buffers of every block."""
        written = super().write(table, config)
        assert isinstance(config, SwinConfig)
        dtype = table.spec("patch_embed.proj.weight")[1]
        block = Template(self._block)
        buffers = {
            f"{block.fill({'s': stage, 'b': at})}.{name}": array
            for stage, (windowing, depth) in enumerate(zip(windowings(config), config.depths, strict=True))
            for at in range(depth)
            for name, array in self._of(config, stage, windowing, shifted=at % 2 == 1, dtype=dtype).items()
        }
        return TensorTable(written.tensors | TensorTable.of(buffers).tensors)

    def _of(
        self, config: SwinConfig, stage: int, windowing: Windowing, *, shifted: bool, dtype: np.dtype
    ) -> dict[str, np.ndarray]:
        index = np.array(offset_indices(windowing.window), np.int64)
        found = {f"{self._attention}.{INDEX}": index.reshape(-1) if self._flat else index}
        if config.version == 2:
            table = _coordinates(windowing.window, config.pretrained_window_sizes[stage])
            found[f"{self._attention}.{COORDINATES}"] = table.astype(dtype)
        if self._masks and shifted and any(windowing.shift):
            found[MASK] = _mask(windowing).astype(dtype)
        return found


def facts(aside: TensorTable, shapes: Shapes) -> dict[str, Any]:
    """Windows, pretraining windows and image size, as far as the arrays show them.

    Args:
        aside: the arrays, under the format's bare names.
        shapes: of the other tensors.

    Raises:
        VitportError: if an array is not the one that its family's code would compute: its model is another function.
    """
    windows: dict[int, tuple[int, int]] = {}
    pretrained: dict[int, tuple[int, int]] = {}
    size: tuple[int, int] | None = None
    for name in aside:
        if name.endswith(INDEX):
            stage = _stage(name)
            windows[stage] = _same(windows.get(stage), _window_of_index(name, aside[name]), name)
    for name in aside:
        stage = _stage(name) if name.endswith((COORDINATES, MASK)) else -1
        if name.endswith(COORDINATES):
            window, own = _windows_of_coordinates(name, aside[name])
            windows[stage] = _same(windows.get(stage), window, name)
            pretrained[stage] = _same(pretrained.get(stage), own, name)
        elif name.endswith(MASK) and stage in windows:
            rows, columns = _map_of_mask(name, aside[name], windows[stage])
            size = _same(size, (rows * 2**stage, columns * 2**stage), name)
    found: dict[str, Any] = {}
    for field, values in {"window_sizes": windows, "pretrained_window_sizes": pretrained}.items():
        ordered = [values[stage] for stage in sorted(values)]
        if values and len(values) == _stages(shapes):
            found[field] = tuple(ordered)
    patch = next((shape[-1] for name, shape in shapes.items() if len(shape) == 4 and shape[-1] == shape[-2]), None)
    if size is not None and patch is not None:
        found["image_size"] = (size[0] * patch, size[1] * patch)
    return found


def _stage(name: str) -> int:
    """The stage of a buffer: the first number in its name, which torchvision counts 1, 3, 5, 7."""
    number = int(_PLACE.findall(name)[0])
    return number // 2 if name.startswith("features.") else number


def _stages(shapes: Shapes) -> int:
    blocks = {_stage(name) for name in shapes if len(_PLACE.findall(name)) > 1 and ".norm1." in name}
    return len(blocks)


def _same(known: Any, found: Any, name: str) -> Any:
    if known is not None and known != found:
        raise VitportError(
            f"{name} is of {found}, but another one of the same stage is of {known}: the file is damaged."
        )
    return found


def _window_of_index(name: str, index: np.ndarray) -> tuple[int, int]:
    tokens = round(index.size**0.5)
    for height in sorted(range(1, tokens + 1), key=lambda side: abs(side - tokens**0.5)):
        if tokens % height == 0:
            window = (height, tokens // height)
            expected = np.array(offset_indices(window))
            if index.size == expected.size and np.array_equal(index.reshape(expected.shape), expected):
                return window
    raise _other(name, "an index of relative positions", "that fits no window: another order of offsets, or damaged")


def _windows_of_coordinates(name: str, table: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """The window, and the one by which offsets are normalised; (0, 0) if that is the same."""
    if table.ndim != 4 or table.shape[0] != 1 or table.shape[3] != 2:
        raise _other(name, "coordinates of relative positions", f"of shape {table.shape}")
    window = ((table.shape[1] + 1) // 2, (table.shape[2] + 1) // 2)
    values = table.astype(np.float64)
    largest = (values[0, -1, 0, 0], values[0, 0, -1, 1])
    own = tuple(
        side if side == 1 or not np.isfinite(top) or top <= 0 else round(1 + 8 * (side - 1) / (2 ** (3 * top) - 1))
        for side, top in zip(window, largest, strict=True)
    )
    pretrained = (0, 0) if own == window else (own[0], own[1])
    expected = _coordinates(window, pretrained)
    tolerance = 16 * float(np.finfo(table.dtype).eps) if table.dtype.kind == "f" else 0.1
    known = np.isfinite(values)  # a window of 1 divides by zero in the original code
    if np.abs(np.where(known, values - expected, 0)).max(initial=0.0) > max(tolerance, 1e-6):
        raise _other(name, "coordinates of relative positions", "that fit no pretraining window")
    return window, pretrained


def _map_of_mask(name: str, mask: np.ndarray, window: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the map: the last row of windows is masked, and so is the last of every row."""
    count = len(mask)
    half = (window[0] // 2, window[1] // 2)
    for columns in range(1, count + 1):
        if count % columns:
            continue
        size = (count // columns * window[0], columns * window[1])
        expected = _mask(Windowing(size, window, half))
        if mask.shape == expected.shape and np.array_equal(mask.astype(np.float64), expected):
            return size
    raise _other(name, "masks of shifted windows", "that fit no map: another mask, or damaged")


def _mask(windowing: Windowing) -> np.ndarray:
    """(windows, tokens, tokens)."""
    regions = np.array(shift_regions(windowing))
    return np.where(regions[:, :, None] == regions[:, None, :], 0.0, MASKED)


def _coordinates(window: tuple[int, int], pretrained: tuple[int, int]) -> np.ndarray:
    """(1, 2 height - 1, 2 width - 1, 2)."""
    table = np.array(offset_coordinates(window, pretrained))
    return table.reshape(1, 2 * window[0] - 1, 2 * window[1] - 1, 2)


def _other(name: str, what: str, why: str) -> VitportError:
    return VitportError(
        f"{name} holds {what} {why}. Code that takes it from the file computes another model than Swin: if yours "
        "computes it itself, remove it from the file."
    )
