"""One small model as a good file of every container, and ways to damage bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.numpy import save_file

import conversion
from tests.conversion.onnx.write_graph import vit_graph
from tests.random_weights import random_params
from vit_spec import ViTConfig

MODEL = "vit_tiny_patch16_224"
"""A registered name with the facts below that shapes do not show."""
CONFIG = ViTConfig(
    image_size=12, patch_size=4, num_classes=7, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=41, norm_eps=1e-6,
    activation="gelu_tanh",
)  # fmt: skip
PARAMS = random_params(CONFIG, seed=5, dtype=np.float32)
STATE = {name: torch.from_numpy(array) for name, array in PARAMS.items()}


def graph(params: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model as an ONNX graph."""
    return vit_graph(params, CONFIG)


def _saved(format_name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        conversion.save(conversion.Checkpoint.of(CONFIG, PARAMS), path, format=format_name, activation="keep")

    return make


def sharded(path: Path) -> None:
    """A Hugging Face folder in two shards."""
    import json

    _saved("huggingface")(path)
    tensors = dict(conversion.containers.open_source(path).table)
    names = sorted(tensors)
    places = {name: f"model-{1 + 2 * at // len(names):05d}-of-00002.safetensors" for at, name in enumerate(names)}
    for shard in sorted(set(places.values())):
        save_file({name: tensors[name] for name in names if places[name] == shard}, path / shard)
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _deflated(path: Path) -> None:
    stored = path.with_name("stored.npz")
    _saved("google")(stored)
    with np.load(stored) as arrays, path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    stored.unlink()


MAKERS: dict[str, Callable[[Path], None]] = {
    "a.safetensors": _saved("timm"),
    "a.npz": _saved("google"),
    "deflated.npz": _deflated,
    "a.msgpack": _saved("google-linen"),
    "a.pth": lambda path: torch.save(STATE, path),
    "legacy.pth": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "a.onnx": lambda path: onnx.save(graph(PARAMS), path),
    "orbax": _saved("flax"),
    "huggingface": _saved("huggingface"),
    "sharded": sharded,
}
"""Name of a file or folder → what writes it."""


def files_of(path: Path) -> list[Path]:
    """The file itself, or every file of a folder with something in it."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(file for file in files if file.stat().st_size)


def cuts(content: bytes, count: int) -> Iterator[bytes]:
    """The beginning of a file, in many lengths: none, the first bytes, evenly spread ones, all but the last byte."""
    lengths = {0, 1, 4, 9, 40, len(content) - 1, *np.linspace(0, len(content) - 1, count).astype(int).tolist()}
    for length in sorted(length for length in lengths if 0 <= length < len(content)):
        yield content[:length]


def flips(content: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """One bit changed, as often in the first and last kilobyte, where headers and indices lie, as anywhere."""
    for at in range(count):
        first, last = [(0, len(content)), (0, 1000), (len(content) - 1000, len(content))][at % 3]
        place = rng.randrange(max(0, first), min(len(content), last))
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        yield bytes(damaged)


def removals(content: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """A few bytes taken out, so that everything after them lies elsewhere than an index says."""
    for _ in range(count):
        place = rng.randrange(len(content))
        yield content[:place] + content[place + rng.randrange(1, 64) :]
