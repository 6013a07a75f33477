"""A draft of a file of rules, from the names and shapes of weights. Its author checks every line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from conversion.tensors.table import Shapes
from vit_spec import VitportError

_UNTOLD = {
    "num_heads": "the number of heads", "norm": "layernorm or rmsnorm", "norm_eps": "such as 1.0e-5 or 1.0e-6",
    "activation": "gelu, gelu_tanh, quick_gelu, silu or relu", "pool": "token, avg, map or token_avg",
    "block": "sequential where layers get normalised inputs",
}  # fmt: skip
"""Facts that no shape shows → what may stand there."""
_QUERY = re.compile(r"(^|[._])w?q([._]|$)|query|to_q", re.IGNORECASE)
_KEY = re.compile(r"(^|[._])w?k([._]|$)|key|to_k", re.IGNORECASE)
_VALUE = re.compile(r"(^|[._])w?v([._]|$)|value|to_v", re.IGNORECASE)
_PATCHES = "patch_embed.proj.weight"
_HIDDEN = re.compile(r"fc2|linear2|lin2|down|second|dense2|w2", re.IGNORECASE)


@dataclass
class _Draft:
    """Canonical name → the file's names, in the order in which they are stacked."""

    rules: dict[str, list[str]] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    """Canonical name → further keys of the rule."""

    def add(self, target: str, *names: str, details: str = "") -> None:
        self.rules.setdefault(target, []).extend(names)
        if details:
            self.details[target] = details


def suggest_rules(shapes: Shapes) -> str:
    """The text of a file of rules, as far as names and shapes tell.

    Args:
        shapes: the file's names → shapes.

    Raises:
        VitportError: if no names count blocks.
    """
    templates = _templates(shapes)
    if not any("<i>" in name for name in templates):
        raise VitportError("No names count blocks from 0, so there is no model to suggest rules for.")
    inside = {name: shape for name, shape in templates.items() if "<i>" in name}
    outside = {name: shape for name, shape in templates.items() if "<i>" not in name}
    width = _width(inside)
    draft = _Draft()
    _block(draft, inside, width)
    _around(draft, outside, width)
    placed = {name for names in draft.rules.values() for name in names}
    lines = ["# A draft from names and shapes: check every line. docs/renaming.md explains it.", "facts:"]
    lines += [f"  {name}:  # {what}" for name, what in _UNTOLD.items()]
    lines += ["rules:"]
    lines += [f"  {target}: {_source(names, draft.details.get(target, ''))}" for target, names in draft.rules.items()]
    lines += [f"# not placed: {name} {tuple(shape)}" for name, shape in templates.items() if name not in placed]
    return "\n".join(lines) + "\n"


def _source(names: list[str], details: str) -> str:
    text = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
    return f"{{from: {text}, {details}}}" if details else text


def _templates(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Names with ``<i>`` for the number that counts most tensors, and ``<h>`` for one that counts heads within."""
    places: dict[str, dict[int, int]] = {}
    for name in shapes:
        parts = name.split(".")
        for at, part in enumerate(parts):
            if part.isdigit():
                found = places.setdefault(".".join(parts[:at]), {})
                found[int(part)] = found.get(int(part), 0) + 1
    counted = {at: sum(found.values()) for at, found in places.items() if set(found) == set(range(len(found)))}
    before = max(counted, key=lambda at: counted[at], default=None)
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        prefix = "" if before == "" else f"{before}."
        match = re.match(rf"{re.escape(prefix)}\d+(?=\.|$)", name) if before is not None else None
        result[f"{prefix}<i>{name[match.end() :]}" if match else name] = shape
    return _with_heads(result)


def _with_heads(templates: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Numbers after ``<i>`` that count equal tensors, at least two, become ``<h>``."""
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in templates.items():
        head, mark, rest = name.partition("<i>")
        for match in re.finditer(r"(?<=\.)\d+(?=\.|$)", rest):
            before, after = rest[: match.start()], rest[match.end() :]
            counted = rf"{re.escape(head + mark + before)}\d+{re.escape(after)}"
            alike = [templates[it] for it in templates if re.fullmatch(counted, it)]
            if len(alike) > 1 and len(set(alike)) == 1 and len(shape) > 1 and min(shape) < max(shape):
                rest = f"{before}<h>{after}"
                break
        result[head + mark + rest] = shape
    return result


def _width(inside: Mapping[str, tuple[int, ...]]) -> int:
    """The commonest length of vectors in a block."""
    lengths = [shape[0] for shape in inside.values() if len(shape) == 1]
    return max(set(lengths), key=lengths.count) if lengths else 0


def _block(draft: _Draft, inside: Mapping[str, tuple[int, ...]], width: int) -> None:
    at = "blocks.<i>"
    norms = iter(("norm1", "norm2"))
    scales = iter(("ls1.gamma", "ls2.gamma"))
    parts: dict[str, list[str]] = {"q": [], "k": [], "v": []}
    for name, shape in inside.items():
        stem, leaf = _leaf(name)
        own = inside.get(f"{stem}{leaf[: -len('weight')]}bias") if leaf.endswith("weight") else None
        if len(shape) == 1 and not leaf.endswith(("weight", "bias")):
            if shape == (width,) and (target := next(scales, None)) is not None:
                draft.add(f"{at}.{target}", name)
            continue
        if leaf.endswith("bias"):
            continue
        if len(shape) == 1:
            if shape == (width,) and (target := next(norms, None)) is not None:
                _module(draft, f"{at}.{target}", name, own)
            continue
        target = _linear(name, shape, width)
        if target in parts:
            parts[target].append(name)
        elif target:
            _module(draft, f"{at}.{target}", name, own)
    if all(parts.values()):
        names = [name for part in "qkv" for name in parts[part]]
        transposed = "transpose: true" if all(inside[name][0] == width > inside[name][-1] for name in names) else ""
        draft.add(f"{at}.attn.qkv.weight", *names, details=transposed)
        biases = [re.sub("weight$", "bias", name) for name in names]
        if all(bias in inside and bias != name for bias, name in zip(biases, names, strict=True)):
            draft.add(f"{at}.attn.qkv.bias", *biases)


def _linear(name: str, shape: tuple[int, ...], width: int) -> str | None:
    """Which linear layer of a block a matrix is; ``q``, ``k`` and ``v`` for one of three."""
    rows, columns = (shape[0], shape[-1]) if len(shape) == 2 else (0, 0)
    if (rows, columns) == (3 * width, width):
        return "attn.qkv"
    for part, pattern in {"q": _QUERY, "k": _KEY, "v": _VALUE}.items():
        if pattern.search(name.partition("<i>")[2]):
            return part
    if rows == columns == width:
        return "attn.proj" if not _HIDDEN.search(name) else "mlp.fc2"
    if columns == width:
        return "mlp.fc1"
    return "mlp.fc2" if rows == width else None


def _around(draft: _Draft, outside: Mapping[str, tuple[int, ...]], width: int) -> None:
    for name, shape in outside.items():
        stem, leaf = _leaf(name)
        bias = outside.get(f"{stem}{leaf[: -len('weight')]}bias") if leaf.endswith("weight") else None
        if len(shape) == 4 and shape[0] == width:
            _module(draft, "patch_embed.proj", name, bias)
        elif len(shape) == 2 and shape[0] == width and leaf.endswith("weight") and shape[1] % 3 == 0:
            side = round((shape[1] / 3) ** 0.5)
            order = f"reshape: [-1, {side}, {side}, 3], axes: [0, 3, 1, 2]"  # row, column, channel: the commonest order
            _module(draft, "patch_embed.proj", name, bias, details=order)
        elif len(shape) >= 2 and shape[-1] == width and _size(shape[:-1]) > 1 and not leaf.endswith("weight"):
            draft.add("pos_embed", name, details="" if len(shape) == 3 else f"reshape: [1, -1, {width}]")
        elif shape[-1:] == (width,) and _size(shape[:-1]) == 1 and re.search("cls|class", name, re.IGNORECASE):
            draft.add("cls_token", name, details="" if len(shape) == 3 else f"reshape: [1, 1, {width}]")
        elif shape == (width,) and leaf.endswith("weight"):
            parent = stem.rstrip(".").rpartition(".")[0]
            beside_patches = parent and any(it.startswith(f"{parent}.") for it in draft.rules.get(_PATCHES, ()))
            _module(draft, "patch_embed.norm" if beside_patches else "norm", name, bias)
        elif len(shape) == 2 and shape[1] == width and leaf.endswith("weight"):
            _module(draft, "head", name, bias)


def _module(draft: _Draft, target: str, weight: str, bias: tuple[int, ...] | None, details: str = "") -> None:
    """A weight, and its bias if there is one, unless the target has one already."""
    if f"{target}.weight" in draft.rules:
        return
    draft.add(f"{target}.weight", weight, details=details)
    if bias is not None:
        draft.add(f"{target}.bias", re.sub("weight$", "bias", weight))


def _leaf(name: str) -> tuple[str, str]:
    stem, dot, leaf = name.rpartition(".")
    return stem + dot, leaf


def _size(shape: Iterable[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
