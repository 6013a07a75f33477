"""Data in a bucket give the batches of the same files on a disk, in the same order."""

from __future__ import annotations

import numpy as np
import pytest

from conversion.store import put
from tests.stores import running
from tests.vit_jax.training.data.folders import image_folder
from vit_jax.training.data import Data, Stream, open_sources
from vit_spec import Preprocessing, VitportError

PREPROCESSING = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(params=["gs", "s3"])
def store(request, monkeypatch, tmp_path):
    with running(request.param, monkeypatch, tmp_path / "cache") as found:
        yield found


def _batches(path: str, **options: object) -> list[dict[str, np.ndarray]]:
    data = Data(path, **options)  # type: ignore[arg-type]
    train, _ = open_sources(data)
    with Stream(train, data, PREPROCESSING, batch=6, rows=range(6), seed=3) as stream:
        return [next(stream) for _ in range(5)]


def _same(path: str, disk: str, **options: object) -> None:
    for one, other in zip(_batches(path, **options), _batches(disk, **options), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        assert one["weight"].all()


def _shards(folder) -> None:
    """Three shards, two of them of training images; one image is longer than what is read at a time."""
    import io
    import tarfile

    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir()
    for number, split in enumerate(("train", "train", "val")):
        with tarfile.open(folder / f"{split}-{number}.tar", "w") as tar:
            for at in range(7):
                side = 700 if (number, at) == (1, 3) else 20
                image = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (side, side + 5, 3), np.uint8)).save(image, "png")
                for suffix, content in ((".png", image.getvalue()), (".cls", str(at % 3).encode())):
                    member = tarfile.TarInfo(f"{number}{at}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def test_tar_shards_are_read_in_place(store, tmp_path) -> None:
    _shards(tmp_path / "shards")
    put(tmp_path / "shards", f"{store.address}/shards", overwrite=False)
    _same(f"{store.address}/shards", str(tmp_path / "shards"))
    _same(f"{store.address}/shards/train-{{0..1}}.tar", str(tmp_path / "shards" / "train-{0..1}.tar"), holdout=0.3)
    train, validation = open_sources(Data(f"{store.address}/shards"))
    assert validation is not None
    assert (len(train), len(validation)) == (14, 7)
    assert not list((tmp_path / "cache").rglob("*.tar"))
    with pytest.raises(VitportError, match="does not exist"):
        open_sources(Data(f"{store.address}/nothing"))


def test_other_files_are_copied_once(store, tmp_path) -> None:
    image_folder(tmp_path / "photos")
    put(tmp_path / "photos", f"{store.address}/photos", overwrite=False)
    _same(f"{store.address}/photos", str(tmp_path / "photos"))
    copied = sorted((tmp_path / "cache").rglob("*.png"))
    _batches(f"{store.address}/photos")
    assert sorted((tmp_path / "cache").rglob("*.png")) == copied


def test_images_of_a_batch_are_asked_for_at_the_same_time(tmp_path, monkeypatch) -> None:
    """One after the other, the four threads that make batches would have four requests under way."""
    with running("gs", monkeypatch, tmp_path / "cache") as store:
        _shards(tmp_path / "shards")
        put(tmp_path / "shards", f"{store.address}/shards", overwrite=False)
        data = Data(f"{store.address}/shards")
        train, _ = open_sources(data)
        store.delay, store.most_together = 0.2, 0
        with Stream(train, data, PREPROCESSING, batch=30, rows=range(30), seed=3) as stream:
            assert next(stream)["weight"].all()
        assert store.most_together > 16
