"""Seeded damage to files of weights, and what reading a damaged one must come to.

``python -m tests.conversion.mutants SUBJECT SEED COUNT`` attacks one kind of file in a process with little memory, and
prints how many mutants ended how; the slow suite runs it.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import save_file

import conversion
from conversion.containers.checksums import write_checksums
from conversion.formats.vit import flax
from conversion.tensors.flax_tree import nest
from conversion.tensors.table import TensorTable
from tests import peak_memory
from tests.conversion.bad_files import CONFIG, MAKERS, PARAMS, files_of
from vit_spec import VitportError

SECONDS, BYTES = 10, 1 << 30
"""What reading a small mutant may cost."""
LABELS = tuple("abcdefg")


def _tree() -> dict[str, Any]:
    table = flax.FORMAT.names.write(TensorTable.of(PARAMS), CONFIG)
    return nest({name: np.asarray(table[name]) for name in table})


def _orbax(**layout: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**layout)).save(path.resolve(), _tree())

    return make


def _huggingface_flax(path: Path) -> None:
    import torch
    import transformers as t

    config = t.ViTConfig(
        image_size=12, patch_size=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=41,
        id2label={at: f"LABEL_{at}" for at in range(7)},
    )  # fmt: skip
    torch.manual_seed(0)
    t.ViTForImageClassification(config).save_pretrained(path)


def _timm_folder(path: Path) -> None:
    path.mkdir()
    save_file(PARAMS, path / "model.safetensors")
    arguments = {"img_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 41 / 24}
    told = {
        "architecture": "vit_tiny_patch16_224", "num_classes": 7, "model_args": arguments, "label_names": list(LABELS),
        "pretrained_cfg": {"input_size": [3, 12, 12], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3},
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(told))


def _run(path: Path) -> None:
    """A work directory of training with one checkpoint."""
    step = path / "checkpoints" / "5"
    (step / "record").mkdir(parents=True)
    _orbax(use_ocdbt=True)(step / "params")
    record = conversion.Checkpoint.of(CONFIG, PARAMS, labels=LABELS).record()
    (step / "record" / "metadata").write_text(json.dumps(record))
    write_checksums(step, ("params", "record"))


SUBJECTS: dict[str, Callable[[Path], None]] = MAKERS | {
    "bare.safetensors": lambda path: save_file(PARAMS, path),
    "zarr": _orbax(use_ocdbt=False),
    "zarr3": _orbax(use_ocdbt=False, use_zarr3=True),
    "transformers": _huggingface_flax,
    "timm": _timm_folder,
    "run": _run,
}
"""A kind of file or folder → what makes a good one."""
CHECKED = {"a.npz", "deflated.npz", "a.pth", "run"}
"""Kinds whose container has a checksum of every tensor: what is read of them is right."""

STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**25, 10**400, 1e308, -0.5, float("nan"), float("inf"), "", "x",
    "²", "x" * 10**5, "verified: all\n\x1b[2J", "/dev/zero", "../../etc/passwd", [], [1], [[]], [1] * 40, {}, {"a": 1},
    {"quant_method": "gptq"},
]  # fmt: skip
"""Values in the place of others in JSON."""


def mutant(content: bytes, rng: random.Random) -> bytes:
    """A damaged copy of a file; where it holds JSON, half the time the values in it."""
    head = _json_head(content)
    if head is not None and rng.random() < 0.5:
        return _with_json(content, head, rng)
    return rng.choice((_flipped, _cut, _spliced, _renumbered))(content, rng)


def _flipped(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        damaged[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)] + (bytes(rng.randrange(64)) if rng.random() < 0.3 else b"")


def _spliced(content: bytes, rng: random.Random) -> bytes:
    """A piece of the file in another place, over what is there or between."""
    source, target, length = _place(content, rng), _place(content, rng), rng.choice((1, 4, 8, 64, 500))
    piece = content[source : source + length]
    return content[:target] + piece + content[target + (len(piece) if rng.random() < 0.7 else 0) :]


def _renumbered(content: bytes, rng: random.Random) -> bytes:
    """A number of one to eight bytes replaced by an extreme one, in either byte order."""
    size, at = rng.choice((1, 2, 4, 8)), _place(content, rng)
    value = rng.choice(
        (0, 1, (1 << 8 * size) - 1, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, rng.randrange(1 << 8 * size))
    )
    return content[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + content[at + size :]


def _place(content: bytes, rng: random.Random) -> int:
    """As often in the first and the last kilobyte, where headers and indices lie, as anywhere."""
    first, last = rng.choice(((0, len(content)), (0, 1000), (len(content) - 1000, len(content))))
    return rng.randrange(max(0, first), max(1, min(len(content), last)))


def _json_head(content: bytes) -> tuple[int, int] | None:
    """Where the JSON in a file lies: all of it, or a safetensors header."""
    if content[:1] == b"{":
        return 0, len(content)
    if len(content) > 9 and content[8:9] == b"{":
        return 8, 8 + struct.unpack("<Q", content[:8])[0]
    return None


def _with_json(content: bytes, place: tuple[int, int], rng: random.Random) -> bytes:
    value = json.loads(content[slice(*place)])
    own = value.get("__metadata__", {}).get("vitport") if place[0] else None
    if own is not None and rng.random() < 0.6:
        value["__metadata__"]["vitport"] = json.dumps(changed(json.loads(own), rng))
    else:
        value = changed(value, rng)
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + content[place[1] :] if place[0] else text


def changed(value: Any, rng: random.Random) -> Any:
    """JSON with one value replaced, removed or doubled, somewhere."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(value)
    if not places or rng.random() < 0.03:
        return rng.choice([*STRANGE, json.loads("[" * 400 + "]" * 400)])
    node, key = rng.choice(places)
    change = rng.random()
    if change < 0.15:
        del node[key]
    elif change < 0.25 and isinstance(node, dict):
        node[rng.choice(("x\x1b[2J\n", "²", "", "a" * 5000, str(key) + "/value"))] = node.pop(key)
    elif change < 0.4 and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        node[key] = node[key] + rng.choice((-1, 1)) if rng.random() < 0.5 else node[key] * rng.choice((-1, 2, 10**9))
    else:
        node[key] = rng.choice(STRANGE)
    return value


@contextmanager
def watched() -> Iterator[None]:
    """Within the time and the memory that reading a mutant may cost."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"it takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    memory = peak_memory.start()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    taken = peak_memory.taken(memory)
    assert taken < BYTES, f"it takes {taken} bytes of memory"


def outcome(path: Path, good: conversion.Checkpoint, name: str) -> str:
    """How reading ends: refused in one line, the same as the good file, or another model that is told.

    Raises:
        AssertionError, or whatever reading raises besides the one error that it may.
    """
    try:
        with watched():
            found = conversion.load(path, model=CONFIG)
            arrays = {name: found.params[name] for name in found.params}
    except VitportError as error:
        text = str(error)
        assert text.isprintable(), repr(text)
        assert text.endswith("."), text
        assert len(text) <= 4000
        return "refused"
    assert all(text.isprintable() for text in found.provenance.notes if text.startswith("changed"))
    expected = {name: good.params[name] for name in good.params}
    same = arrays.keys() == expected.keys() and all(_same(arrays[name], expected[name]) for name in arrays)
    kept = all(_same(array, expected[name]) for name, array in arrays.items() if name in expected)
    assert kept or name not in CHECKED, "other numbers, though the container has checksums"
    if found.config == good.config and found.preprocessing == good.preprocessing and found.labels == good.labels:
        assert {key: array.shape for key, array in arrays.items()} == good.params.shapes
        return "the same" if same else "other numbers of the same model"
    differing = [key for key, value in found.config.to_dict().items() if value != good.config.to_dict()[key]]
    assert all(key in found.provenance.origins for key in differing), differing
    return "another model, told"


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def attack(name: str, folder: Path, seed: int, count: int) -> Counter[str]:
    """Read ``count`` mutants of one kind.

    Raises:
        AssertionError: with the number of the mutant that ended otherwise than it may.
    """
    path = folder / name
    SUBJECTS[name](path)
    good = conversion.load(path, model=CONFIG)
    arrays = {name: good.params[name] for name in good.params}  # read now: the file is about to change
    good = replace(good, params=TensorTable.of(arrays))
    files = {file: file.read_bytes() for file in files_of(path)}
    kept = folder / "kept.safetensors"
    conversion.save(good, kept, format="timm", activation="keep")
    before = kept.read_bytes()
    found: Counter[str] = Counter()
    for at in range(count):
        rng = random.Random(f"{name} {seed} {at}")
        file = rng.choice(list(files))
        file.write_bytes(mutant(files[file], rng))
        started = time.monotonic()
        try:
            ended = outcome(path, good, name)
            if ended == "refused" and at % 40 == 0:
                _assert_untouched(path, kept, before)
        except BaseException as error:
            which = f"mutant {at} of {name} (seed {seed}), in {file.name}"
            raise AssertionError(f"{which}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - started < SECONDS
        found[ended] += 1
        file.write_bytes(files[file])
    return found


def _assert_untouched(path: Path, kept: Path, before: bytes) -> None:
    entries = sorted(kept.parent.iterdir())
    with suppress(VitportError):
        conversion.convert(path, kept, to="timm", model=CONFIG, overwrite=True)
    assert kept.read_bytes() == before
    assert sorted(kept.parent.iterdir()) == entries


def run_with_a_gigabyte(attack: Callable[[str, Path, int, int], Counter[str]]) -> None:
    """Attack in a process whose memory is what it has now and 1 GiB more; kind, seed and count are its arguments."""
    name, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        attack(name, Path(first), seed, 3)  # loads the libraries
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))
        found = attack(name, Path(second), seed, count)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    run_with_a_gigabyte(attack)
