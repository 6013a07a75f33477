"""Training images out of a bucket, compared with the same shards on this machine's disk."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.alternate import Bench, Say, alternate, peak, seconds
from benchmarks.cases.case import Case, Outcome, Scale
from benchmarks.input_pipeline import make_images
from benchmarks.measure import Comparison, faster

DELAY = 0.03
IMAGES = {"digits": 1797, "224": 1300}
WORDS = f"""Our training stream over tar shards in a bucket whose server takes {DELAY * 1000:.0f} ms for each request,
over the same shards on the disk: scikit-learn's {IMAGES["digits"]} digits of 8 x 8 pixels, which are small enough to be
held in memory, and {IMAGES["224"]} JPEG files of 500 x 375 pixels, decoded, randomly cropped, resized to 224 x 224 and
flipped, each by a request of its own. The server runs on the same cores. Memory: the most of the process that reads."""


def case() -> Case:
    """The case of the bucket."""
    return Case("bucket", "Shards in a bucket", WORDS, run)


def run(scale: Scale, say: Say) -> Outcome:
    """Both sizes, in threads of one process."""
    comparisons, twins = [], []
    pace = dataclasses.replace(scale.pace, seconds=0.0)
    with tempfile.TemporaryDirectory() as folder, Bench(say) as bench:
        for kind, count in IMAGES.items():
            shards = Path(folder) / kind
            (_digits if kind == "digits" else _photographs)(shards, 100 if scale.small else count)
            with _served(shards) as url:
                store = {"TENSORSTORE_GCS_HTTP_URL": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
                         "XDG_CACHE_HOME": f"{folder}/cache-{kind}"}  # fmt: skip
                told = {"size": 8 if kind == "digits" else 224, "small": kind == "digits"}
                bench.start("disk", "benchmarks.sides_data:shards", {"path": str(shards), **told})
                bench.start("disk again", "benchmarks.sides_data:shards", {"path": str(shards), **told})
                bench.start("bucket", "benchmarks.sides_data:shards", {"path": "gs://shards", **told}, store)
                found = alternate([bench.turn(name, "0") for name in bench.workers], pace)
                times = {name: seconds(name, samples) for name, samples in found.items()}
                comparisons.append(faster(kind, times["bucket"], times["disk"]))
                twins.append(faster(kind, times["disk"], times["disk again"]))
                held = {name: peak(name, samples) for name, samples in found.items()}
                comparisons.append(Comparison(f"{kind}, memory", held["bucket"], held["disk"], False))
            bench.close()
        return Outcome.of(bench, comparisons, twins)


def _digits(folder: Path, count: int) -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = []
    for row in range(count):
        file = io.BytesIO()
        Image.fromarray((np.asarray(pixels[row]).reshape(8, 8) * 255 / 16).astype(np.uint8)).save(file, "png")
        images.append((".png", file.getvalue(), int(labels[row])))
    _write(folder, images)


def _photographs(folder: Path, count: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        make_images(Path(made), count)
        files = sorted(Path(made).rglob("*.jpg"), key=lambda file: file.name)
        _write(folder, [(".jpg", file.read_bytes(), int(file.parent.name[-1])) for file in files])


def _write(folder: Path, images: list[tuple[str, bytes, int]]) -> None:
    """Four shards."""
    folder.mkdir()
    for number in range(4):
        with tarfile.open(folder / f"train-{number}.tar", "w") as tar:
            for at in range(number, len(images), 4):
                suffix, content, label = images[at]
                for name, data in ((f"{at:05}{suffix}", content), (f"{at:05}.cls", str(label).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.slow_store", str(folder), str(DELAY)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()
