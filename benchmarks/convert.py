"""What a conversion costs compared with a plain copy: ``python -m benchmarks.convert [--model NAME] [--output FILE]``.

For every pair of writable formats that can hold one model, random weights of that model are converted, and the source
is copied and flushed to disk, in turn, each in a process of its own. Printed are the ratio of the median times and the
peak resident memory (VmHWM of the whole process: interpreter, libraries, and pages of mapped files too).

The time is that of ``conversion.load`` and ``conversion.save``, which ends when the result is flushed and in place. A
small model is converted before, so that imports count in memory but not in time.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

import conversion
from benchmarks.side import peak_memory
from conversion import FORMATS
from conversion.containers import open_source
from vit_spec import Config, get_model, parameters

FLAVOURS: dict[str, dict[str, object]] = {
    "Google's ViT": {"activation": "gelu_tanh", "norm_eps": 1e-6},
    "torchvision's ViT": {"activation": "gelu", "norm_eps": 1e-6},
    "big_vision's, MAP pooling": {
        "activation": "gelu_tanh", "class_token": False, "pool": "map", "pos_embed": "patch", "num_classes": 0,
    },
    "DeiT": {"distilled": True},
    "DeiT, one head": {"register_tokens": 1, "pos_embed": "all"},
    "DINOv2": {"layer_scale": 1e-5, "num_classes": 0},
    "CLIP": {"pre_norm": True, "patch_bias": False, "activation": "quick_gelu", "norm_eps": 1e-5, "num_classes": 0},
    "SigLIP's classifier": {"class_token": False, "pool": "avg", "activation": "gelu_tanh", "pos_embed": "patch"},
}  # fmt: skip
"""Models that together cover every writable format; a pair of formats takes the first that both can hold."""
SMALL = {"image_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}
ALLOWANCE = 400e6
"""Bytes of memory beside 1.2 times the largest tensor, and twice the time of a copy, are what conversions may take."""
PAGE = """# Cost of a conversion

Every pair of formats beside a plain copy of the source, flushed to disk. Time: the median of the conversions over the
median of the copies, taken in turn. Memory: the peak resident memory of the whole process (VmHWM: interpreter,
libraries and mapped files included), in MB of 10^6 bytes, beside 1.2 times the largest tensor + 400 MB.

{in_time} of {count} pairs take at most twice the time of the copy; {in_memory} stay within that memory.

The machine had {cores} and a load of {load:.1f} (15-minute mean, up to two of it its own). On a busy machine a
conversion waits longer for the others than a copy does. CPU seconds are those of all threads, in the kernel too.

Results bypass the page cache and are written while the next tensors are read; a copy goes through the cache, and
takes longer the less memory is free and warm. The rest of the time goes to transposing matrices, the SHA-256 of the
source, which the record in `timm`, `flax` and PyTorch files holds, and the checksums of `.npz`. TensorStore writes
`flax` through the cache, after orbax has written the tree. Half of the memory for `flax` is jax and orbax themselves;
for PyTorch files it is pages of the mapped file, which the system reclaims when it needs them.

Written by `{command}` with {versions}.

| from | to | seconds | copy | ratio | CPU seconds | copy | peak, MB | allowed, MB |
|---|---|---|---|---|---|---|---|---|
"""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Result:
    """Medians of one pair."""

    source: str
    target: str
    seconds: float
    copy_seconds: float
    cpu: float
    """Seconds of all its threads together, in the kernel too: what another load on the machine does not change much."""
    copy_cpu: float
    peak: float
    """Bytes."""
    largest: float
    """Bytes of the largest tensor in either file."""

    @property
    def ratio(self) -> float:
        return self.seconds / self.copy_seconds

    @property
    def allowed(self) -> float:
        return 1.2 * self.largest + ALLOWANCE


def flavoured(name: str, flavour: str) -> Config:
    """The named model with a flavour's facts."""
    return get_model(name).config.replace(**FLAVOURS[flavour])


def pairs(name: str, only: tuple[str, ...]) -> dict[str, list[tuple[str, str]]]:
    """Flavour → pairs of formats; every pair once."""
    result: dict[str, list[tuple[str, str]]] = {}
    seen: set[tuple[str, str]] = set()
    for flavour in FLAVOURS:
        config = flavoured(name, flavour)
        holders = [
            entry.name for entry in FORMATS.values()
            if entry.can_write and not entry.cannot_hold(config) and (not only or entry.name in only)
        ]  # fmt: skip
        found = [(a, b) for a in holders for b in holders if a != b and (a, b) not in seen]
        seen.update(found)
        result[flavour] = found
    return result


def random_checkpoint(config: Config) -> conversion.Checkpoint:
    """Random float32 weights."""
    rng = np.random.default_rng(0)
    params = {entry.name: rng.standard_normal(entry.shape, dtype=np.float32) for entry in parameters(config)}
    return conversion.Checkpoint.of(config, params)


def write(path: str, format_name: str, model: str, flavour: str) -> None:
    """Child process: random weights of a model as one format."""
    conversion.save(random_checkpoint(flavoured(model, flavour)), path, format=format_name, activation="keep")


def convert(source: str, target: str, formats: tuple[str, str], model: str, flavour: str) -> dict[str, float]:
    """Child process: seconds, peak bytes, and bytes of the largest tensor of one conversion."""
    config = flavoured(model, flavour)
    with tempfile.TemporaryDirectory(dir=Path(target).parent) as folder:
        small = config.replace(**SMALL, mlp_hidden_dim=None, mlp_ratio=4.0)
        small = small if config.num_classes else small.replace(num_classes=0)
        conversion.save(random_checkpoint(small), Path(folder) / "a", format=formats[0], activation="keep")
        warm = conversion.load(Path(folder) / "a", model=small)
        conversion.save(warm, Path(folder) / "b", format=formats[1], activation="keep")
    begin, cpu = time.perf_counter(), time.process_time()
    checkpoint = conversion.load(source, model=config)
    conversion.save(checkpoint, target, format=formats[1], activation="keep")
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = peak_memory()
    tables = [open_source(Path(path)).table for path in (source, target)]
    largest = max(table.nbytes(name) for table in tables for name in table)
    return {"seconds": seconds, "cpu": cpu, "peak": peak, "largest": largest}


def copy(source: str, target: str) -> dict[str, float]:
    """Child process: seconds to copy a file or folder in plain reads and writes, and to flush it."""
    begin, cpu = time.perf_counter(), time.process_time()
    files = [Path(source)] if Path(source).is_file() else [file for file in Path(source).rglob("*") if file.is_file()]
    for file in files:
        destination = Path(target) / file.relative_to(source) if Path(source).is_dir() else Path(target)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as reader, destination.open("wb") as writer:
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
    return {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}


def in_child(function: str, *arguments: object) -> dict[str, float]:
    """Run one of the functions above in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.convert", "--child", function, json.dumps(arguments)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def measure(folder: Path, formats: tuple[str, str], model: str, flavour: str, repeats: int) -> Result:
    """Copy and conversion in turn, each result removed before the next."""
    source, target = folder / formats[0], folder / "target"
    copies: list[dict[str, float]] = []
    conversions: list[dict[str, float]] = []
    for _ in range(repeats):
        copies.append(in_child("copy", str(source), str(target)))
        remove(target)
        conversions.append(in_child("convert", str(source), str(target), formats, model, flavour))
        remove(target)
    return Result(
        *formats,
        seconds=statistics.median(entry["seconds"] for entry in conversions),
        copy_seconds=statistics.median(entry["seconds"] for entry in copies),
        cpu=statistics.median(entry["cpu"] for entry in conversions),
        copy_cpu=statistics.median(entry["cpu"] for entry in copies),
        peak=max(entry["peak"] for entry in conversions),
        largest=conversions[0]["largest"],
    )


def markdown(results: list[Result], command: str) -> str:
    """The page of the documentation."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "isal", "safetensors", "torch", "jax", "orbax-checkpoint")
    )
    page = PAGE.format(
        in_time=sum(result.ratio <= 2 for result in results),
        in_memory=sum(result.peak <= result.allowed for result in results),
        count=len(results),
        cores=f"{os.cpu_count()} CPU cores ({platform.machine()})",
        load=os.getloadavg()[2],
        command=command,
        versions=versions,
    )
    return page + "".join(f"| {' | '.join(cells(result))} |\n" for result in results)


def cells(result: Result) -> list[str]:
    """A row of the table."""
    return [
        f"`{result.source}`", f"`{result.target}`", f"{result.seconds:.2f}", f"{result.copy_seconds:.2f}",
        f"{result.ratio:.1f}", f"{result.cpu:.2f}", f"{result.copy_cpu:.2f}", f"{result.peak / 1e6:.0f}",
        f"{result.allowed / 1e6:.0f}",
    ]  # fmt: skip


def benchmark(
    model: str = "vit_large_patch16_224",
    formats: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = (),
    repeats: int = 3,
    output: Path | None = None,
    folder: Path | None = None,
) -> None:
    """Convert a model with random weights between every pair of writable formats, and copy it as often.

    Args:
        model: registered name; its float32 weights take 1.2 GB unless a smaller one is named.
        formats: formats to pair; all writable ones where none is named.
        repeats: conversions and copies of each pair, of which the median is taken.
        output: where to write the table as Markdown, after each pair.
        folder: where to write the weights, on the disk that is to be measured; the system's temporary folder if not
            given.
    """
    console = Console(markup=False, highlight=False, width=10_000)
    console.print("model: from, to, seconds, seconds of the copy, ratio, CPU seconds, of the copy, peak and allowed MB")
    results: list[Result] = []
    command = " ".join(["python -m benchmarks.convert", *sys.argv[1:]])
    for flavour, found in pairs(model, formats).items():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            for source in dict.fromkeys(source for source, _ in found):
                in_child("write", str(Path(place) / source), source, model, flavour)
                for pair in (pair for pair in found if pair[0] == source):
                    result = measure(Path(place), pair, model, flavour, repeats)
                    results.append(result)
                    console.print(f"{flavour}: {', '.join(cells(result))}")
                    if output is not None:
                        output.write_text(markdown(results, command))
                remove(Path(place) / source)


CHILDREN = {"write": write, "convert": convert, "copy": copy}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        answer = CHILDREN[sys.argv[2]](*json.loads(sys.argv[3]))
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        tyro.cli(benchmark)


if __name__ == "__main__":
    main()
