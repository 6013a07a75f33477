"""Images per second of the input pipeline, compared with a plain loop of Pillow over the same files.

    python -m benchmarks.input_pipeline [--images 2000] [--rounds 5] [--workers 0 2]

The files are JPEGs of 500 x 375 pixels cut from scikit-learn's two photographs. All sides decode, cut a random part,
scale it to 224 x 224 and flip half of them, in as many processes (one for 0 workers):

- ours: a training stream, as the trainer reads it; with 0 workers its threads work in the one process;
- plain: a loop whose batches come back to the parent process, through a multiprocessing.Pool if there are workers;
- kept nowhere: the same loop where nothing is stacked or sent, which is what decoding and scaling alone take.

The sides take turns; start-up is not counted. Next to images per second stands the CPU time per image of all processes
together, which tells more where others compute at the same time.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from vit_jax.training.data import Data, Source, Stream, open_source
from vit_spec import Preprocessing

SIZE = 224
BATCH = 50
FILLING = 6
"""Batches before the clock starts: as many as the queues of two workers hold."""


def make_images(folder: Path, count: int) -> None:
    """``count`` files in two class folders."""
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    for number in range(count):
        rng = random.Random(number)
        photograph = photographs[number % 2]
        left, top = rng.randrange(photograph.width - 500), rng.randrange(photograph.height - 375)
        at = folder / f"class_{number % 2}" / f"{number:05}.jpg"
        at.parent.mkdir(exist_ok=True)
        photograph.crop((left, top, left + 500, top + 375)).save(at, quality=rng.randrange(85, 97))


class Rate(NamedTuple):
    """What one turn took."""

    images_per_second: float
    cpu_ms_per_image: float


class Meter:
    """Measures from its construction on."""

    def __init__(self) -> None:
        self.cpu, self.start = cpu_seconds(), time.perf_counter()

    def rate(self, images: int) -> Rate:
        """While all processes are still there."""
        return Rate(images / (time.perf_counter() - self.start), (cpu_seconds() - self.cpu) / images * 1000)


def cpu_seconds() -> float:
    """Of this process and its children so far."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system, after "(name) state ppid …"
    return ticks / os.sysconf("SC_CLK_TCK")


def ours(source: Source, workers: int, first: int, size: int = SIZE, epochs: int = 1) -> Rate:
    """All of the source's images, after some batches that fill the queues and are not counted."""
    count = epochs * len(source) // BATCH
    with Stream(
        source,
        Data(workers=workers),
        Preprocessing(size=(size, size)),
        batch=BATCH,
        rows=range(BATCH),
        seed=0,
        first=first,
    ) as stream:
        for _ in range(FILLING):
            next(stream)
        meter = Meter()
        for _ in range(count):
            next(stream)
        return meter.rate(count * BATCH)


def plain(files: Sequence[str], processes: int) -> Rate:
    """Arriving in this process."""
    batches = [files[at : at + BATCH] for at in range(0, len(files), BATCH)]
    if processes == 1:
        meter = Meter()
        for batch in batches:
            plain_batch(batch)
        return meter.rate(len(files))
    return pooled(plain_batch, batches, processes)


def kept_nowhere(files: Sequence[str], processes: int) -> Rate:
    """Dropped in the process that makes them."""
    batches = [files[at : at + BATCH] for at in range(0, len(files), BATCH)]
    return pooled(plain_loop, batches, processes)


def pooled(work: Callable[[Sequence[str]], object], batches: Sequence[Sequence[str]], processes: int) -> Rate:
    """After all processes have started."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(plain_loop, [batches[0][:4]] * processes * 2, chunksize=1)
        meter = Meter()
        for _ in pool.imap(work, batches):
            pass
        return meter.rate(sum(map(len, batches)))


def plain_batch(files: Sequence[str]) -> np.ndarray:
    """uint8 (B, 224, 224, 3)."""
    return np.stack([plain_image(file) for file in files])


def plain_loop(files: Sequence[str]) -> None:
    """The same for nothing."""
    for file in files:
        plain_image(file)


def plain_image(file: str) -> np.ndarray:
    """The straightforward loop."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    area = image.width * image.height * random.uniform(0.08, 1)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(image.width, round(math.sqrt(area * ratio)))
    height = min(image.height, round(math.sqrt(area / ratio)))
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), options.images)
        source = open_source(folder, "train")
        assert source is not None  # it was written above
        files = [source[at].name for at in range(len(source))]
        size = statistics.mean(Path(file).stat().st_size for file in files)
        print(f"{len(files)} JPEG files of {size / 1000:.0f} kB, medians of {options.rounds} rounds")  # noqa: T201
        for workers in options.workers:
            processes = max(workers, 1)
            rates = [
                (ours(source, workers, number), plain(files, processes), kept_nowhere(files, processes))
                for number in range(options.rounds)
            ]
            print(f"{workers} workers")  # noqa: T201
            for name, side in zip(("ours", "plain", "kept nowhere"), zip(*rates, strict=True), strict=True):
                rate, cpu = (statistics.median(values) for values in zip(*side, strict=True))
                print(f"  {name:12} {rate:6.0f} images/s  {cpu:5.2f} ms of CPU an image")  # noqa: T201
            over = sorted(a.images_per_second / b.images_per_second for a, b, _ in rates)
            print(f"  ours over plain, images/s: {statistics.median(over):.2f} ({over[0]:.2f} to {over[-1]:.2f})")  # noqa: T201


if __name__ == "__main__":
    main()
