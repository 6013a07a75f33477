"""A run whose work directory is in a bucket ends with the very bits, and the log, of one on a disk."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

import conversion
from conversion.store import Objects, put
from tests.stores import running
from tests.vit_cli.training import LENGTH, arguments, lines, same_bits, weights
from vit_cli.main import main
from vit_jax.training.run import lease, lock
from vit_jax.training.run.lease import Lease
from vit_jax.training.run.writing import UnwrittenError
from vit_spec import VitportError

pytestmark = pytest.mark.slow


@pytest.fixture(params=["gs", "s3"])
def store(request, monkeypatch, tmp_path):
    with running(request.param, monkeypatch, tmp_path / "cache") as found:
        yield found


def _fetched(address: str, into: Path) -> Path:
    """Everything in the bucket's folder, as on a disk."""
    objects = Objects(address)
    for name in objects.names():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(objects.read(name) or b"")
    return into


def _same_run(address: str, disk: Path, tmp_path: Path) -> None:
    run = _fetched(address, tmp_path / "fetched")
    for key in ("params", "ema"):
        assert same_bits(weights(run, key), weights(disk, key))
    assert lines(run) == lines(disk)
    assert not (run / "owner.json").exists()
    exported = conversion.load(address, weights_key="params").params  # straight from the bucket
    assert same_bits({name: exported[name] for name in exported}, weights(disk))


def test_a_run_goes_on_in_a_bucket_and_ends_with_the_same_bits(store, undisturbed, tmp_path, capsys) -> None:
    """It begins as a killed one left it: half a checkpoint of step 12 is there, and lines after step 9."""
    shutil.copytree(undisturbed, tmp_path / "run")
    address = f"{store.address}/run"
    put(tmp_path / "run", address, overwrite=False)
    objects = Objects(address)
    objects.delete(["checkpoints/12/sha256.json"])
    assert main(arguments(address, *LENGTH)) == 0
    told = capsys.readouterr().out
    assert "resuming from the checkpoint of step 9" in told
    assert f"wrote {address}/curves.png" in told
    _same_run(address, undisturbed, tmp_path)
    assert not list(tmp_path.glob("gs:*"))


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(store, undisturbed, tmp_path, capsys) -> None:
    address = f"{store.address}/run"
    put(undisturbed, address, overwrite=False)
    objects = Objects(address)
    name = next(name for name in objects.names("checkpoints/12/rest/") if "/d/" in name)
    objects.write(name, b"x" + (objects.read(name) or b"")[1:])
    assert main(arguments(address, *LENGTH)) == 0
    told = capsys.readouterr().out
    assert "checkpoint 12 cannot be read" in told
    assert "resuming from the checkpoint of step 9" in told
    assert "checkpoints/unread-12/sha256.json" in objects.names()
    _same_run(address, undisturbed, tmp_path)


def test_a_second_run_is_refused_at_once_and_a_dead_ones_lease_is_taken(store, monkeypatch, capsys) -> None:
    """The other is a living process of this machine, or one of another host that gives no sign of life."""
    monkeypatch.setattr(lease, "_BEAT", 0.2)
    monkeypatch.setattr(lease, "LEASE", 2.0)
    objects = Objects(f"{store.address}/run")
    first = Lease(objects)
    with pytest.raises(VitportError, match=r"is in use by another run \(process \d+ on"):
        Lease(objects)
    assert main(arguments(objects.address, *LENGTH)) == 2
    assert "is in use by another run" in capsys.readouterr().err
    first._ended.set()
    first._thread.join()
    content = json.loads(objects.read(lock.FILE) or b"")
    objects.write(lock.FILE, json.dumps({**content, "machine": "another", "token": "its"}).encode())
    told: list[str] = []
    with Lease(objects, told.append) as taken:
        assert "seems dead: waiting 2 seconds" in told[0]
        taken.check()
        objects.write(lock.FILE, json.dumps({**content, "token": "a third"}).encode())
        time.sleep(1)
        with pytest.raises(UnwrittenError, match="was taken over by another run"):
            taken.check()
    assert objects.read(lock.FILE) is not None  # the third's
    objects.delete([lock.FILE])


@pytest.mark.slow
def test_a_lost_store_ends_the_run_in_one_sentence(store, tmp_path, monkeypatch, capsys) -> None:
    if store.address.startswith("s3"):
        pytest.skip("moto refuses nobody")
    store.refused = "sha256.json"  # whose checkpoint is then never complete
    address = f"{store.address}/run"
    assert main(arguments(address, "--steps", "2", "--keep.every", "1")) == 2
    told = capsys.readouterr().err
    assert "Checkpoint 1 could not be written to" in told
    assert "is refused" in told
    store.refused = None
    assert not [name for name in Objects(address).names() if name.endswith("sha256.json")]
