"""Oracles: the order written down as arithmetic, and the images as the test wrote them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conversion.images.image import crop, open_image
from tests.vit_jax.training.data.folders import encoded, image_folder, smooth_image
from vit_jax.training.data import (
    Augmentation,
    Batch,
    Data,
    RandAugment,
    Source,
    Stream,
    evaluation_batches,
    open_source,
)
from vit_jax.training.data.feed import Feed
from vit_jax.training.data.record import Record
from vit_spec import Preprocessing, VitportError

pytestmark = pytest.mark.jax_alone

SMALL = Preprocessing(size=(16, 12), interpolation="bilinear")
PLAIN = Augmentation(crop="none", flip=0)
ALL = Augmentation(randaugment=RandAugment(2, spread=0.5), jitter=0.3, erasing=0.25)
BATCH = 7


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    """24 images."""
    found = open_source(str(image_folder(tmp_path_factory.mktemp("images"))), "train")
    assert found is not None
    return found


def _batches(source: Source, options: Data, count: int, *, rows=range(BATCH), first: int = 0, seed: int = 3):
    with Stream(source, options, SMALL, batch=BATCH, rows=rows, seed=seed, first=first) as stream:
        return [next(stream) for _ in range(count)]


def _same(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array, other[name])


def test_every_image_comes_once_an_epoch_and_epochs_differ(source) -> None:
    """24 images in batches of 7: 24 batches are seven epochs, each beginning within a batch."""
    expected = {encoded(np.asarray(crop(open_image(Path(source[at].name)), SMALL))): at for at in range(24)}
    assert len(expected) == 24
    batches = _batches(source, Data(augment=PLAIN), 24)
    seen = [expected[encoded(image)] for batch in batches for image in batch["image"]]
    epochs = np.array(seen).reshape(7, 24)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(24), (7, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 7
    labels = np.concatenate([batch["label"] for batch in batches])
    np.testing.assert_array_equal(labels, np.array(seen) // 8)
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in batches]), np.arange(7 * 24))
    assert all((batch["weight"] == 1).all() for batch in batches)


def test_repeated_augmentation_is_each_image_three_times_in_a_row_and_a_third_of_them_an_epoch(source) -> None:
    """Oracle: the definition, a permutation with each image thrice, cut off at the epoch's length (DeiT)."""
    straight = {encoded(np.asarray(crop(open_image(Path(source[at].name)), SMALL))): at for at in range(24)}
    batches = _batches(source, Data(augment=PLAIN, repeats=3), 24)
    seen = np.array([straight[encoded(image)] for batch in batches for image in batch["image"]]).reshape(7, 24)
    once = _batches(source, Data(augment=PLAIN), 24)
    order = np.array([straight[encoded(image)] for batch in once for image in batch["image"]]).reshape(7, 24)
    np.testing.assert_array_equal(seen, np.repeat(order, 3, axis=1)[:, :24])
    augmented = _batches(source, Data(augment=ALL, repeats=3), 24)
    images = [image.tobytes() for batch in augmented for image in batch["image"]]
    assert len(set(images)) == len(images)  # three forms of it
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in augmented]), seen.ravel() // 8)


def test_batches_have_the_types_that_the_trainer_expects(source) -> None:
    (batch,) = _batches(source, Data(augment=ALL), 1)
    assert {name: (array.dtype.name, array.shape) for name, array in batch.items()} == {
        "image": ("uint8", (BATCH, 16, 12, 3)),
        "label": ("int32", (BATCH,)),
        "index": ("uint32", (BATCH,)),
        "weight": ("float32", (BATCH,)),
    }


def test_workers_resuming_and_sharing_among_processes_leave_every_bit_as_it_was(source) -> None:
    """The uninterrupted stream, of one process and threads, is the oracle."""
    whole = _batches(source, Data(augment=ALL), 9)
    assert not np.array_equal(whole[0]["image"], _batches(source, Data(augment=ALL), 1, seed=4)[0]["image"])
    for workers, first, rows in ((0, 5, range(BATCH)), (0, 0, [0]), (3, 2, [6, 1, 2])):
        part = _batches(source, Data(augment=ALL, workers=workers), 9 - first, first=first, rows=rows)
        for expected, got in zip(whole[first:], part, strict=True):
            _same({name: array[list(rows)] for name, array in expected.items()}, got)
    assert not active_children()


def test_an_index_beyond_32_bits_begins_anew(source) -> None:
    (batch,) = _batches(source, Data(augment=PLAIN), 1, first=2**40)
    np.testing.assert_array_equal(batch["index"], np.arange(2**40 * BATCH, 2**40 * BATCH + BATCH) % 2**32)


def test_the_same_image_is_augmented_anew_in_every_epoch(source) -> None:
    batches = _batches(source, Data(augment=ALL), 24)
    images = np.concatenate([batch["image"] for batch in batches])
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.fixture
def damaged(tmp_path) -> Source:
    """Of 24 images one is cut short, one is text, one is an image of 16 bits."""
    root = image_folder(tmp_path)
    cut = root / "ant" / "003.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (root / "bee" / "004.png").write_text("not found")
    (root / "cat" / "005.png").write_bytes(encoded(np.zeros((9, 9), np.uint16)))
    found = open_source(str(root), "train")
    assert found is not None
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_leaves_its_place_empty_and_is_named(source, damaged, workers) -> None:
    whole = _batches(source, Data(augment=ALL), 4)
    with Stream(damaged, Data(augment=ALL, workers=workers), SMALL, batch=BATCH, rows=range(BATCH), seed=3) as stream:
        got = [next(stream) for _ in range(4)]  # 28 places: one epoch, and four of the next
        assert {name[-11:]: reason.rpartition("png ")[2][:12] for name, reason in stream.corrupt.items()} == {
            "ant/003.png": "is a damaged",
            "bee/004.png": "is not an im",
            "cat/005.png": "has more tha",
        }
    empty = 0
    for expected, batch in zip(whole, got, strict=True):
        here = batch["weight"] == 1
        empty += int((~here).sum())
        np.testing.assert_array_equal(batch["index"], expected["index"])
        for name in ("image", "label"):
            np.testing.assert_array_equal(batch[name][here], expected[name][here])
            assert not batch[name][~here].any()
    assert empty in range(3, 7)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_ends_the_run_where_that_is_asked_for(damaged, workers) -> None:
    with pytest.raises(VitportError, match=r"(003|004|005)\.png .*data\.corrupt=skip"):
        _batches(damaged, Data(augment=PLAIN, workers=workers, corrupt="fail"), 4)
    assert not active_children()


def test_an_image_that_unpacks_to_too_much_is_corrupt_in_threads_too(damaged, monkeypatch) -> None:
    """Pillow only warns from its limit to twice it; the limit is set below the 520 pixels of these images."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with (
        Stream(damaged, Data(), SMALL, batch=4, rows=range(4), seed=0) as stream,
        pytest.warns(Image.DecompressionBombWarning),
    ):
        batch = next(stream)
    assert not batch["weight"].any()
    assert any("decodes to more than 400 pixels" in reason for reason in stream.corrupt.values())


def test_images_that_are_all_gone_end_the_run_even_so(tmp_path) -> None:
    found = open_source(str(image_folder(tmp_path)), "train")
    assert found is not None
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with (
        Stream(found, Data(), SMALL, batch=8, rows=range(8), seed=0) as stream,
        pytest.raises(VitportError, match=r"None of 8 consecutive images of .* can be read; the first: .*No such file"),
    ):
        next(stream)


def test_a_worker_that_is_killed_ends_the_run_within_seconds(source) -> None:
    with Stream(source, Data(workers=2), SMALL, batch=BATCH, rows=range(BATCH), seed=0) as stream:
        next(stream)
        victim = active_children()[0].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(VitportError, match=r"One of the 2 data workers died \(SIGKILL\)"):
            for _ in range(1000):
                next(stream)
        assert time.monotonic() - start < 10
    assert not active_children()


class Drawn:
    """Images in memory: as large as none of its workers' pipes."""

    name, classes = "drawn", ("one",)

    def __init__(self, count: int) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> Record:
        return Record(f"drawn {at}", 0, self.images[at])


@pytest.mark.parametrize("after", [0.0, 0.1])
def test_a_worker_that_is_killed_before_it_has_read_what_to_do_ends_the_run(after) -> None:
    """Python's multiprocessing would write the rest of its 4 MB into the pipe of nobody."""
    begin = time.monotonic()
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.002):
            if young := active_children():
                time.sleep(after)
                os.kill(young[0].pid or 0, signal.SIGKILL)
                return

    hunter = threading.Thread(target=kill)
    hunter.start()
    try:
        with (
            Stream(Drawn(5000), Data(workers=2), SMALL, batch=BATCH, rows=range(BATCH), seed=0) as stream,
            pytest.raises(VitportError, match=r"One of the 2 data workers died \(SIGKILL\): if memory"),
        ):
            for _ in range(3):
                next(stream)
    finally:
        ended.set()
        hunter.join()
    assert time.monotonic() - begin < 20  # 2 s on an idle machine
    assert not active_children()
    assert not list(Path(tempfile.gettempdir()).glob("vitport-workers-*"))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (signal.SIGKILL, r"One of the 2 data workers died \(SIGKILL\)"),
        (signal.SIGSTOP, r"The data worker with process number \d+ is stopped, .*kill -CONT"),
    ],
)
def test_a_worker_that_is_killed_or_stopped_while_it_hands_a_batch_over_ends_the_run(
    number, sentence, monkeypatch
) -> None:
    """16 images of 32x32 are 49 kB; a pipe holds 64, so that the second waits half written."""
    monkeypatch.setattr("vit_jax.training.data.workers._STOPPED_LOOKS", 2)
    with Stream(
        Drawn(64), Data(augment=PLAIN, workers=2), Preprocessing(size=32), batch=16, rows=range(16), seed=0
    ) as stream:
        next(stream)
        next(stream)
        time.sleep(0.5)
        os.kill(active_children()[0].pid or 0, number)
        begin = time.monotonic()
        with pytest.raises(VitportError, match=sentence):
            for _ in range(1000):
                next(stream)
        assert time.monotonic() - begin < 10
    assert not active_children()


def test_a_feed_ends_although_a_worker_is_stopped_or_died_with_half_a_batch_handed_over(monkeypatch) -> None:
    monkeypatch.setattr("vit_jax.training.data.feed._PATIENCE", 1.0)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        with Stream(Drawn(64), Data(workers=2), Preprocessing(size=32), batch=16, rows=range(16), seed=0) as stream:
            next(stream)
            next(stream)
            time.sleep(0.5)
            os.kill(active_children()[0].pid or 0, number)
            begin = time.monotonic()
        assert time.monotonic() - begin < 10
        assert not active_children()


def test_a_worker_outlives_the_signals_that_its_parent_gets_too(source) -> None:
    """Ctrl-C, and the end of a job's time: the run may want more batches until it has saved."""
    with Stream(source, Data(workers=1), SMALL, batch=BATCH, rows=range(BATCH), seed=0) as stream:
        next(stream)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(active_children()[0].pid or 0, number)
        for _ in range(12):
            next(stream)
    assert not active_children()


def test_no_thread_reads_after_the_end() -> None:
    """The next batches are made ahead; the end waits for them, and no other begins."""
    begun, go_on = threading.Event(), threading.Event()
    read: list[bool] = []

    def make(number: int, /):
        if number:
            begun.set()
            go_on.wait(30)
            read.append(closed)
        return {"image": np.zeros(1)}, ()

    closed = False
    feed = Feed(make, workers=0)
    next(feed)
    begun.wait(30)
    threading.Timer(0.2, go_on.set).start()
    feed.close()
    closed = True
    assert read
    with pytest.raises(VitportError, match="after the end of its feed"):
        feed._threads(9)
    assert not any(read)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_every_image_once_in_order_and_fills_up_with_weight_0(source, workers) -> None:
    for batch, rows in ((7, [2, 5]),) if workers else ((7, None), (7, [2, 5]), (24, None), (30, None)):
        own = list(range(batch) if rows is None else rows)
        with evaluation_batches(source, SMALL, batch=batch, rows=rows, workers=workers) as feed:
            batches = list(feed)
        assert len(batches) == -(-24 // batch)
        for t, got in enumerate(batches):
            assert got["image"].shape == (len(own), 16, 12, 3)
            for row, place in enumerate(t * batch + np.array(own)):
                expected = np.zeros((16, 12, 3), np.uint8)
                if place < 24:
                    expected = np.asarray(crop(open_image(Path(source[place].name)), SMALL))
                np.testing.assert_array_equal(got["image"][row], expected)
                assert got["weight"][row] == (place < 24)
                assert got["label"][row] == (place // 8 if place < 24 else 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_coloured_images_fit_models_of_one_and_three_channels(tmp_path, channels) -> None:
    root = image_folder(tmp_path, count=1)
    (root / "bee" / "000.png").write_bytes(encoded(smooth_image(7)[..., 0]))
    found = open_source(str(root), "train")
    assert found is not None
    preprocessing = Preprocessing(size=(20, 26), mean=(0.5,) * channels, std=(0.5,) * channels, resize="squash")
    (batch,) = list(evaluation_batches(found, preprocessing, batch=3))
    assert batch["image"].shape == (3, 20, 26, channels)
    np.testing.assert_array_equal(batch["image"][1], np.repeat(smooth_image(7)[..., :1], channels, axis=2))
    red, green, blue = np.moveaxis(smooth_image(0).astype(np.float64), 2, 0)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R 601, as Pillow documents mode L
    expected = smooth_image(0) if channels == 3 else grey[..., None]
    assert np.abs(batch["image"][0] - expected).max() <= 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": [7]}, r"rows must lie in a batch of 7, from 0 to 6; got \[7\]"),
        ({"rows": []}, r"must lie in a batch of 7, .*; got \[\]"),
        ({"seed": -1}, "seed must be 0 or more; got -1"),
    ],
)
def test_impossible_requests_are_refused(source, change, sentence) -> None:
    with pytest.raises(VitportError, match=sentence):
        _batches(source, Data(), 1, **change)


SCRIPT = """
import multiprocessing, sys, time
from vit_jax.training.data import Data, Stream, open_source
from vit_spec import Preprocessing

def main():
    source = open_source(sys.argv[1], "train")
    with Stream(source, Data(workers=1), Preprocessing(size=8), batch=4, rows=range(4), seed=0) as stream:
        print(next(stream)["index"].tolist())
        if sys.argv[2:]:
            print(multiprocessing.active_children()[0].pid, flush=True)
            time.sleep(60)
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_workers_start_from_a_plain_script_or_say_what_it_lacks(source, tmp_path, guarded) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + ('if __name__ == "__main__":\n    main()\n' if guarded else "main()\n"))
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, str(script), source.name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    if guarded:
        assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n", "")
    else:
        assert 'put the script under if __name__ == "__main__"' in done.stderr.splitlines()[-1]


def test_a_parent_that_is_killed_leaves_no_worker_behind(source, tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + 'if __name__ == "__main__":\n    main()\n')
    command = [sys.executable, str(script), source.name, "wait"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        worker = int(run.stdout.readline())
        assert _alive(worker)
        run.kill()
    for _ in range(100):
        if not _alive(worker):
            return
        time.sleep(0.1)
    raise AssertionError("the worker lives on")


def _alive(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about does not."""
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
