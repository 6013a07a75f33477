"""Weights in a bucket are read, and written, as those on a disk are. Oracle: the same on the disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import conversion
from conversion.store import Objects, put
from tests.vit_cli.conftest import tiny_checkpoint
from vit_cli.main import main
from vit_spec import VitportError


def _same(one, other) -> bool:
    return one.config == other.config and all(
        np.array_equal(one.params[name], other.params[name]) for name in one.params
    )


@pytest.mark.parametrize("to, name", [("timm", "w.safetensors"), ("huggingface", "folder"), ("flax", "folder")])
def test_weights_go_into_a_bucket_and_back(to, name, store, tmp_path) -> None:
    checkpoint = tiny_checkpoint()
    conversion.save(checkpoint, tmp_path / name, format=to)
    address = f"{store.address}/{to}/{name}"
    done = conversion.convert(tmp_path / name, address, to=to)
    assert _same(done.result, conversion.load(tmp_path / name))
    assert _same(conversion.load(address), conversion.load(tmp_path / name))
    with pytest.raises(VitportError, match="exists already"):
        conversion.convert(tmp_path / name, address, to=to)
    other = conversion.convert(tmp_path / name, address, to=to, changes=conversion.Changes(head="drop"), overwrite=True)
    assert _same(conversion.load(address), other.changed)  # not the copy of what was there before


def test_the_commands_take_addresses(store, tmp_path, capsys) -> None:
    conversion.save(tiny_checkpoint(), tmp_path / "w.safetensors", format="timm")
    address = f"{store.address}/commands"
    image = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)).save(image)
    put(tmp_path / "w.safetensors", f"{address}/w.safetensors", overwrite=False)
    put(image, f"{address}/{image.name}", overwrite=False)
    told = {}
    for where in (address, None):
        weights = f"{where}/w.safetensors" if where else str(tmp_path / "w.safetensors")
        photo = f"{where}/{image.name}" if where else str(image)
        assert main(["inspect", weights, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert main(["predict", photo, "--weights", weights, "--json"]) == 0
        told[where] = {**found, "path": ""}, json.loads(capsys.readouterr().out)["top"]
    assert told[address] == told[None]


def test_nothing_half_written_is_read_as_whole(store, tmp_path, monkeypatch) -> None:
    """A writer that ends after any of its objects leaves what no reader takes for weights, old or new."""
    conversion.save(tiny_checkpoint(), tmp_path / "old", format="huggingface")
    new = tiny_checkpoint(num_classes=5)
    conversion.save(new, tmp_path / "new", format="huggingface")
    address = f"{store.address}/half"
    write = Objects.write_all

    for writes in range(2):

        def cut(objects, contents, writes=writes) -> None:
            monkeypatch.setattr(Objects, "write_all", write)
            objects.write_all(list(contents)[:writes])
            raise KeyboardInterrupt

        put(tmp_path / "old", address, overwrite=True)
        monkeypatch.setattr(Objects, "write_all", cut)
        with pytest.raises(KeyboardInterrupt):
            put(tmp_path / "new", address, overwrite=True)
        with pytest.raises(VitportError):
            conversion.load(address)
    put(tmp_path / "new", address, overwrite=True)
    assert _same(conversion.load(address), conversion.load(tmp_path / "new"))


def test_what_is_not_there_is_one_sentence(store, capsys) -> None:
    assert main(["inspect", f"{store.address}/nothing"]) == 2
    assert "does not exist" in capsys.readouterr().err
    for args in (
        ["compare", "a", "b", "--figure", "gs://b/x.png"],
        ["rollout", "a.png", "--weights", "w", "--output", "gs://b/x.png"],
    ):
        assert main(args) == 2
        assert "reads and writes paths of this machine here" in capsys.readouterr().err
