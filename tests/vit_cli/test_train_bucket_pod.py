"""Two processes train from shards in a bucket into a bucket that fails, are killed, and end with the bits of a disk.

Each has four devices and half of each array. One request in twenty fails or is cut. Ten times one process is killed, or
both are, after a random number of requests, so that deaths come while they start, read, train and save. There the
server stops answering, so that no run is further when it dies, on any machine. Meanwhile, and after each death, a
reader takes the weights from the bucket: what it gets is always a whole checkpoint.
"""

from __future__ import annotations

import io
import json
import random
import signal
import subprocess
import tarfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from conversion.store import Objects, fetched, put
from tests.stores import Store, running
from tests.vit_cli.training import SMALL, arguments, lines, same_bits, start_two, weights
from tests.vit_jax.training.data.folders import encoded
from vit_cli.main import main
from vit_spec import VitportError

pytestmark = pytest.mark.slow

KILLS = 10
STEPS = 40
STARTING = 400
"""Requests of any kind before a death while processes start."""
OBJECTS = 700
"""Of a checkpoint, or more. Before a death while they train up to half as many again are written, so that one life
completes one checkpoint at most, and ten lives half of the run's twenty."""
TOKEN = "run"
"""By which the server knows the run's processes from the reader."""
OPTIONS = (
    "--steps", str(STEPS), "--keep.every", "2", "--log-every", "1", "--mesh", "data=1,fsdp=8", "--processes.wait", "30",
    "--model.depth", "1",
)  # fmt: skip
PROGRAM = """
import sys
from vit_cli.__main__ import entry
from vit_jax.training.data.sources import ranges

ranges.SMALL = 0  # else the shards, a quarter of a megabyte, would be read at once
sys.exit(entry())
"""
LOST = ("Another process of this run has ended", "Not all processes of this run connected", "could not connect")
"""Of a survivor, unless JAX aborts it first."""


def _shards(folder: Path) -> Path:
    """Handwritten digits: 240 to train with in three files, 80 to validate."""
    found, labels = load_digits(return_X_y=True)
    pixels = (np.asarray(found).reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    folder.mkdir()
    for number in range(4):
        name = "val-0" if number == 3 else f"train-{number}"
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for at in range(80 * number, 80 * number + 80):
                for suffix, content in ((".png", encoded(pixels[at])), (".cls", str(labels[at]).encode())):
                    member = tarfile.TarInfo(f"{at:04}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


def _started(
    store: Store, workdir: Path | str, data: Path | str, tmp_path: Path, *options: str
) -> list[subprocess.Popen[str]]:
    """Of two hosts, each with its own copies of what it fetched."""
    variables = store.environment | {"GOOGLE_AUTH_TOKEN_FOR_TESTING": TOKEN}
    own = [variables | {"XDG_CACHE_HOME": str(tmp_path / f"host-{index}")} for index in range(2)]
    model = [*SMALL]
    model[model.index("--data") + 1] = str(data)
    return start_two(
        arguments(workdir, *OPTIONS, "--compilation-cache", str(tmp_path / "programs"), *options, small=model),
        program=("-c", PROGRAM),
        own=own,
    )


def _ended(pair: list[subprocess.Popen[str]], killed: tuple[int, ...] = ()) -> bool:
    """Whether both came to the run's end; else each must have been killed, or say that it lost the other."""
    told = [process.communicate(timeout=900)[0] for process in pair]
    codes = [process.returncode for process in pair]
    for index, code in enumerate(codes):
        expected = {75, -signal.SIGABRT, *(() if killed else (0,))}
        if index in killed:  # of two, the second may end before its own turn, for want of the first
            expected = {-signal.SIGKILL, *(expected if len(killed) > 1 else ())}
        assert code in expected, "\n".join(told)
        assert code != 75 or any(sentence in told[index] for sentence in LOST), "\n".join(told)
    return codes == [0, 0]


class _Reader(threading.Thread):
    """Takes weights from the bucket all the time, as somebody would who does not know that a run writes there."""

    def __init__(self, address: str, disk: Path) -> None:
        super().__init__(daemon=True)
        self._address, self._disk = address, disk
        self.ended = threading.Event()
        self.read: set[int] = set()
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.look()

    def look(self) -> None:
        try:
            copy = fetched(self._address)
            (folder,) = copy.glob("checkpoints/*")
            found = weights(copy)
        except (VitportError, ValueError) as error:  # no checkpoint yet, or one that was removed meanwhile
            if "damaged" in str(error):
                self.wrong.append(str(error))
            return
        self.read.add(int(folder.name))
        if not same_bits(found, weights(self._disk / folder.name)):
            self.wrong.append(f"checkpoint {folder.name} has other weights")


def _is_held(store: Store, pair: list[subprocess.Popen[str]]) -> bool:
    """Waits until the server has stopped answering; false if a process ended before.

    On a machine with other work one of the two may not come within their ``--processes.wait``.
    """
    while not store.held.wait(0.5):
        if any(process.poll() is not None for process in pair):
            return False
    return True


def test_two_processes_that_are_killed_at_random_moments_end_with_the_bits_of_two_on_a_disk(
    tmp_path, monkeypatch
) -> None:
    shards, disk = _shards(tmp_path / "shards"), tmp_path / "disk"
    with running("gs", monkeypatch, tmp_path / "cache") as store:
        assert any(_ended(_started(store, disk, shards, tmp_path, "--keep.last", str(STEPS))) for _ in range(KILLS))
        put(shards, f"{store.address}/shards", overwrite=False)
        address, data = f"{store.address}/run", f"{store.address}/shards"
        store.faults = 0.05
        chance = random.Random(1)
        reader = _Reader(address, disk / "checkpoints")
        reader.start()
        deaths: Counter[str] = Counter()
        for _ in range(2 * KILLS):
            starting = chance.random() < 0.3
            after = chance.randint(1, STARTING if starting else OBJECTS * 3 // 2)
            which = chance.choice([(0,), (1,), (0, 1)])
            store.hold(after, "" if starting else "run/checkpoints/", TOKEN)
            pair = _started(store, address, data, tmp_path)
            if not _is_held(store, pair):
                store.free()
                assert not _ended(pair), f"the run came to its end after {deaths}"
                continue
            for index in which:
                pair[index].kill()
            for index in which:
                pair[index].wait()
            store.free()
            _ended(pair, which)
            deaths[f"{which} {'starting' if starting else 'training'}"] += 1
            reader.look()
            if deaths.total() == KILLS:
                break
        assert deaths.total() == KILLS
        assert any(_ended(_started(store, address, data, tmp_path)) for _ in range(KILLS))
        reader.ended.set()
        reader.join()
        reader.look()
        assert not reader.wrong
        assert STEPS in reader.read
        store.faults = 0.0
        _check_same(address, disk, tmp_path)


def _check_same(address: str, disk: Path, tmp_path: Path) -> None:
    """Weights, averages, the log, and files that the commands make straight from the bucket."""
    objects, run = Objects(address), tmp_path / "whole"
    assert len(objects.names(f"checkpoints/{STEPS}/")) >= OBJECTS
    for name in objects.names():
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(objects.read(name) or b"")
    for key in ("params", "ema"):
        assert same_bits(weights(run, key), weights(disk, key))
    assert lines(run) == lines(disk)
    for step in (path.name for path in (run / "checkpoints").iterdir()):
        assert json.loads((run / "checkpoints" / step / "sha256.json").read_text())
        assert not list((run / "checkpoints" / step).rglob(".lists"))
    assert not (run / "owner.json").exists()
    for source, name in ((address, "bucket"), (str(disk), "disk")):
        out = str(tmp_path / f"{name}.safetensors")
        assert main(["convert", source, out, "--to", "timm"]) == 0
    assert same_bits(load_file(tmp_path / "bucket.safetensors"), load_file(tmp_path / "disk.safetensors"))
