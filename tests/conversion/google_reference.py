"""Google's ViT in numpy and float64, run on the names and axes of its own files.

Written from the papers: Dosovitskiy et al. 2021, equations 1 to 8; Zhai et al. 2022 for the attention pool;
Hendrycks and Gimpel 2016 for the tanh form of GELU. Nothing of the project is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Weights = Mapping[str, np.ndarray]
RELEASED = ("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
LINEN = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


def logits(weights: Weights, images: np.ndarray) -> np.ndarray:
    """(B, H, W, C) -> (B, K)."""
    w = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    return np.stack([_logits(w, image.astype(np.float64)) for image in images])


def _logits(w: Weights, image: np.ndarray) -> np.ndarray:
    x = tokens(w, image)
    for block in blocks(w):
        x = encoder_block(block, x)
    x = layer_norm(w, "Transformer/encoder_norm", x)
    pooled = x[0] if "cls" in w else attention_pool(w, x) if "MAPHead_0/probe" in w else x.mean(axis=0)
    if "pre_logits/kernel" in w:
        pooled = np.tanh(pooled @ w["pre_logits/kernel"] + w["pre_logits/bias"])
    return pooled @ w["head/kernel"] + w["head/bias"] if "head/kernel" in w else pooled


def tokens(w: Weights, image: np.ndarray) -> np.ndarray:
    """Equation 1: (H, W, C) -> (N, D). The position table is added before or after the class token joins."""
    side = w["embedding/kernel"].shape[0]
    rows, columns = image.shape[0] // side, image.shape[1] // side
    patches = np.array(
        [
            np.tensordot(image[y * side : (y + 1) * side, x * side : (x + 1) * side], w["embedding/kernel"], 3)
            + w["embedding/bias"]
            for y in range(rows)
            for x in range(columns)
        ]
    )
    table = next(array[0] for name, array in w.items() if name.endswith("pos_embedding"))
    if "cls" not in w:
        return patches + table
    if len(table) == len(patches):
        return np.vstack([w["cls"][0], patches + table])
    return np.vstack([w["cls"][0], patches]) + table


def blocks(w: Weights) -> list[dict[str, np.ndarray]]:
    """The tensors of each block, its modules named norm1, attention, norm2 and mlp whatever the file calls them."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for name, array in w.items():
        if match := re.fullmatch(r"Transformer/encoderblock_(\d+)/(.*)", name):
            found.setdefault(int(match[1]), {})[match[2]] = array
        elif name.startswith("Transformer/encoderblock/"):
            for i, single in enumerate(array):
                found.setdefault(i, {})[name.removeprefix("Transformer/encoderblock/")] = single
    return [{_plain(name): array for name, array in found[i].items()} for i in range(len(found))]


def _plain(name: str) -> str:
    module, _, rest = name.partition("/")
    plain = {
        "LayerNorm_0": "norm1", "LayerNorm_1": "norm2", "LayerNorm_2": "norm2",
        "MlpBlock_0": "mlp", "MlpBlock_3": "mlp",
        "MultiHeadDotProductAttention_0": "attention", "MultiHeadDotProductAttention_1": "attention",
    }  # fmt: skip
    return f"{plain[module]}/{rest}"


def encoder_block(b: Weights, x: np.ndarray) -> np.ndarray:
    """Equations 2 and 3: (N, D) -> (N, D)."""
    y = layer_norm(b, "norm1", x)
    x = x + attention(b, "attention", y, y)
    return x + mlp(b, "mlp", layer_norm(b, "norm2", x))


def attention(w: Weights, at: str, asking: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Appendix A, equations 5 to 8: (N, D), (M, D) -> (N, D)."""

    def heads(part: str, x: np.ndarray) -> np.ndarray:
        return np.einsum("nD,Dhd->hnd", x, w[f"{at}/{part}/kernel"]) + w[f"{at}/{part}/bias"][:, None]

    q, k, v = heads("query", asking), heads("key", asked), heads("value", asked)
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])  # (h, N, M)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.einsum("hnd,hdD->nD", shares @ v, w[f"{at}/out/kernel"]) + w[f"{at}/out/bias"]


def attention_pool(w: Weights, x: np.ndarray) -> np.ndarray:
    """(N, D) -> (D,)."""
    y = attention(w, "MAPHead_0/MultiHeadDotProductAttention_0", w["MAPHead_0/probe"][0], x)
    return (y + mlp(w, "MAPHead_0/MlpBlock_0", layer_norm(w, "MAPHead_0/LayerNorm_0", y)))[0]


def mlp(w: Weights, at: str, x: np.ndarray) -> np.ndarray:
    hidden = x @ w[f"{at}/Dense_0/kernel"] + w[f"{at}/Dense_0/bias"]
    hidden = 0.5 * hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    return hidden @ w[f"{at}/Dense_1/kernel"] + w[f"{at}/Dense_1/bias"]


def layer_norm(w: Weights, at: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * w[f"{at}/scale"] + w[f"{at}/bias"]


@dataclass(frozen=True)
class Sizes:
    """Nothing square that could be something else."""

    grid: tuple[int, int] = (3, 5)
    patch: int = 4
    channels: int = 3
    width: int = 24
    heads: int = 3
    hidden: int = 41
    depth: int = 11
    representation: int | None = 10
    classes: int = 7


def random_weights(
    sizes: Sizes, *, counters: tuple[str, ...], positions: str, class_token: bool, class_row: bool = False,
    attention_pool: bool = False, stacked: bool = False, seed: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Float64 tensors under a file's names: kernels keep the variance, norms lie around 1, nothing is zero."""
    s, rng = sizes, np.random.default_rng(seed)
    D, d = s.width, s.width // s.heads
    shapes: dict[str, tuple[int, ...]] = {
        "embedding/kernel": (s.patch, s.patch, s.channels, D), "embedding/bias": (D,),
        positions: (1, s.grid[0] * s.grid[1] + class_row, D),
        "Transformer/encoder_norm/scale": (D,), "Transformer/encoder_norm/bias": (D,),
    }  # fmt: skip
    if class_token:
        shapes["cls"] = (1, 1, D)

    def module(at: str, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        norm1, attention, norm2, mlp_block = (f"{at}/{name}" for name in names)
        attend = {f"{attention}/{part}/{leaf}": shape for part in ("query", "key", "value")
                  for leaf, shape in (("kernel", (D, s.heads, d)), ("bias", (s.heads, d)))}  # fmt: skip
        attend |= {f"{attention}/out/kernel": (s.heads, d, D), f"{attention}/out/bias": (D,)}
        norms = {f"{norm}/{leaf}": (D,) for norm in (norm1, norm2) for leaf in ("scale", "bias")}
        dense = {f"{mlp_block}/Dense_0/kernel": (D, s.hidden), f"{mlp_block}/Dense_0/bias": (s.hidden,),
                 f"{mlp_block}/Dense_1/kernel": (s.hidden, D), f"{mlp_block}/Dense_1/bias": (D,)}  # fmt: skip
        return norms | attend | dense

    for i in range(s.depth):
        shapes |= module(f"Transformer/encoderblock_{i}", counters)
    if attention_pool:
        one_norm = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_0", "MlpBlock_0")
        shapes |= module("MAPHead_0", one_norm) | {"MAPHead_0/probe": (1, 1, D)}
    features = D
    if s.representation:
        shapes |= {"pre_logits/kernel": (D, s.representation), "pre_logits/bias": (s.representation,)}
        features = s.representation
    shapes |= {"head/kernel": (features, s.classes), "head/bias": (s.classes,)}
    weights = {name: _random(name, shape, rng) for name, shape in shapes.items()}
    return _stacked(weights, s.depth) if stacked else weights


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(shape)
    if name.endswith("scale"):
        return 1 + 0.3 * noise
    if not name.endswith("kernel"):
        return 0.5 * noise
    summed = shape[:1] if name.split("/")[-2] in ("query", "key", "value") else shape[:-1]
    return noise / math.sqrt(math.prod(summed))


def _stacked(weights: Weights, depth: int) -> dict[str, np.ndarray]:
    first = "Transformer/encoderblock_0/"
    leaves = [name.removeprefix(first) for name in weights if name.startswith(first)]
    rest = {name: array for name, array in weights.items() if not name.startswith("Transformer/encoderblock_")}
    each = [f"Transformer/encoderblock_{i}" for i in range(depth)]
    stacks = {leaf: np.stack([weights[f"{at}/{leaf}"] for at in each]) for leaf in leaves}
    return rest | {f"Transformer/encoderblock/{leaf}": stack for leaf, stack in stacks.items()}
